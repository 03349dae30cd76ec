"""gansweep: a Ray-distributed hyper-parameter search for GANs.

A space proposes, Optuna decides, Ray trains, MLflow remembers, the registry keeps the best.
The floors and the three doors of this package are drawn in README.md and held by tests/test_rooms.py.
"""

__version__ = "0.1.0"
