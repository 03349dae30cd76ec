"""Names that systems, not people, put beside images: a NAS's thumbnails, waste baskets, half downloads."""

from __future__ import annotations

import fnmatch
import re
from typing import NamedTuple


class _Maker(NamedTuple):
    """Who leaves names behind: patterns of its folders and of its files, in small letters."""

    title: str
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


_MAKERS = (
    _Maker(
        "a NAS",
        ("@eadir", "#recycle", "@recycle", "@recently-snapshot", "#snapshot", ".snapshot", ".snapshots",
         "~snapshot", ".zfs", "@tmp", "@sharebin", "@database", ".@__thumb", ".@__*", ".recycle"),
        ("*@synoeastream", "*@synoresource", ".@__*"),
    ),
    _Maker(
        "Windows",
        ("$recycle.bin", "system volume information", "recycler", "found.[0-9][0-9][0-9]"),
        ("thumbs.db", "thumbs.db:encryptable", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",
         "zbthumbnail.info", "*:zone.identifier"),
    ),
    _Maker(
        "macOS",
        ("__macosx", ".appledouble", ".appledb", ".appledesktop", ".spotlight-v100", ".fseventsd", ".trashes",
         ".temporaryitems", "temporary items", "network trash folder", ".documentrevisions-v100", ":2e*"),
        (".ds_store", "._*", "icon\r", ".localized", ".apdisk", ".volumeicon.icns", ":2e*"),
    ),
    _Maker(
        "Linux",
        ("lost+found", ".trash", ".trash-*", ".thumbnails", ".xvpics"),
        (".directory", ".nfs*", ".fuse_hidden*"),
    ),
    _Maker("Android", ("lost.dir",), (".nomedia", ".trashed-*", ".pending-*")),
    _Maker(
        "photo software",
        (".picasaoriginals", "*.lrdata"),
        (".picasa.ini", "picasa.ini", "pspbrwse.jbf", "albumthumbs.db"),
    ),
    _Maker(
        "cloud sync",
        (".stfolder", ".stversions", ".dropbox.cache", ".sync", "_gsdata_", ".tmp.driveupload",
         ".tmp.drivedownload", ".owncloudsync", ".debris"),
        (".dropbox", ".dropbox.attr", "~syncthing~*", ".syncthing.*", ".owncloudsync.log",
         ".nextcloudsync.log", "*.!sync"),
    ),
    _Maker(
        "unfinished downloads",
        ("*.download",),
        ("*.part", "*.partial", "*.crdownload", "*.opdownload", "*.filepart", "*.aria2", "*.!ut", "*.tmp"),
    ),
    _Maker(
        "an editor",
        (".ipynb_checkpoints", "__pycache__", ".idea", ".vscode"),
        ("*~", "~$*", "*.swp", "*.swo", ".#*", "#*#", "*.bak", ".~lock.*"),
    ),
    _Maker("version control", (".git", ".svn", ".hg", ".dvc"), (".gitignore", ".gitattributes")),
    _Maker(
        "Google Takeout",
        (),
        (*(f"*.{suffix}.json" for suffix in ("jpg", "jpeg", "png", "gif", "webp", "heic", "mp4", "mov")),
         "*.supplemental-*.json", "*.supplemental-metadata*.json"),
    ),
)  # fmt: skip


def _matcher(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns) or r"(?!)", re.DOTALL)


_FOLDERS = [(maker.title, _matcher(maker.folders)) for maker in _MAKERS]
_FILES = [(maker.title, _matcher(maker.files)) for maker in _MAKERS]
_ANY_FOLDER = _matcher(tuple(pattern for maker in _MAKERS for pattern in maker.folders))
_ANY_FILE = _matcher(tuple(pattern for maker in _MAKERS for pattern in maker.files))


def system_of(name: str, is_folder: bool) -> str:
    """Who left a file or folder of this name behind, as `macOS`; "" if it is the user's own.

    name: without the folders above it; in any case.
    """
    lower = name.lower()
    if not (_ANY_FOLDER if is_folder else _ANY_FILE).match(lower):  # one look for the usual name
        return ""
    return next(title for title, matcher in (_FOLDERS if is_folder else _FILES) if matcher.match(lower))


def reason_to_ignore(name: str, is_folder: bool) -> str:
    """Why a name is left out: `left behind by macOS`, `hidden` (a leading dot), "" if it is not."""
    if maker := system_of(name, is_folder):
        return f"left behind by {maker}"
    return "hidden" if name.startswith(".") and name.strip(".") else ""
