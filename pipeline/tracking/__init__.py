"""What a sweep reports to MLflow, by way of a log on disk: MLflow's home."""
