"""Look into ICC profiles: which tables they hold, and whether they are sRGB, whatever they are called.

Source: ICC.1:2010 7.3 (tag table), 10.5 ("curv"), 10.15 ("para"), 10.27 ("XYZ "); IEC 61966-2-1 (sRGB).
"""

from __future__ import annotations

import struct

#: The primaries of sRGB as profiles hold them, for D50: of red, green and blue X, Y, Z.
_PRIMARIES = {
    b"rXYZ": (0.4361, 0.2225, 0.0139),
    b"gXYZ": (0.3851, 0.7169, 0.0971),
    b"bXYZ": (0.1431, 0.0606, 0.7141),
}

#: By so much profiles of sRGB differ among each other: rounding, and how they came to D50.
_NEAR = 0.002

#: Of a sample of 8 bits: what is less changes none.
_NEAR_CURVE = 0.5 / 255

#: Tables, which go before a matrix: perceptual, relative, saturation.
_TABLES = frozenset({b"A2B0", b"A2B1", b"A2B2", b"D2B0", b"D2B1", b"D2B2"})

_MOST_TAGS = 100


def icc_tags(icc: bytes) -> dict[bytes, bytes]:
    """Return {signature: content} of a profile's tags, as far as they can be read."""
    try:
        (count,) = struct.unpack_from(">I", icc, 128)
        entries = [struct.unpack_from(">4sII", icc, 132 + 12 * i) for i in range(min(count, _MOST_TAGS))]
    except struct.error:
        return {}
    return {name: icc[at : at + size] for name, at, size in entries}


def by_relative(icc: bytes) -> bool:
    """Tell whether a profile knows the colours by the relative intent; b"" (of libvips' own) does.

    Without a table at all it has a matrix or a curve, which serves each intent.
    """
    tables = icc_tags(icc).keys() & _TABLES
    return not tables or bool(tables & {b"A2B1", b"D2B1"})


def is_srgb(icc: bytes) -> bool:
    """Tell whether pixels by this profile are sRGB already, by its primaries and curves."""
    tags = icc_tags(icc)
    if icc[16:20] != b"RGB " or tags.keys() & _TABLES:
        return False
    try:
        return all(_is_primary(tags[name], near) for name, near in _PRIMARIES.items()) and all(
            _is_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")
        )
    except (KeyError, struct.error, ArithmeticError):
        return False


def _is_primary(tag: bytes, wanted: tuple[float, float, float]) -> bool:
    found = (value / 65536 for value in struct.unpack_from(">3i", tag, 8))
    return all(abs(one - other) <= _NEAR for one, other in zip(found, wanted, strict=True))


def _is_curve(tag: bytes) -> bool:
    steps = (i / 255 for i in range(256))
    return all(abs(_encoded(_linear(tag, x)) - x) < _NEAR_CURVE for x in steps)


def _encoded(light: float) -> float:
    """Return what sRGB makes of light, both from 0 to 1."""
    light = min(max(light, 0.0), 1.0)
    return 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055


def _linear(tag: bytes, x: float) -> float:
    """Return what a curve makes of a value, both from 0 to 1. Raises: struct.error, ArithmeticError."""
    if tag[:4] == b"para":
        return _by_formula(tag, x)
    (count,) = struct.unpack_from(">I", tag, 8)
    if tag[:4] != b"curv":
        raise ArithmeticError("no curve")
    if count == 0:
        return x
    if count == 1:
        return float(x ** (struct.unpack_from(">H", tag, 12)[0] / 256))
    place = x * (count - 1)
    low = min(int(place), count - 2)
    one, two = struct.unpack_from(">2H", tag, 12 + 2 * low)
    return float(one + (two - one) * (place - low)) / 65535


def _by_formula(tag: bytes, x: float) -> float:
    (kind,) = struct.unpack_from(">H", tag, 8)
    count = (1, 3, 4, 5, 7)[kind] if kind < 5 else 0
    given = [value / 65536 for value in struct.unpack_from(f">{count}i", tag, 12)]
    g, a, b = (*given, 1.0, 0.0)[:3] if kind == 0 else given[:3]
    # Below some value a straight line; in the older forms it is level, and begins where the power does.
    c, d = (0.0, -b / a) if kind < 3 else (given[3], given[4])
    e = given[5] if kind == 4 else given[3] if kind == 2 else 0.0
    f = given[6] if kind == 4 else given[3] if kind == 2 else 0.0
    return float((a * x + b) ** g + e if x >= d else c * x + f)
