"""Every command of the README, the quickstart and examples/your_folder.md, typed in order into a shell."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from documented_commands import Command, Elsewhere, Plan, documented_commands
from markdown_pages import ROOT, code_blocks
from PIL import Image
from sklearn.datasets import load_digits

pytestmark = [pytest.mark.ray, pytest.mark.mlflow, pytest.mark.slow, pytest.mark.timeout(600)]

PAGES = ("README.md", "docs/quickstart.md", "examples/your_folder.md")


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


PORTS = {"gansweep serve": _free_port(), "mlflow models serve": _free_port()}
"""Commands that run until somebody ends them, and the port of each in this test."""

SECONDS = "--kimg 4 --extractor pixels --fid-samples 200 --final-samples 200 --final-seeds 0"
SECONDS += " --second-extractor none --concurrency 1"
"""Makes a sweep of the real command a matter of seconds."""

SHORTER = {
    r"^make sweep$": f"make sweep SWEEP='--space smoke --data digits --trials 1 --promote never {SECONDS}'",
    r"^gansweep run --data folder:photos (.*)--time-budget \d+[mh]": (
        f"gansweep run --data folder:photos --trials 3 {SECONDS}"
    ),
    r"^(gansweep resume runs/photos) --time-budget 2h$": r"\1 --trials 4",
    r"^(gansweep evaluate .*)$": r"\1 --extractor pixels --second-extractor none",
    r"^(gansweep serve \S+)$": rf"\1 --port {PORTS['gansweep serve']}",
    r"\b5001\b": str(PORTS["mlflow models serve"]),
}
"""What makes a command short, or its port free: a pattern -> its replacement."""

ELSEWHERE = {
    "git clone REPOSITORY gansweep": Elsewhere(
        "needs a network; the clone is the checkout that the tests are in",
        f"ls {ROOT}/Makefile {ROOT}/pyproject.toml {ROOT}/constraints.txt",
    ),
    "cd gansweep": Elsewhere("the test's folder stands for the clone", "ls Makefile"),
    "make setup": Elsewhere("installs for minutes, from the network", "make --dry-run --always-make setup"),
    "make test": Elsewhere("would run this test again", "make --dry-run test"),
    "source .venv/bin/activate": Elsewhere("the PATH of all commands has it", "ls .venv/bin/gansweep"),
    "python make_photos.py": Elsewhere(
        "599 images of 8 px are faster than its 5,000; it runs in a folder beside them",
        "mkdir full && cd full && python ../make_photos.py && test $(ls photos/*/*.png | wc -l) = 5000",
    ),
}
"""Commands that do not run as they stand: why, and what runs in their place."""


class Shell:
    """A folder that looks like a clone, where commands run one after another.

    `export` holds for the commands that follow; a command that has run is not run again.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.plan = Plan(dict(SHORTER), dict(ELSEWHERE))
        self._done: set[str] = set()
        self._servers: list[subprocess.Popen[str]] = []
        self._environment = {**os.environ, "PATH": f"{folder}/.venv/bin:{os.environ['PATH']}"}

    def run(self, command: Command) -> None:
        """Run what the plan has for the command.

        Raises:
            AssertionError: it fails, or takes longer than four minutes.
        """
        text = self.plan.command_for(command.text)
        if text in self._done:
            return
        self._done.add(text)
        server = next((name for name in PORTS if text.startswith(name)), "")
        if text.startswith("export "):
            self._environment.update(word.split("=", 1) for word in shlex.split(text)[1:])
        elif server:
            self._serve(command, text, PORTS[server])
        else:
            process = self._start(text)
            try:
                output, _ = process.communicate(timeout=240)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output = f"ended after four minutes\n{process.communicate()[0]}"
            assert process.returncode == 0, f"{command}\nran as {text}\n{output}"

    def end_servers(self) -> None:
        """Ctrl+C for the servers that were started."""
        for server in self._servers:
            os.killpg(server.pid, signal.SIGINT)
            server.communicate(timeout=30)
        self._servers.clear()

    def _serve(self, command: Command, text: str, port: int) -> None:
        """Start a server and wait until it listens."""
        server = self._start(text)
        self._servers.append(server)
        until = time.monotonic() + 90
        while server.poll() is None and time.monotonic() < until:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.2)
        self._servers.remove(server)
        os.killpg(server.pid, signal.SIGKILL)
        pytest.fail(f"{command}\nran as {text}, and does not listen\n{server.communicate()[0]}")

    def _start(self, text: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", text], cwd=self.folder, env=self._environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A clone with `.venv` and a folder `photos` of 599 digits of 8 px."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        (folder / name).symlink_to(ROOT / name)
    (folder / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        (folder / ".venv" / part.name).symlink_to(part)
    (folder / ".venv/.ready").unlink(missing_ok=True)
    (folder / ".venv/.ready").touch()  # newer than pyproject.toml: `make` installs nothing
    digits = load_digits()
    for number in range(0, len(digits.images), 3):
        image = folder / f"photos/digit-{digits.target[number]}/{number:04d}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((15.9 * digits.images[number]).astype("uint8")).save(image)
    _write_named_files(folder)
    shell = Shell(folder)
    yield shell
    shell.end_servers()


def _write_named_files(folder: Path) -> None:
    """Save the Python blocks of the pages that begin with `# NAME.py` as these files."""
    for page in PAGES:
        for block in code_blocks((ROOT / page).read_text(encoding="utf-8")):
            first = block.text.partition("\n")[0]
            if block.language == "python" and first.startswith("# ") and first.endswith(".py"):
                (folder / first.removeprefix("# ")).write_text(block.text)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of(page: str, shell: Shell) -> None:
    commands = documented_commands(ROOT / page, ROOT)
    assert commands
    try:
        for command in commands:
            shell.run(command)
    finally:
        shell.end_servers()


def test_every_entry_of_the_tables_is_used() -> None:
    plan = Plan(dict(SHORTER), dict(ELSEWHERE))
    for page in PAGES:
        for command in documented_commands(ROOT / page, ROOT):
            plan.command_for(command.text)
    assert plan.unused() == []
