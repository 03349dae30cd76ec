"""Trials on machines: Ray's home."""
