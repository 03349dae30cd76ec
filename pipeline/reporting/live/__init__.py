"""The live view of a running sweep in a terminal."""
