"""`gansweep doctor`: checks of what a sweep needs on this machine, one module per subject."""
