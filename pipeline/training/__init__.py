"""One GAN: networks, losses, the training loop, its checkpoints, and the trial made of them.

Needs torch alone, so it runs on a machine without Ray, Optuna or MLflow.
"""
