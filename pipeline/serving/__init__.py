"""What is done with a finished generator: sample, interpolate, measure, export, serve."""
