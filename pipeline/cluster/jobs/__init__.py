"""Sweeps as Ray jobs, and offline checks of the files that start a cluster."""
