"""The servers that the HTTP question is put to, beside Habilis itself: what the least and the usual Python server cost."""
