"""The command `gansweep`, also `python -m gansweep`."""

from pipeline.__main__ import command

if __name__ == "__main__":
    command()
