"""Bytes at rest: whole-or-absent files, object stores, the lock of a sweep.

Knows how files are written, copied and locked, and not what trials or sweeps mean by them.
"""
