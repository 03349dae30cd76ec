"""The user's own code: where it is found, what is hashed, when it runs, and the errors of all that."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import ConfigError
from pipeline.user_code import UserCode, is_user_code, load, read_code, run, use_code

Write = Callable[..., Path]


def test_names_of_user_code() -> None:
    assert all(map(is_user_code, ["mine:build", "a.b.c:D", "_x:_y"]))
    assert not any(map(is_user_code, ["dcgan", "mine:", ":build", "mine:a.b", "a b:c", "npz:x.npz", "a/b:c"]))


def test_a_module_is_read_from_the_first_folder_that_has_it(tmp_path: Path) -> None:
    for folder, text in (("a", "x = 1"), ("b", "x = 2")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(text)
    folders = [tmp_path / "none", tmp_path / "b", tmp_path / "a"]
    code = read_code(["dcgan", "mine:x", "mine:y", "json:loads"], folders)
    assert code.files == {"mine": b"x = 2"}
    assert list(code.hashes) == ["mine", "json"]
    assert code.hashes["mine"] == hashlib.sha256(b"x = 2").hexdigest()
    assert pickle.loads(pickle.dumps(code)) == code


def test_a_module_that_is_nowhere_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("")
    with pytest.raises(ConfigError, match=r"cannot find mien\.py.*beside the space") as caught:
        read_code(["mien:build"], [tmp_path])
    assert "'mine'" in caught.value.fix


def test_only_code_that_was_given_runs(own_code: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_code("def build(): return 3"))
    assert load("mine:build", "any")() == 3
    use_code(UserCode())
    for name in ("mine:build", "os:getcwd"):
        with pytest.raises(ConfigError, match="cannot be loaded by this command.*finish the sweep"):
            load(name, "any")


def test_a_module_that_is_installed_is_loaded_in_the_version_that_was_hashed(tmp_path: Path) -> None:
    code = read_code(["json:loads"], [tmp_path])
    use_code(code)
    assert load("json:loads", "any")("[1]") == [1]
    use_code(UserCode(installed={"json": "0" * 64}))
    with pytest.raises(ConfigError, match="json is another one on this machine"):
        load("json:loads", "any")
    use_code(UserCode())


def test_another_version_of_an_installed_module_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "around").mkdir()
    (tmp_path / "around" / "__init__.py").write_text("raise AssertionError('it runs')")
    (tmp_path / "around" / "inner.py").write_text("value = 1")
    code = read_code(["around.inner:value"], [])
    assert list(code.installed) == ["around.inner"]
    (tmp_path / "around" / "inner.py").write_text("value = 2")
    use_code(code)
    with pytest.raises(ConfigError, match=r"around\.inner is another one on this machine"):
        load("around.inner:value", "any")
    use_code(UserCode())


@pytest.mark.parametrize("name", ["sys:exit", "nowhere.inner:x", "json.inner:x", "folder:x"])
def test_a_module_without_a_file_is_not_found(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match="cannot find"):
        read_code([name], [])


def test_a_module_that_prints_and_exits(own_code: Write, capsys: pytest.CaptureFixture[str]) -> None:
    own_code("print('hello')\nimport sys\nsys.exit(0)\n")
    with pytest.raises(ConfigError, match=r"mine\.py cannot be imported: SystemExit: 0.*\(line 3\)"):
        load("mine:build", "any")
    assert tuple(capsys.readouterr()) == ("", "hello\n")


def test_a_file_that_is_no_text_is_an_error_in_one_line(own_code: Write, tmp_path: Path) -> None:
    own_code("")
    (tmp_path / "mine.py").write_bytes(b"x = '\xff'\n")
    use_code(read_code(["mine:x"], [tmp_path]))
    with pytest.raises(ConfigError, match=r"mine\.py cannot be imported: SyntaxError.*utf-8"):
        load("mine:x", "any")


def test_files_of_equal_content_are_two_modules(own_code: Write, tmp_path: Path) -> None:
    own_code("def fail(): return [][1]\n")
    (tmp_path / "twin.py").write_bytes((tmp_path / "mine.py").read_bytes())
    use_code(read_code(["mine:fail", "twin:fail"], [tmp_path]))
    load("mine:fail", "any")
    with pytest.raises(ConfigError, match=r"correct twin\.py \(line 1\)"):
        run("it fails", "twin:fail", load("twin:fail", "any"))


def test_a_file_runs_once_for_each_content(own_code: Write, tmp_path: Path) -> None:
    count = tmp_path / "count"
    text = f"with open({str(count)!r}, 'a') as file: file.write('x')\nvalue = 1\n"
    for version, runs in ((text, 1), (text, 1), (text + "# new\n", 2)):
        own_code(version)
        load("mine:value", "any")
        assert count.read_text() == "x" * runs
    assert sorted(path.name for path in tmp_path.iterdir()) == ["count", "mine.py"]  # no bytecode


def test_an_error_of_user_code_is_one_line_with_its_place(own_code: Write) -> None:
    own_code("def build():\n    y = 1\n    return 1 / 0\n")
    with pytest.raises(ConfigError, match=r"it fails.*ZeroDivisionError.*correct mine\.py \(line 3\)"):
        run("it fails: {seen}", "mine:build", load("mine:build", "any"))
    own_code("import no_such_thing")
    with pytest.raises(ConfigError, match=r"mine\.py cannot be imported.*no_such_thing.*\(line 1\)"):
        load("mine:build", "any")
    own_code("def biuld(): ...")
    with pytest.raises(ConfigError, match=r"mine has no build.*the rule.*'biuld'"):
        load("mine:build", "the rule")
