"""Real images of awkward kinds, made by another library than the one that is tested."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Width and height.
_BLOCK = (701, 577)


def pixels(width: int, height: int, bands: int = 3, dtype: Any = np.uint8, seed: int = 1) -> NDArray[Any]:
    """Return smooth pixels with some noise: (height, width, bands), or (height, width) for one band.

    Large ones repeat a block whose sides are not multiples of any tile's or strip's.
    """
    if width * height > 2 * _BLOCK[0] * _BLOCK[1]:
        block = pixels(*_BLOCK, bands, dtype, seed)
        times = (-(-height // _BLOCK[1]), -(-width // _BLOCK[0]), *([1] if block.ndim == 3 else []))
        return np.ascontiguousarray(np.tile(block, times)[:height, :width])
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for band in range(bands):
        plane = 100 + 80 * np.sin(x / (17 + band)) * np.cos(y / (23 + band)) + rng.normal(0, 3, x.shape)
        planes.append(plane)
    found = np.clip(np.stack(planes, axis=-1), 0, 255)
    if dtype == np.uint16:
        found = found * 257
    found = found.astype(dtype)
    return found[:, :, 0] if bands == 1 else found


def encode(array: NDArray[Any] | Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image file's bytes; `kind` is Pillow's format name."""
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def jpeg(width: int = 400, height: int = 300, *, orientation: int = 1, **options: Any) -> bytes:
    """Return a JPEG, with an orientation tag when it is not 1."""
    image = Image.fromarray(pixels(width, height))
    if orientation != 1:
        exif = image.getexif()
        exif[0x0112] = orientation
        options["exif"] = exif
    return encode(image, "JPEG", quality=92, **options)


def tiff(width: int = 400, height: int = 300, **options: Any) -> bytes:
    """Return an RGB TIFF."""
    return encode(pixels(width, height), "TIFF", **options)


def by_vips(tmp_path: Path, operation: list[str], name: str) -> bytes:
    """Return a file that the vips program makes: `vips OPERATION... NAME`."""
    path = tmp_path / name
    subprocess.run(["vips", *operation[:1], *operation[1:]], check=True, cwd=tmp_path)
    return path.read_bytes()


def levels(path: Path) -> list[tuple[int, int]]:
    """Return (width, height) of every page of a TIFF."""
    found = []
    with Image.open(path) as image:
        for page in range(getattr(image, "n_frames", 1)):
            image.seek(page)
            found.append(image.size)
    return found


def decoded(path: Path) -> NDArray[Any]:
    """Return the first page's pixels."""
    with Image.open(path) as image:
        return np.asarray(image)
