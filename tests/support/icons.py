"""Real colour pictures with classes: the 64-pixel icons of three Debian packages, in ten folders.

python tests/support/icons.py icons     # writes the folder `icons`, about 2,100 PNGs
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

PACKAGES = ("oxygen-icon-theme", "moka-icon-theme", "faenza-icon-theme")
INSTALL = f"apt-get install --no-install-recommends {' '.join(PACKAGES)}"
CLASSES = (
    *("actions", "apps", "categories", "devices", "emblems"),
    *("emotes", "mimetypes", "places", "status", "web"),
)
_ROOT = Path("/usr/share/icons")
_FOLDERS = {"oxygen": "oxygen/base/64x64/{}", "moka": "Moka/64x64/{}", "faenza": "Faenza/{}/64"}


def missing_themes() -> str:
    """Why there are no icons on this machine, in one line; empty where there are."""
    missing = [theme for theme, places in _FOLDERS.items() if not (_ROOT / places.format("apps")).is_dir()]
    return f"the icons of {', '.join(missing)} are not installed ({INSTALL})" if missing else ""


def write_icons(folder: Path) -> int:
    """Copy the icons to `folder`/CLASS/THEME-NAME.png, links left out; returns their number."""
    count = 0
    for theme, places in _FOLDERS.items():
        for name in CLASSES:
            (folder / name).mkdir(parents=True, exist_ok=True)
            for file in sorted((_ROOT / places.format(name)).glob("*.png")):
                if not file.is_symlink():
                    shutil.copyfile(file, folder / name / f"{theme}-{file.name}")
                    count += 1
    return count


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python tests/support/icons.py FOLDER")
    reason = missing_themes()
    if reason:
        raise SystemExit(reason)
    print(f"{write_icons(Path(sys.argv[1]))} icons in {len(CLASSES)} classes: {sys.argv[1]}")


if __name__ == "__main__":
    main()
