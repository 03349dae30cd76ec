"""Image data sets: every source becomes one uint8 array (N,H,W,C), split for training and measuring."""
