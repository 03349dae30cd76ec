"""Metrics of a generator: features, Frechet distance, precision and recall, memorization, mode collapse.

Needs torch and images; knows neither training nor the files of a sweep.
"""
