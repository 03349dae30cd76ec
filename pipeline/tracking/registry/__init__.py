"""Generators in the MLflow model registry: packing, verification, promotion, loading, export."""
