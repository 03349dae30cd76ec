"""A sweep from its request to a registered champion, its resume after an interruption, and its removal."""
