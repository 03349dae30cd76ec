"""`gansweep doctor`: what this machine and cluster have, and what is missing."""
