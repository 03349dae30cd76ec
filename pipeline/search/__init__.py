"""What is tried next, what stops early, and when the search ends: Optuna's home."""
