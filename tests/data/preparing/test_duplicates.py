"""Copies are found: exact ones, saved again, resized; and honest likenesses are none."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipeline.data.preparing.duplicates import Copies, describe, find_copies

Pixels = npt.NDArray[np.uint8]


def copies_of(images: Pixels) -> Copies:
    return find_copies(describe(images, len(images)), lambda row: images[row])


def pictures(count: int, side: int = 64, channels: int = 3) -> Pixels:
    """Smooth random pictures."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (count, 6, 6, channels), np.uint8)
    big = [np.asarray(Image.fromarray(s.squeeze()).resize((side, side), 3)) for s in small]
    return np.stack(big).reshape(count, side, side, channels)


def saved_again(image: Pixels, quality: int) -> Pixels:
    stream = io.BytesIO()
    Image.fromarray(image.squeeze()).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream)).reshape(image.shape)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [8, 28, 64, 100, 256])
def test_exact_copies(side: int, channels: int) -> None:
    images = pictures(60, side, channels)
    found = copies_of(np.concatenate([images, images[:10], images[:10]]))
    assert (found.exact, found.near) == (20, 0)
    assert found.groups[:10].tolist() == found.groups[60:70].tolist() == found.groups[70:].tolist()
    assert set(found.groups[10:60].tolist()) == {-1}
    assert len(set(found.groups[:10].tolist())) == 10


@pytest.mark.parametrize("quality", [60, 90])
def test_saved_again_as_jpeg(quality: int) -> None:
    images = pictures(80)
    again = np.stack([saved_again(image, quality) for image in images[:20]])
    found = copies_of(np.concatenate([images, again]))
    assert (found.exact, found.near) == (0, 20)
    assert found.groups[:20].tolist() == found.groups[80:].tolist()


def test_resized_and_back() -> None:
    images = pictures(80)
    again = np.stack(
        [np.asarray(Image.fromarray(i).resize((160, 160)).resize((64, 64))) for i in images[:20]]
    )
    assert copies_of(np.concatenate([images, again])).near == 20


def test_different_images_are_no_copies() -> None:
    assert (copies_of(pictures(200)).groups == -1).all()
    rng = np.random.default_rng(1)
    assert (copies_of(rng.integers(0, 256, (500, 8, 8, 1), np.uint8)).groups == -1).all()


def test_pale_images_are_judged_by_their_own_contrast() -> None:
    pale = (250 + pictures(200) // 64).astype(np.uint8)  # 250..253
    assert (copies_of(pale).groups == -1).mean() > 0.9


def test_a_film_is_no_group_of_copies() -> None:
    """Each frame differs little from the next, the first and the last a lot; exact copies still count."""
    first, last = pictures(2).astype(float)
    film = np.stack([first + (last - first) * t / 399 for t in range(400)]).round().astype(np.uint8)
    found = copies_of(np.concatenate([film, film[:3]]))
    assert "chains" in found.note or "alike" in found.note
    assert found.exact == 3
    assert int((found.groups >= 0).sum()) == 6


def test_many_copies_of_one_image_are_no_film() -> None:
    images = pictures(100)
    again = np.stack([saved_again(images[0], quality) for quality in range(60, 90)])
    found = copies_of(np.concatenate([images, again]))
    assert (found.note, found.exact + found.near) == ("", 30)


def test_all_the_same() -> None:
    found = copies_of(np.zeros((70, 8, 8, 1), np.uint8))
    assert (found.exact, set(found.groups.tolist())) == (69, {0})
