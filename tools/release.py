"""Build the sdist and the wheel, check them, and try the wheel in an empty environment: `make release`.

    python -m tools.release [--out build/dist]

It uploads nothing. The environment gets the versions of constraints.txt, from the package index.
"""

from __future__ import annotations

import argparse
import email.message
import email.parser
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

SWEEP = (
    "run --space smoke --data digits --trials 1 --kimg 1 --extractor pixels --second-extractor none"
    " --fid-samples 200 --concurrency 1 --name first --out sweeps"
)
COMMANDS = (
    "--version",
    "data digits --out sheet.png",
    "init digits --out mine.toml",
    "validate smoke photos mine.toml",
    SWEEP,
    "explain sweeps/first",
    "report sweeps/first",
    "sample sweeps/first -n 4 --out grid.png",
)
"""What must work where only the wheel is installed, in this order, in an empty folder."""

MADE = ("sheet.png", "mine.toml", "sweeps/first/summary.json", "sweeps/first/report.html", "grid.png")
"""Files that COMMANDS leave in that folder."""


def build(out: Path) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from the unpacked sdist: both are complete then."""
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("gansweep-*"):
        old.unlink()
    _hatchling(ROOT, "sdist", out)
    (sdist,) = out.glob("gansweep-*.tar.gz")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        _hatchling(Path(folder) / sdist.name.removesuffix(".tar.gz"), "wheel", out)
    (wheel,) = out.glob("gansweep-*.whl")
    return sdist, wheel


def _hatchling(source: Path, target: str, out: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        target,
        "--directory",
        str(out.resolve()),
    ]
    subprocess.run(command, cwd=source, check=True, stdout=subprocess.DEVNULL)


def metadata(wheel: Path) -> email.message.Message:
    """The METADATA of a wheel; its payload is the README."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.parser.Parser().parsestr(archive.read(name).decode())


def newest_version(changelog: str) -> str:
    """The version of the first heading `## [1.2.3] - DATE`."""
    found = re.search(r"(?m)^## \[(\d[^]]*)\] - \d{4}-\d{2}-\d{2}$", changelog)
    if found is None:
        raise SystemExit("CHANGELOG.md has no heading like `## [1.2.3] - 2026-01-31`: add one")
    return found[1]


def check_metadata(wheel: Path) -> str:
    """The version, if wheel, CHANGELOG.md and CITATION.cff agree on it and the README is the description."""
    found = metadata(wheel)
    version = found["Version"]
    changelog = newest_version((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    if version != changelog:
        raise SystemExit(f"the version is {version}, but the newest of CHANGELOG.md is {changelog}")
    if f"\nversion: {version}\n" not in (ROOT / "CITATION.cff").read_text(encoding="utf-8"):
        raise SystemExit(f"CITATION.cff has another version than {version}")
    kind, text = found["Description-Content-Type"], found.get_payload()
    if kind != "text/markdown" or text != (ROOT / "README.md").read_text(encoding="utf-8"):
        raise SystemExit("the description of the wheel is not README.md as Markdown")
    return str(version)


def try_commands(python: Path, folder: Path, commands: Sequence[str] = COMMANDS) -> None:
    """Run `gansweep` of an environment in an empty folder outside the checkout.

    Raises:
        subprocess.CalledProcessError: a command failed; its output was printed.
    """
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    environment = {**kept, "HOME": str(folder), "GANSWEEP_CACHE": str(folder / "cache")}
    gansweep = python.with_name("gansweep")
    for command in commands:
        print(f"$ gansweep {command}", flush=True)
        subprocess.run([gansweep, *command.split()], cwd=folder, env=environment, check=True)
    missing = [name for name in MADE if not (folder / name).is_file()]
    if missing:
        raise SystemExit(f"not made: {', '.join(missing)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "dist")
    sdist, wheel = build(parser.parse_args().out)
    version = check_metadata(wheel)
    with tempfile.TemporaryDirectory() as place:
        environment, folder = Path(place) / "environment", Path(place) / "empty"
        folder.mkdir()
        venv.create(environment, with_pip=True)
        python = environment / "bin" / "python"
        pins = str(ROOT / "constraints.txt")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--constraint", pins, wheel], check=True)
        try_commands(python, folder)
    print(f"gansweep {version} works where only the wheel is installed:\n{sdist}\n{wheel}")


if __name__ == "__main__":
    main()
