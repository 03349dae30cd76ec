"""Everything that uses Ray: connecting to a cluster, running trials on it, sweeps as Ray jobs."""
