"""Who did what to a patient's record, derived from the decision log: the journal, the review queue, the notices owed."""
