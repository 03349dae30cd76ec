"""Everything that uses Ray: connecting to a cluster, running trials on it, sweeps as Ray jobs.

Ray reads the variables below when it is imported: they are set before any module of this package imports it.
"""

import os

# Under `uv run` Ray would send the current folder, with all images and sweeps in it, to its workers.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.pop("RAY_CLIENT_MODE", None)  # it would make a client of every process
