"""How large a result is: a box kept on both sides, rounding included."""

from __future__ import annotations


def fitted(
    width: int, height: int, most: tuple[int | None, int | None], *, enlarge: bool = False
) -> tuple[int, int]:
    """Return the largest size of the same shape within a box; the size itself when it fits.

    In whole numbers, since a factor of floating point can end a pixel outside the box.

    Args:
        width: pixels.
        height: pixels.
        most: the box; None leaves a side free.
        enlarge: also when the image is smaller than the box.
    """
    sides = [(limit, side) for limit, side in zip(most, (width, height), strict=True) if limit is not None]
    if not sides:
        return width, height
    # The factor is up/down: the smaller of the two sides' own.
    up, down = sides[0]
    for limit, side in sides[1:]:
        if limit * down < up * side:
            up, down = limit, side
    if up == down or (up > down and not enlarge):
        return width, height
    return _rounded(width * up, down), _rounded(height * up, down)


def _rounded(above: int, below: int) -> int:
    """Return above/below to the nearest whole number, and at least 1."""
    # A side's limit is whole: what is at most the limit does not round above it.
    return max(1, (2 * above + below) // (2 * below))
