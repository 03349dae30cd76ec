"""Everything that uses Ray: connecting to a cluster, running trials on it, sweeps as Ray jobs."""

import os

# Under `uv run` Ray would send the current folder, with all images and sweeps in it, to its workers.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
