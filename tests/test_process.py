"""What a process of gansweep does to itself."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from pipeline.process import ending_silence

HANGS = """
import time
from pipeline.process import ending_silence
with ending_silence(1.0) as alive:
    print("inside", flush=True)
    time.sleep(60)
"""


def test_a_silent_process_ends_and_says_where_it_hung() -> None:
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", HANGS], cwd=root, capture_output=True, text=True, timeout=50)
    assert (done.returncode, done.stdout) == (1, "inside\n")
    assert "Timeout" in done.stderr
    assert "line 6 in <module>" in done.stderr


def test_one_that_gives_news_is_left_alone() -> None:
    with ending_silence(1.0) as alive:
        for _ in range(3):
            time.sleep(0.5)
            alive()
    time.sleep(1.2)  # outside nobody looks
