"""Where weights of extractors are kept on disk; needs no torch, so that `gansweep doctor` can look there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pipeline.storage.files import cache_root

INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
"""The file that torch-fidelity publishes."""
DINOV2_FILES = tuple(f"dinov2_vit{size}14_pretrain.pth" for size in "lbsg")
"""The files that torch.hub publishes, in the order in which they are taken: published distances use ViT-L."""
DINOV2_RATES = dict(zip(DINOV2_FILES, (0.5, 1.8, 7.0, 0.13), strict=True))
"""Images per second on one core: of ViT-L and ViT-S measured, of the others by their arithmetic."""


def extractor_dir(cache: Path | None = None) -> Path:
    """The folder of gansweep's own copies, below `cache` (None: `cache_root()`)."""
    return (cache or cache_root()) / "extractors"


def inception_paths(folder: Path | None = None) -> tuple[Path, Path]:
    """Where Inception's weights are looked for; a download goes to the first. See `weights_paths`."""
    return weights_paths(INCEPTION_FILE, folder)


def weights_paths(file: str, folder: Path | None = None) -> tuple[Path, Path]:
    """Where a file of weights is looked for, in this order.

    folder: gansweep's folder; None = `extractor_dir()`. The second is torch's cache, `torch.hub.get_dir()`.
    """
    default = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "torch"
    torch_home = Path(os.environ.get("TORCH_HOME", default)).expanduser()
    return (folder or extractor_dir()) / file, torch_home / "hub" / "checkpoints" / file


def find_weights(files: Iterable[str], folder: Path | None = None) -> Path | None:
    """The first of the files that is on disk, at one of its `weights_paths`; None if there is none."""
    paths = (path for file in files for path in weights_paths(file, folder))
    return next((path for path in paths if path.is_file()), None)
