"""Which source reads a path that was given to another."""

from __future__ import annotations

import os
from pathlib import Path

_SOURCES = {".npz": "npz", ".npy": "npz", ".zip": "zip", ".parquet": "hf"}
_SAVED_TO_DISK = ("dataset_dict.json", "state.json")


def suggest_source(path: Path | str) -> str:
    """`npz:PATH`, `zip:PATH`, `hf:PATH` or `folder:PATH`, by what is there; "" if nothing fits."""
    if os.path.isfile(path):
        name = _SOURCES.get(os.path.splitext(path)[1].lower(), "")
    elif os.path.isdir(path):
        saved = any(os.path.isfile(os.path.join(path, name)) for name in _SAVED_TO_DISK)
        parquet = any(next(Path(path).glob(form), None) for form in ("*.parquet", "*/*.parquet"))
        name = "hf" if saved or parquet else "folder"
    else:
        name = ""
    return f"{name}:{path}" if name else ""


def suggest_source_in(folder: Path | str) -> str:
    """The source for a folder without images: of the folder, or of the first such file in it; "" if none."""
    if not os.path.isdir(folder):
        return ""
    files = (suggest_source(path) for path in sorted(Path(folder).iterdir()) if path.is_file())
    whole = suggest_source(folder)
    return next(filter(None, files), "") if whole.startswith("folder:") else whole


def did_you_mean(path: Path | str, otherwise: str) -> str:
    """The fix for a path that another source reads; `otherwise` if none does."""
    hint = suggest_source(path)
    return f"did you mean '{hint}'?" if hint else otherwise
