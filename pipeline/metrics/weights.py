"""Where weights of extractors are kept on disk; needs no torch, so that `gansweep doctor` can look there."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.storage.files import cache_root

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
"""The file that torch-fidelity publishes."""


def extractor_dir(cache: Path | None = None) -> Path:
    """The folder of gansweep's own copies, below `cache` (None: `cache_root()`)."""
    return (cache or cache_root()) / "extractors"


def inception_paths(folder: Path | None = None) -> tuple[Path, Path]:
    """Where Inception's weights are looked for, in this order; a download goes to the first.

    folder: gansweep's folder; None = `extractor_dir()`. The second is torch's cache, `torch.hub.get_dir()`.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    torch_home = Path(os.environ.get("TORCH_HOME", default)).expanduser()
    return (folder or extractor_dir()) / INCEPTION_FILE, torch_home / "hub" / "checkpoints" / INCEPTION_FILE
