"""The command line: arguments in, one call each, words and an exit code out."""
