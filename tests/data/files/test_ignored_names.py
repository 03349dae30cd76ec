"""Names that systems leave behind, and names of people that look like them."""

from __future__ import annotations

import pytest

from pipeline.data.files.ignored_names import reason_to_ignore, system_of

FOLDERS = {
    "@eaDir": "a NAS", "#recycle": "a NAS", "@Recycle": "a NAS", "#snapshot": "a NAS", ".snapshot": "a NAS",
    "@tmp": "a NAS", ".@__thumb": "a NAS", "$RECYCLE.BIN": "Windows", "System Volume Information": "Windows",
    "RECYCLER": "Windows", "__MACOSX": "macOS", ".AppleDouble": "macOS", ".Spotlight-V100": "macOS",
    ".fseventsd": "macOS", ".Trashes": "macOS", "lost+found": "Linux", ".Trash-1000": "Linux",
    ".thumbnails": "Linux", ".picasaoriginals": "photo software", ".ipynb_checkpoints": "an editor",
    "__pycache__": "an editor", ".stfolder": "cloud sync", ".stversions": "cloud sync",
    ".dropbox.cache": "cloud sync", ".sync": "cloud sync", ".git": "version control",
}  # fmt: skip
FILES = {
    "Thumbs.db": "Windows", "THUMBS.DB": "Windows", "ehthumbs.db": "Windows", "desktop.ini": "Windows",
    ".DS_Store": "macOS", "._0001.jpg": "macOS", "Icon\r": "macOS", "0001.jpg~": "an editor",
    "~$labels.xlsx": "an editor", ".0001.swp": "an editor", "0001.jpg.part": "unfinished downloads",
    "0001.jpg.crdownload": "unfinished downloads", "0001.TMP": "unfinished downloads",
    "IMG_1.jpg.json": "Google Takeout", "IMG_1.HEIC.supplemental-metadata.json": "Google Takeout",
}  # fmt: skip


@pytest.mark.parametrize(("name", "maker"), FOLDERS.items())
def test_folders_that_systems_leave_behind(name: str, maker: str) -> None:
    assert system_of(name, True) == maker
    assert reason_to_ignore(name, True) == f"left behind by {maker}"


@pytest.mark.parametrize(("name", "maker"), FILES.items())
def test_files_that_systems_leave_behind(name: str, maker: str) -> None:
    assert system_of(name, False) == maker


@pytest.mark.parametrize(
    "name",
    [
        "cats",
        "trash",
        "recycled",
        "recycle",
        "thumbs",
        "sync",
        "snapshot",
        "#1",
        "@home",
        "git",
        "icon",
        "a.b",
    ],
)
def test_folders_of_people(name: str) -> None:
    assert reason_to_ignore(name, True) == ""


@pytest.mark.parametrize(
    "name",
    ["thumbs.jpg", "part.png", "a.part.png", "~a.png", "IMG (conflicted copy).jpg", "labels.json", "Icon.png",
     "metadata.json", "dataset.json", "$1.png", "@eaDir", "..", "a"],
)  # fmt: skip
def test_files_of_people(name: str) -> None:
    assert reason_to_ignore(name, False) == ""


def test_hidden_names() -> None:
    assert reason_to_ignore(".cache", True) == reason_to_ignore(".a.png", False) == "hidden"
