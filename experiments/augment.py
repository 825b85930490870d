"""Random views of training images, as pure functions of a seed and of where the image stands.

All of it is done on the host, on bytes, before a batch goes to the devices. A training step is then
the same program with and without it: on a CPU XLA would copy a gather into everything that reads
the images, and on an accelerator the next batch is cropped while the last one trains. A batch of
128 images of 32 x 32 takes about a millisecond, and no number of devices or processes enters.
"""

import math
from typing import Literal

import numpy as np
from PIL import Image

Augment = Literal["none", "crop_flip"]
PADDING = 4
"""Black pixels around an image of CIFAR, from which a window of its size is cut."""
AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
"""How much of a photograph is seen, and how wide it is against its height."""
TRIES = 10
_SALT = 1
"""Apart from the order of the examples, which is drawn from [seed, epoch]."""


def generator(seed: int, step: int, place: int = 0) -> np.random.Generator:
    """What the view of an image is drawn from: its batch, and its place in it."""
    return np.random.default_rng([seed, step, place, _SALT])


def pad_crop_flip(
    images: np.ndarray,
    seed: int,
    step: int,
    batch_size: int | None = None,
    rows: slice = slice(None),
) -> np.ndarray:
    """A window of each image with four black pixels around it, and half of them mirrored.

    He, Zhang, Ren and Sun, *Deep residual learning for image recognition*, CVPR 2016, section 4.2.

    Args:
        images: (batch, height, width, channels), uint8.
        seed: any integer from 0.
        step: the number of the batch.
        batch_size: of the whole batch, where ``images`` are only some of its rows.
        rows: which these are. They are seen as they would be among the others.

    Returns:
        Images of the same shape and type.
    """
    _, height, width, _ = images.shape
    count = len(images) if batch_size is None else batch_size
    rng = generator(seed, step)
    corners = rng.integers(0, 2 * PADDING + 1, (count, 2))[rows]
    flipped = rng.integers(0, 2, count).astype(bool)[rows]
    padded = np.pad(images, ((0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)))
    views = np.empty_like(images)
    for view, image, (top, left), flip in zip(views, padded, corners, flipped, strict=True):
        window = image[top : top + height, left : left + width]
        view[:] = window[:, ::-1] if flip else window
    return views


def random_resized_crop(image: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """A part of a photograph, of random place, area and shape, mirrored half of the time.

    Szegedy et al., *Going deeper with convolutions*, CVPR 2015, section 6: 8 to 100 % of the area,
    3/4 to 4/3 as wide as high (its logarithm uniform). Where no such part is found in ten tries,
    the largest one in the middle is taken.

    Args:
        image: of any size.
        size: of the result, in pixels.
        rng: what is drawn from.

    Returns:
        (size, size, 3), uint8.
    """
    width, height = image.size
    box = _random_box(width, height, rng)
    view = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR, box=box)
    pixels = np.asarray(view)
    return pixels[:, ::-1] if rng.integers(0, 2) else pixels


def _random_box(width: int, height: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
    for _ in range(TRIES):
        area = width * height * rng.uniform(*AREA)
        ratio = math.exp(rng.uniform(*np.log(RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = (int(rng.integers(0, room + 1)) for room in (width - w, height - h))
            return left, top, left + w, top + h
    w = min(width, max(1, round(height * RATIO[1])))
    h = min(height, max(1, round(width / RATIO[0])))
    left, top = (width - w) // 2, (height - h) // 2
    return left, top, left + w, top + h


def central_crop(image: Image.Image, size: int) -> np.ndarray:
    """The middle of a photograph whose shorter side is made 8/7 of ``size``: 256 for 224.

    Returns:
        (size, size, 3), uint8.
    """
    width, height = image.size
    shorter = round(size * 8 / 7)
    scale = shorter / min(width, height)
    width, height = (max(shorter, round(side * scale)) for side in (width, height))
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(resized.crop((left, top, left + size, top + size)))
