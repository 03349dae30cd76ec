"""The images of a source become one memory-mapped file: split, and looked at for copies."""
