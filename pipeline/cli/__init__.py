"""The command line: parses arguments, makes one call per command, prints the result, sets the exit code."""
