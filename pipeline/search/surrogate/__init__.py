"""Our own sampler: a Gaussian process over the parameters that learns from unfinished learning curves."""
