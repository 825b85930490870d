"""Views of training images: what they may be, and that only seed, step and place decide."""

import numpy as np
import pytest
from PIL import Image

from experiments import augment

PIXELS = np.arange(1, 6 * 5 * 3 + 1, dtype=np.uint8).reshape(6, 5, 3)  # all different, none black


def windows(image):
    """Every window of an image with four black pixels around it, as it is and mirrored."""
    height, width, _ = image.shape
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    cuts = [
        padded[top : top + height, left : left + width] for top in range(9) for left in range(9)
    ]
    return {x.tobytes() for cut in cuts for x in (cut, cut[:, ::-1])}


def test_crop_and_flip_gives_every_window_and_nothing_else():
    images = np.repeat(PIXELS[None], 3000, 0)
    views = augment.pad_crop_flip(images, seed=0, step=0)
    assert views.dtype == np.uint8
    # 162 windows: that one of them does not come in 3,000 draws has a chance of 1e-6.
    assert {view.tobytes() for view in views} == windows(PIXELS)


def test_crop_and_flip_is_a_function_of_seed_and_step():
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype(np.uint8)
    before = images.copy()
    first = augment.pad_crop_flip(images, 3, 5)
    np.testing.assert_array_equal(images, before)
    np.testing.assert_array_equal(augment.pad_crop_flip(images, 3, 5), first)
    for seed, step in ((3, 6), (4, 5)):
        assert not np.array_equal(augment.pad_crop_flip(images, seed, step), first)


def test_boxes_have_the_areas_and_shapes_that_are_asked_for():
    areas, ratios = [], []
    for i in range(500):
        left, top, right, bottom = augment._random_box(400, 300, np.random.default_rng(i))
        assert 0 <= left < right <= 400
        assert 0 <= top < bottom <= 300
        areas.append((right - left) * (bottom - top) / (400 * 300))
        ratios.append((right - left) / (bottom - top))
    assert 0.075 < min(areas) < 0.12
    assert 0.85 < max(areas) <= 1
    assert 0.74 < min(ratios) < 0.77
    assert 1.30 < max(ratios) < 1.35


@pytest.mark.parametrize(
    ("size", "box"),
    # No part of 3/4 to 4/3 with 8 % of the area fits: the largest in the middle that does.
    [((1000, 10), (493, 0, 506, 10)), ((10, 1000), (0, 493, 10, 506))],
)
def test_a_strip_is_cut_in_its_middle(size, box):
    assert augment._random_box(*size, np.random.default_rng(0)) == box


def test_a_crop_is_that_box_of_the_photograph_and_half_are_mirrored():
    """Red grows to the right: what is seen says where the box was, and whether it is mirrored."""
    ramp = np.zeros((64, 256, 3), np.uint8)
    ramp[..., 0] = np.arange(256)
    mirrored = 0
    for i in range(100):
        view = augment.random_resized_crop(Image.fromarray(ramp), 16, np.random.default_rng(i))
        assert (view.shape, view.dtype) == ((16, 16, 3), np.uint8)
        left, _, right, _ = augment._random_box(256, 64, np.random.default_rng(i))
        row = view[8, :, 0].astype(int)
        steps = np.diff(row)
        assert (steps >= 0).all() or (steps <= 0).all()
        mirrored += bool(steps.sum() < 0)
        assert min(row) >= left - 1
        assert max(row) <= right
    assert 30 < mirrored < 70


def test_other_kinds_of_photographs_become_rgb():
    for mode in ("L", "CMYK", "RGBA", "P"):
        image = Image.new(mode, (20, 30))
        for view in (
            augment.central_crop(image, 8),
            augment.random_resized_crop(image, 8, np.random.default_rng(0)),
        ):
            assert view.shape == (8, 8, 3)


@pytest.mark.parametrize("size", [(256, 256), (512, 256), (256, 300), (100, 40), (31, 97)])
def test_the_central_crop_is_the_middle(size):
    width, height = size
    columns = np.linspace(0, 255, width)[None, :, None].repeat(height, 0).repeat(3, 2)
    view = augment.central_crop(Image.fromarray(columns.astype(np.uint8)), 224)
    assert view.shape == (224, 224, 3)
    row = view[112, :, 0].astype(float)
    assert row[0] + row[-1] == pytest.approx(255, abs=4)
    seen = 224 / 256 * min(1, height / width)
    assert row[-1] - row[0] == pytest.approx(255 * seen, abs=8)


def test_rows_of_a_batch_are_seen_as_they_are_among_the_others():
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6, 3)).astype(np.uint8)
    whole = augment.pad_crop_flip(images, 3, 5)
    for rows in (slice(0, 2), slice(2, 8)):
        part = augment.pad_crop_flip(images[rows], 3, 5, len(images), rows)
        np.testing.assert_array_equal(part, whole[rows])
