"""Every odd file of the corpus is read as it should be, or is unusable for the right reason."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from image_corpus import odd_files, write_corpus
from odd_parts import Odd

from pipeline.data.images.decoding import decode, read_header, value_range
from pipeline.data.images.image_formats import UnusableImage

WHITE = (255, 255, 255)
FILES = odd_files()


def test_the_corpus_is_large_and_its_names_are_its_own() -> None:
    assert len(FILES) >= 60
    assert len({odd.name for odd in FILES}) == len(FILES)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("odd", FILES, ids=lambda odd: odd.name)
def test_an_odd_file(odd: Odd) -> None:
    if odd.missing:
        pytest.skip(odd.missing)
    stream = io.BytesIO(odd.make())
    if odd.reason:
        with pytest.raises(UnusableImage) as caught:
            read(odd, stream)
        assert caught.value.reason == odd.reason
        return
    read(odd, stream)


def read(odd: Odd, stream: io.BytesIO) -> None:
    header = read_header(stream, odd.name)
    if header.wide:
        low, high = value_range(stream, header)
        assert odd.value_range
        assert odd.value_range[0] <= low <= high <= odd.value_range[1]
    found = decode(stream, header, frame=odd.frame, background=WHITE, value_range=odd.value_range)
    mode = "L" if odd.grey else "RGB"
    assert (found.picture.size, found.picture.mode) == (odd.size, mode)
    assert (header.width, header.height, header.grey) == (*odd.size, odd.grey)
    assert (header.wide, header.frames, header.drawn) == (odd.wide, odd.frames, False)
    assert tuple(note for note in found.notes if note != "transparent") == odd.notes
    for (x, y), value in odd.pixels.items():
        seen = np.asarray(found.picture)[y, x]
        assert np.abs(seen.astype(int) - value).max() <= odd.near, f"{seen} at {x}, {y}, not {value}"


def test_the_corpus_is_written(tmp_path: Path) -> None:
    written = write_corpus(tmp_path / "odd")
    assert {path.name for path in (tmp_path / "odd").iterdir()} == {odd.name for odd in written}
    assert "48x32 grey, 16-bit" in {odd.answer for odd in written}
