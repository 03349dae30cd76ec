"""A sweep in plain words: why a trial lost, what won, what to search next."""
