"""The files of folders and zips: what is listed, what is left out, and what is no zip."""

from __future__ import annotations

import os
import struct
import threading
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from trees import WAYS, output_by

from pipeline.config import SWEEP_HEAD
from pipeline.data.files.file_tree import FolderTree, ZipTree
from pipeline.errors import DataError


def write(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def names(tree: FolderTree | ZipTree) -> list[str]:
    return [entry.name for entry in tree.entries]


def left_out(tree: FolderTree | ZipTree) -> dict[str, int]:
    return {reason: entry.count for reason, entry in tree.findings.left_out.items()}


# ---- folders


def test_every_file_of_a_folder_in_natural_order(tmp_path: Path) -> None:
    root = write(tmp_path, "b/10.png", "b/2.PNG", "b/1", "a.csv", "B2/x y.jpg")
    (root / "empty" / "inner").mkdir(parents=True)
    tree = FolderTree(root, {})
    assert names(tree) == ["a.csv", "b/1", "b/2.PNG", "b/10.png", "B2/x y.jpg"]
    assert (tree.empty_folders, left_out(tree), tree.title) == (["empty/inner"], {}, str(root))
    first = tree.entries[0]
    assert (first.size, first.stamp) == (5, (root / "a.csv").stat().st_mtime_ns)
    assert tree.read_text("a.csv", 100) == "a.csv"
    with tree.open("b/1") as stream:
        assert (stream.read(), stream.seek(2), stream.read()) == (b"b/1", 2, b"1")
    with pytest.raises(DataError, match="longer than 4 bytes"):
        tree.read_text("a.csv", 4)


def test_links_are_followed_and_no_folder_is_entered_twice(tmp_path: Path) -> None:
    root = write(tmp_path / "data", "a/1.png")
    write(tmp_path / "elsewhere", "2.png")
    (root / "up").symlink_to(root)
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "c").symlink_to(root / "b")
    (root / "gone.png").symlink_to(tmp_path / "gone")
    os.mkfifo(root / "pipe.png")
    tree = FolderTree(root, {})
    assert names(tree) == ["a/1.png", "b/2.png", "gone.png"]
    assert left_out(tree) == {"in a link to a folder that is used": 1}
    assert tree.findings.left_out["in a link to a folder that is used"].examples == ["c/2.png"]


def test_a_folder_and_links_to_it_are_one_by_its_own_name(tmp_path: Path) -> None:
    root = write(tmp_path, "cats/1.png", "cats/2.png", "dogs/1.png")
    (root / "alias").symlink_to(root / "cats")
    (root / "cats" / "friends").symlink_to(root / "dogs")
    tree = FolderTree(root, {})
    assert names(tree) == ["cats/1.png", "cats/2.png", "dogs/1.png"]
    assert left_out(tree) == {"in a link to a folder that is used": 3}


def test_what_systems_leave_behind_is_counted(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        *(f"{folder}/{i}.png" for folder in ("cats", "dogs") for i in range(4)),
        *(f"cats/@eaDir/{i}.png/SYNOPHOTO_THUMB_M.jpg" for i in range(4)),
        *("@eaDir/1.png", "cats/Thumbs.db", "cats/._1.png", ".DS_Store", ".hidden/1.png", ".git/config"),
    )
    tree = FolderTree(root, {})
    assert len(tree.entries) == 8
    assert left_out(tree) == {
        "left behind by a NAS": 5,
        "left behind by macOS": 2,
        "left behind by Windows": 1,
        "hidden": 1,
    }
    assert tree.findings.left_out["hidden"].examples == [".hidden/1.png"]
    assert len(FolderTree(root / "cats" / "@eaDir", {}).entries) == 4  # a folder that is named is used


def test_folders_of_results_are_left_out_unless_named(tmp_path: Path) -> None:
    root = write(
        tmp_path, "a/1.png", "runs/2.png", "x/mlruns/3.png", "s/trials/4.png", "s/5.png", "s/log.txt"
    )
    (root / "s" / "sweep.toml").write_text(f"{SWEEP_HEAD}: one resolved sweep.\n", encoding="utf-8")
    tree = FolderTree(root, {root / "runs": "the output folder", root / "later": "the cache"})
    assert names(tree) == ["a/1.png"]
    assert left_out(tree) == {
        "in the output folder": 1,
        "in results of MLflow": 1,
        "in results of a sweep": 2,
    }
    named = FolderTree(root / "s", {root / "s": "the output folder"})
    assert names(named) == ["5.png", "log.txt", "sweep.toml", "trials/4.png"]


