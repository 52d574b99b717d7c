"""Every run of the tests tries the same examples: a failure is the change's, and comes back."""

from hypothesis import settings

settings.register_profile("steady", derandomize=True, deadline=None, database=None)
settings.load_profile("steady")
