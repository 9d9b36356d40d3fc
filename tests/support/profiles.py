"""ICC profiles of every structure, made by hand: no library makes all of them.

Source: ICC.1:2010 7.2 (header), 7.3 (tags), 10.5 "curv", 10.10 "mft2", 10.12 "mAB ", 10.15 "mluc", 10.27 "XYZ ".
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

#: The white of D50, and primaries of a wide gamut for it.
_WHITE = (0.9642, 1.0, 0.8249)
_PRIMARIES = np.array([[0.6097, 0.2053, 0.1492], [0.3111, 0.6257, 0.0632], [0.0195, 0.0609, 0.7446]])

Device = Callable[[NDArray[np.float64]], NDArray[np.float64]]  #: (n, channels) of 0 to 1: to Lab


def wide(rgb: NDArray[np.float64], gamma: float = 1.8, black: float = 0.01) -> NDArray[np.float64]:
    """Return the Lab of a scanner of a wide gamut, whose black is not quite black."""
    xyz = (rgb**gamma * (1 - black) + black) @ _PRIMARIES.T
    return _lab(xyz)


def ink(cmyk: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Lab of four inks, of which none is pure."""
    light = (1 - cmyk[:, :3] * 0.9) * (1 - cmyk[:, 3:] * 0.95)
    return _lab(light @ _PRIMARIES.T)


def _lab(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = np.clip(xyz / np.array(_WHITE), 0, None)
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.stack([116 * f[:, 1] - 16, 500 * (f[:, 0] - f[:, 1]), 200 * (f[:, 1] - f[:, 2])], axis=1)


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(value * 65536) for value in values))


def gamma_curve(gamma: float) -> bytes:
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def table_curve(values: Sequence[float]) -> bytes:
    numbers = [round(value * 65535) for value in values]
    return b"curv\0\0\0\0" + struct.pack(f">I{len(numbers)}H", len(numbers), *numbers)


def formula(*values: float, kind: int) -> bytes:
    numbers = [round(value * 65536) for value in values]
    return b"para\0\0\0\0" + struct.pack(f">HH{len(numbers)}i", kind, 0, *numbers)


def _text(words: str, version: int) -> bytes:
    if version >= 4:
        text = words.encode("utf-16-be")
        return b"mluc\0\0\0\0" + struct.pack(">II2s2sII", 1, 12, b"en", b"US", len(text), 28) + text
    return b"desc\0\0\0\0" + struct.pack(">I", len(words) + 1) + words.encode() + bytes(79)


def profile(
    tags: dict[bytes, bytes],
    *,
    space: bytes = b"RGB ",
    pcs: bytes = b"XYZ ",
    kind: bytes = b"scnr",
    version: int = 2,
    called: str = "of a test",
) -> bytes:
    """Return a profile of these tags."""
    every = {b"desc": _text(called, version), b"wtpt": _xyz(_WHITE), b"cprt": _text("none", version)} | tags
    if version < 4:
        every[b"cprt"] = b"text\0\0\0\0none\0"
    at, table, body = 128 + 4 + 12 * len(every), b"", b""
    for name, content in every.items():
        content += bytes(-len(content) % 4)
        table += struct.pack(">4sII", name, at + len(body), len(content))
        body += content
    size = at + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"test", version << 24, kind, space, pcs)
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    head += struct.pack(">3i", *(round(value * 65536) for value in _WHITE))
    return head.ljust(128, b"\0") + struct.pack(">I", len(every)) + table + body


def matrix(
    curve: bytes, primaries: NDArray[np.float64] = _PRIMARIES, *, version: int = 2, called: str = "by matrix"
) -> bytes:
    """Return a profile of RGB by a matrix and one curve."""
    tags = {name: _xyz(primaries[:, i]) for i, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    return profile(tags, version=version, called=called)


def grey(curve: bytes, *, version: int = 2) -> bytes:
    return profile({b"kTRC": curve}, space=b"GRAY", version=version)


def _grid(channels: int, points: int, device: Device) -> NDArray[np.float64]:
    steps = np.array(list(itertools.product(np.linspace(0, 1, points), repeat=channels)))
    return device(steps)


def old_table(channels: int, device: Device, points: int = 9) -> bytes:
    """Return a table of 16 bits ("mft2") to Lab, as the second version encodes it."""
    lab = _grid(channels, points, device)
    codes = np.stack([lab[:, 0] * 652.8, (lab[:, 1] + 128) * 256, (lab[:, 2] + 128) * 256], axis=1)
    codes = np.clip(np.rint(codes), 0, 65535).astype(">u2")
    head = b"mft2\0\0\0\0" + struct.pack(">BBBx", channels, 3, points)
    head += struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 65536) + struct.pack(">HH", 2, 2)
    straight = struct.pack(">HH", 0, 65535)
    return head + straight * channels + codes.tobytes() + straight * 3


def new_table(channels: int, device: Device, points: int = 9) -> bytes:
    """Return a table of the fourth version ("mAB ") to Lab."""
    lab = _grid(channels, points, device)
    codes = np.stack([lab[:, 0] / 100, (lab[:, 1] + 128) / 255, (lab[:, 2] + 128) / 255], axis=1)
    codes = np.clip(np.rint(codes * 65535), 0, 65535).astype(">u2")
    straight = b"curv\0\0\0\0\0\0\0\0"
    ends, starts = straight * 3, straight * channels
    cube = bytes([points] * channels).ljust(16, b"\0") + b"\2\0\0\0" + codes.tobytes()
    cube += bytes(-len(cube) % 4)
    clut = 32 + len(ends)
    head = b"mAB \0\0\0\0" + struct.pack(">BBxxIIIII", channels, 3, 32, 0, 0, clut, clut + len(cube))
    return head + ends + cube + starts