@pytest.mark.parametrize("way", WAYS)
def test_outputs_are_left_out_by_every_way_to_them(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = write(tmp_path / "photos", "a/1.png", "b/1.png", "runs/0.png", "deep/down/0.png")
    out = output_by(way, root, "a")
    monkeypatch.chdir(root)
    tree = FolderTree(root, {out: "the output folder"})
    kept = "runs/0.png" if way == "deeper" else "deep/down/0.png"
    assert names(tree) == sorted(["a/1.png", "b/1.png", kept])
    assert left_out(tree) == {"in the output folder": 1}


def test_an_output_that_is_a_link_out_of_the_data(tmp_path: Path) -> None:
    root = write(tmp_path / "photos", "a/1.png")
    (root / "runs").symlink_to(write(tmp_path / "elsewhere", "2.png"))
    tree = FolderTree(root, {root / "runs": "the output folder"})
    assert (names(tree), left_out(tree)) == (["a/1.png"], {"in the output folder": 1})


def test_a_folder_that_is_not_there_or_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no folder"):
        FolderTree(tmp_path / "gone", {})
    with pytest.raises(DataError, match="there is no folder"):
        FolderTree(write(tmp_path, "a.png") / "a.png", {})


# ---- zips


def pack(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_the_members_of_a_zip(tmp_path: Path) -> None:
    members = {
        "data/": b"",
        "data/b/10.png": b"ten",
        "data/b/2.png": b"two",
        "data/none/": b"",
        "/abs.png": b"1",
    }
    members |= {"../up.png": b"2", "win\\dir\\3.png": b"3", "./dot.png": b"4", "win\\empty\\": b""}
    tree = ZipTree(pack(tmp_path / "a.zip", members))
    assert sorted(names(tree)) == sorted(
        ["../up.png", "abs.png", "data/b/2.png", "data/b/10.png", "dot.png", "win/dir/3.png"]
    )
    assert names(tree).index("data/b/2.png") < names(tree).index("data/b/10.png")
    assert tree.empty_folders == ["data/none", "win/empty"]
    entry = next(entry for entry in tree.entries if entry.name == "data/b/10.png")
    assert (entry.size, entry.stamp) == (3, zlib.crc32(b"ten"))
    assert tree.read_text("win/dir/3.png", 10) == "3"
    with tree.open("data/b/10.png") as stream:
        assert (stream.read(), stream.seek(1), stream.read()) == (b"ten", 1, b"en")


def test_what_is_left_out_of_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for name in ("a/1.png", "a/1.png", "__MACOSX/a/._1.png", "a/@eaDir/1.jpg", "a/.DS_Store", ".x/1.png"):
            archive.writestr(name, name)
    tree = ZipTree(path)
    assert names(tree) == ["a/1.png"]
    assert left_out(tree) == {
        "second file of the same name": 1,
        "left behind by macOS": 2,
        "left behind by a NAS": 1,
        "hidden": 1,
    }


def test_a_member_that_claims_to_be_too_large(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"1.png": b"x", "bomb.png": b"y"})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, entry + 24, 2**31)
    path.write_bytes(data)
    tree = ZipTree(path)
    assert (names(tree), left_out(tree)) == (["1.png"], {"too large": 1})


def rename(path: Path, old: bytes, new: bytes) -> Path:
    assert len(old) == len(new)
    path.write_bytes(path.read_bytes().replace(old, new))
    return path


