"""Classes by tables: Hugging Face's metadata files, and whatever `--classes FILE` names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from trees import Understood, numbered, understand

from pipeline.errors import DataError

NAMES = [f"{i:04d}.jpg" for i in range(1, 21)]
CLASSES = ["cat" if i % 2 else "dog" for i in range(20)]


def rows(line: str, names: list[str] = NAMES, head: str = "") -> str:
    body = "\n".join(
        line.format(n=name, stem=name.partition(".")[0], i=int(name[:4]), c=c)
        for name, c in zip(names, CLASSES, strict=False)
    )
    return f"{head}{body}\n"


def with_file(
    tmp_path: Path, content: str | bytes, names: list[str] = NAMES, suffix: str = ".csv"
) -> Understood:
    file = tmp_path / f"labels{suffix}"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return understand(names, classes=str(file))


@pytest.mark.parametrize(
    "content",
    [
        rows("{n},{c}"),
        rows("{n},{c}", head="id,label\n"),
        rows("{stem},{c}", head="id,breed\n"),
        rows("{i},{c}", head="id,label\n"),
        rows("{n};{c}", head="file;class\n"),
        rows("{n}\t{c}", head="image\tlabel\n"),
        rows("{n} {c}"),
        rows('"{n}", "{c}"', head='"file", "label"\n'),
        rows("{c},{n}", head="label,filename\n"),
        rows("{i},{c},{n},x{i}", head=",class,path,note\n"),
        rows("C:\\data\\train\\{n},{c}", head="path,label\n"),
        rows("./{n},{c}", head="path,label\n"),
        rows("{stem}.png,{c}", head="path,label\n"),
        rows("{n},{c}", head="path,label\n").upper(),
        rows("{n},{c}", head="path,label\n").encode("utf-8-sig"),
        rows("{n},{c}", head="path,label\n").encode("utf-16"),
        rows("{n},{c}", head="path,label\n").replace("\n", "\r\n"),
        json.dumps(dict(zip(NAMES, CLASSES, strict=True))),
        json.dumps({"labels": list(zip(NAMES, CLASSES, strict=True))}),
        json.dumps([{"file_name": n, "category": c} for n, c in zip(NAMES, CLASSES, strict=True)]),
        json.dumps({c: [n for n, k in zip(NAMES, CLASSES, strict=True) if k == c] for c in ("cat", "dog")}),
        json.dumps({"file": dict(enumerate(NAMES)), "label": dict(enumerate(CLASSES))}),
        json.dumps({n: {"label": c, "width": 3} for n, c in zip(NAMES, CLASSES, strict=True)}),
        json.dumps({"val": [], "train": [{"id": n, "y": c} for n, c in zip(NAMES, CLASSES, strict=True)]}),
        rows("{n};{c}", head="sep=;\nfile;class\n"),
        rows("{n},{c}", head="# made by hand\n# file,label\n"),
        rows('{{"file_name": "{n}", "label": "{c}"}}'),
        rows("{n},{c}", head="image,cat,dog\n").replace(",cat\n", ",1,0\n").replace(",dog\n", ",0,1.0\n")
        .replace(",cat,1.0", ",cat,dog").replace(",cat,0,1.0", ",cat,dog"),
    ],
)  # fmt: skip
def test_tables_as_people_write_them(content: str | bytes, tmp_path: Path) -> None:
    seen = with_file(tmp_path, content)
    assert {name.lower(): n for name, n in seen.classes.items()} == {"cat": 10, "dog": 10}
    assert (seen.class_of("0001.jpg").lower(), seen.class_of("0002.jpg").lower()) == ("dog", "cat")
    assert (seen.left_out, seen.notes) == ({}, [])
    assert seen.findings.classes_from.startswith("labels.csv, column ")


def test_labels_that_are_numbers(tmp_path: Path) -> None:
    content = "file,label\n" + "\n".join(f"{name},{i % 11}.0" for i, name in enumerate(NAMES))
    assert with_file(tmp_path, content).names == [str(i) for i in range(11)]


def test_names_with_folders_and_the_same_name_in_two(tmp_path: Path) -> None:
    names = [*numbered("train/a", 5), *numbered("train/b", 5)]
    content = "".join(f"a/{i:05d}.png,x\nb/{i:05d}.png,y\n" for i in range(5))
    seen = with_file(tmp_path, content, names)
    assert (seen.class_of("train/a/00003.png"), seen.class_of("train/b/00003.png")) == ("x", "y")
    seen = with_file(tmp_path, "00001.png,x\ntrain/a/00002.png,y\ntrain/a/00003.png,x\n", names)
    assert seen.files == ["train/a/00002.png", "train/a/00003.png"]
    assert "may mean several" in seen.note("1 rows")


def test_a_table_of_the_training_part_alone(tmp_path: Path) -> None:
    names = [*(f"train/{name}" for name in NAMES), *(f"test/{name}" for name in NAMES[:6])]
    seen = with_file(tmp_path, rows("{stem},{c}", head="id,label\n"), names)
    assert (seen.classes, seen.layout.held) == ({"cat": 10, "dog": 10}, None)
    assert seen.left_out == {"without a class in labels.csv": 6}


def test_images_without_rows_and_rows_without_images(tmp_path: Path) -> None:
    content = rows("{n},{c}", head="file,label\n") + "9998.jpg,cat\n9999.jpg,cat\n0001.jpg,cat\n"
    seen = with_file(tmp_path, content, [*NAMES, "cover.jpg"])
    assert seen.left_out == {"without a class in labels.csv": 1, "of two classes in labels.csv": 1}
    assert "9998.jpg, 9999.jpg" in seen.note("2 rows name no image")
    assert "--classes none" in seen.note("1 images without a class")


def test_a_class_in_the_held_out_part_alone(tmp_path: Path) -> None:
    names = [*(f"train/{name}" for name in NAMES[:10]), *(f"val/{name}" for name in NAMES[10:])]
    content = rows("{n},{c}", head="file,label\n").replace("0020.jpg,cat", "0020.jpg,owl")
    seen = with_file(tmp_path, content, names)
    assert (list(seen.classes), len(seen.held)) == (["cat", "dog"], 9)
    assert seen.left_out == {"of a class without training images": 1}


@pytest.mark.parametrize(
    ("content", "suffix", "said"),
    [
        ("", ".csv", "labels.csv is empty"),
        ("cat\ndog\nowl\n", ".txt", "one column of 3 lines"),
        ("file,label\nx.jpg,cat\ny.jpg,dog\n", ".csv", "names none of the 20 images.*file, label"),
        (
            rows("{n},{c},{i}", head="id,colour,weight\n"),
            ".csv",
            "not clear which column.*id, colour, weight",
        ),
        ('{"a": ', ".json", "is no JSON"),
        ("[1, 2]", ".json", "is no table of classes"),
        ("[{}]", ".json", "has no rows"),
        ('{"labels": {}}', ".json", "has no rows"),
        (json.dumps({n: ["a", "b", 3] for n in NAMES}), ".json", "no single class"),
    ],
)
def test_files_that_cannot_be_understood(content: str, suffix: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=said) as error:
        with_file(tmp_path, content, suffix=suffix)
    assert "\n" not in str(error.value)


def test_a_file_of_classes_that_is_not_there_and_one_in_the_tree() -> None:
    with pytest.raises(DataError, match="there is no file 'labels.csv'|there is no file labels.csv"):
        understand(NAMES, classes="labels.csv")
    content = rows("{stem},{c}", head="id,breed\n")
    assert understand(NAMES, {"labels.csv": content}, classes="labels.csv").classes == {"cat": 10, "dog": 10}
    seen = understand(NAMES, {"labels.csv": content})
    assert seen.layout.labels is None
    assert "--classes labels.csv" in seen.note("may name classes")


def test_tables_that_would_work_are_hinted_at() -> None:
    texts = {
        "notes.json": '{"a": [1, 2]}',
        "b/other.csv": "x,y\n1,2\n",
        "b/dogs and cats.csv": rows("{n},{c}"),
    }
    hint = understand(NAMES, texts).note("may name classes")
    assert hint == "b/dogs and cats.csv may name classes: --classes 'b/dogs and cats.csv'"
    assert understand(NAMES, {"notes.json": "[]", "one.csv": rows("{n},x")}).notes == []


def test_a_table_in_each_part() -> None:
    names = [f"{part}/{name}" for part in ("train", "test") for name in NAMES]
    texts = {"train/_classes.csv": rows("{n},{c}"), "test/_classes.csv": rows("{n},{c}s")}
    assert "--classes _classes.csv" in understand(names, texts).note("_classes.csv may name classes")
    seen = understand(names, {**texts, "test/readme.txt": ""}, classes="_classes.csv", split="merge")
    assert seen.classes == {"cat": 10, "cats": 10, "dog": 10, "dogs": 10}
    assert seen.left_out == {"not an image": 1}


@pytest.mark.parametrize(
    ("typed", "fix"),
    [("None", "'none'"), ("folder", "'folders'"), ("FOLDERS", "'folders'"), ("x", "name a csv")],
)
def test_what_is_nearly_a_word(typed: str, fix: str) -> None:
    with pytest.raises(DataError, match=f"there is no file {typed} of classes .*{fix}"):
        understand(NAMES, classes=typed)


# ---- Hugging Face's metadata files


def test_metadata_in_the_root_and_in_each_part() -> None:
    seen = understand(NAMES, {"metadata.csv": rows("{n},a text,{c}", head="file_name,text,label\n")})
    assert (seen.classes, seen.findings.classes_from) == (
        {"cat": 10, "dog": 10},
        "metadata.csv, column label",
    )
    names = [*(f"train/{name}" for name in NAMES), *(f"test/{name}" for name in NAMES[:6])]
    lines = '{{"file_name": "{n}", "label": "{c}"}}'
    texts = {"train/metadata.jsonl": rows(lines), "test/metadata.jsonl": rows(lines, NAMES[:6])}
    seen = understand(names, texts)
    assert (seen.classes, len(seen.held), seen.left_out) == ({"cat": 13, "dog": 13}, 6, {})


def test_metadata_of_few_images_is_not_used() -> None:
    seen = understand(NAMES, {"metadata.csv": rows("{n},{c}", NAMES[:9], head="file_name,label\n")})
    assert (len(seen.files), seen.layout.labels) == (20, None)
    assert "--classes metadata.csv" in seen.note("names 9 of 20 images")


def test_metadata_without_classes_leaves_the_folders() -> None:
    names = [*(f"cats/{name}" for name in NAMES), *(f"dogs/{name}" for name in NAMES)]
    content = rows("cats/{n},a text", head="file_name,text\n")
    seen = understand(names, {"metadata.csv": content})
    assert seen.classes == {"cats": 20, "dogs": 20}
    assert "file_name, text" in seen.note("no classes in metadata.csv")
    parts = [f"{part}/{name}" for part in ("train", "test") for name in NAMES]
    texts = {f"{part}/metadata.csv": rows("{n},a", head="file_name,text\n") for part in ("train", "test")}
    assert understand(parts, texts).note("metadata.csv").endswith("--classes FILE names a table")


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    file = tmp_path / "metadata.parquet"
    columns = {"file_name": NAMES, "label": [i % 2 for i in range(20)], "box": [[1, 2]] * 20}
    parquet.write_table(pyarrow.table(columns), file)
    assert understand(NAMES, {"metadata.parquet": file.read_bytes()}).classes == {"0": 10, "1": 10}
    assert understand(NAMES, classes=str(file)).classes == {"0": 10, "1": 10}
    assert "cannot be read" in understand(NAMES, {"metadata.parquet": b"PAR1"}).note(
        "metadata.parquet is not"
    )
