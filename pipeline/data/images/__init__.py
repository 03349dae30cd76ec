"""Encoded images of any format become pictures of 8 bits."""
