"""The whole run: from a request to a registered champion, and on again after an interruption."""