def test_names_without_the_mark_of_their_encoding(tmp_path: Path) -> None:
    utf8 = rename(pack(tmp_path / "a.zip", {"Kxxe/1.png": b"x"}), b"Kxxe", "Kæe".encode())
    assert names(ZipTree(utf8)) == ["Kæe/1.png"]
    other = rename(pack(tmp_path / "b.zip", {"Kxe/1.png": b"x"}), b"Kxe", b"K\x91e")
    tree = ZipTree(other)
    assert names(tree) == ["Kæe/1.png"]
    assert tree.read_text("Kæe/1.png", 10) == "x"
    with zipfile.ZipFile(tmp_path / "c.zip", "w") as archive:
        info = zipfile.ZipInfo("K_e.png")
        name = "Kйe.png".encode()
        info.extra = struct.pack("<HHBI", 0x7075, 5 + len(name), 1, zlib.crc32(b"K\x91e.png")) + name
        archive.writestr(info, b"x")
    assert names(ZipTree(rename(tmp_path / "c.zip", b"K_e.png", b"K\x91e.png"))) == ["Kйe.png"]


def test_reading_on_several_threads(tmp_path: Path) -> None:
    members = {f"{i}.png": bytes([i]) * 50_000 for i in range(64)}
    tree = ZipTree(pack(tmp_path / "a.zip", members))
    barrier = threading.Barrier(8)

    def read(start: int) -> bool:
        barrier.wait()
        order = [(start * 8 + i) % 64 for i in range(64)]
        return all(tree.open(f"{i}.png").read() == members[f"{i}.png"] for i in order)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(8)))


def test_a_damaged_member_is_an_error_of_its_own(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"1.txt": b"hello" * 10, "2.txt": b"world"}, zipfile.ZIP_STORED)
    tree = ZipTree(rename(path, b"hellohello", b"hallohello"))
    assert tree.read_text("2.txt", 10) == "world"
    with pytest.raises(DataError, match="1.txt cannot be read"):
        tree.read_text("1.txt", 100)


def flagged(path: Path, offset: int, value: int) -> Path:
    """A zip whose members have `value` in a field of their headers: 6 the flags, 8 the method."""
    data = bytearray(path.read_bytes())
    for magic, shift in ((b"PK\x03\x04", 0), (b"PK\x01\x02", 2)):
        struct.pack_into("<H", data, data.index(magic) + offset + shift, value)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is an empty file"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(99), "RAR archive, not a zip.*unrar x FILE"),
        (b"7z\xbc\xaf\x27\x1c" + bytes(99), "7-Zip archive.*7z x FILE"),
        (bytes(257) + b"ustar\x0000" + bytes(500), "tar archive.*tar xf FILE"),
        (b"\x1f\x8b\x08" + bytes(99), "gzip.*tar xzf FILE"),
        (b"<!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS.*git lfs pull"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "is an image"),
        (b"PK\x03\x04" + bytes(99), "a damaged zip"),
        (b"nothing at all", "is no zip"),
    ],
)
def test_what_is_no_zip_is_named(content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    with pytest.raises(DataError, match=said) as error:
        ZipTree(tmp_path / "a.zip")
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.zip")
    for path, message in (
        (tmp_path / "pipe.zip", "is no file"),
        (tmp_path, "is a folder"),
        (Path("/dev/zero"), "is no file"),
        (Path("x" * 5000), "cannot be read"),
        (tmp_path / "gone.zip", "there is no file"),
    ):
        with pytest.raises(DataError, match=message):
            ZipTree(path)


def test_zips_that_cannot_be_used(tmp_path: Path) -> None:
    cases = {
        "holds no files": pack(tmp_path / "a.zip", {}),
        "holds no files;|holds no files ": pack(tmp_path / "b.zip", {"a/": b"", "__MACOSX/x": b""}),
        "is encrypted": flagged(pack(tmp_path / "c.zip", {"1.png": b"x"}), 6, 1),
        "packed by Deflate64": flagged(pack(tmp_path / "d.zip", {"1.png": b"x"}), 8, 9),
        "did you mean 'npz:": pack(tmp_path / "e.npz", {"images.npy": b"x"}),
        "did you mean 'folder:": tmp_path,
        "there is no file": tmp_path / "gone.zip",
    }
    cut = pack(tmp_path / "f.zip", {"1.png": os.urandom(999)})
    cut.write_bytes(cut.read_bytes()[:900])
    for said, path in {**cases, "a damaged zip": cut}.items():
        with pytest.raises(DataError, match=said):
            ZipTree(path)
