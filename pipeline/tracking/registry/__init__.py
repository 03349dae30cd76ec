"""Generators in the MLflow model registry: packed, verified, registered, promoted, loaded again."""
