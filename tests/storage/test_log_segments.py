"""Segments of a log: joined in any order, with repeated, damaged and missing ones."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from pipeline.storage.log_segments import Segment, join_segments


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=8), st.randoms(use_true_random=False))
def test_segments_join_to_the_log(parts: list[bytes], rng: random.Random) -> None:
    """In any order, with shorter repetitions: the whole log. One damaged or missing: what is before it."""
    segments, offset, begins = dict[str, bytes](), 0, [0]
    for part in parts:
        segments[Segment.of(offset, part).name] = part
        cut = part[: rng.randrange(len(part) + 1)]
        segments[Segment.of(offset, cut).name] = cut
        offset += len(part)
        begins.append(offset)
    names = rng.sample(sorted(segments), len(segments))
    log, _ = join_segments({name: segments[name] for name in names})
    assert log == b"".join(parts)
    if not parts:
        return
    broken = rng.randrange(len(parts))
    name = Segment.of(begins[broken], parts[broken]).name
    damaged = {**segments, name: parts[broken][:-1] + bytes([parts[broken][-1] ^ 1])}
    for remaining in ({key: segments[key] for key in segments if key != name}, damaged):
        log, unused = join_segments(remaining)
        assert b"".join(parts).startswith(log)
        assert begins[broken] <= len(log) < offset + (not parts[broken])
        assert {Segment.of(begins[i], parts[i]).name for i in range(broken + 1, len(parts))} <= set(unused)


def test_names_of_other_things_are_no_segments() -> None:
    assert Segment.parse("spool.jsonl") is None
    assert join_segments({"notes.txt": b""}) == (b"", [])
