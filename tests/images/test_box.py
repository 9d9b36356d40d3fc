"""A box is kept on both sides, rounding included."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dittohead.toolkit.images.fit import fitted
from dittohead.toolkit.images.pyramid import is_big
from dittohead.toolkit.images.recipe import ImageRecipe, wanted_pages

SIDES = st.integers(1, 200_000)
LIMITS = st.none() | st.integers(1, 100_000)


@given(width=SIDES, height=SIDES, most=st.tuples(LIMITS, LIMITS), enlarge=st.booleans())
def test_no_side_is_longer_than_its_limit(
    width: int, height: int, most: tuple[int | None, int | None], enlarge: bool
) -> None:
    """And one side is as long as it may be, the shape is the image's, and what fits is left alone."""
    found = fitted(width, height, most, enlarge=enlarge)
    fits = all(limit is None or side <= limit for limit, side in zip(most, (width, height), strict=True))
    if not enlarge or most == (None, None):
        assert found[0] <= width
        assert found[1] <= height
        if fits:
            assert found == (width, height)
            return
    assert all(limit is None or side <= limit for limit, side in zip(most, found, strict=True))
    assert any(limit == side for limit, side in zip(most, found, strict=True))
    factor = min(limit / side for limit, side in zip(most, (width, height), strict=True) if limit is not None)
    assert abs(found[0] - max(1, width * factor)) < 0.51
    assert abs(found[1] - max(1, height * factor)) < 0.51


@pytest.mark.parametrize(
    ("size", "wanted"), [((1000, 999), (561, 560)), ((800, 700), (640, 560)), ((6000, 8000), (420, 560))]
)
def test_nearly_square_images(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """A factor by the longer side alone would leave the other too long, or be above one."""
    assert fitted(*size, (843, 560)) == wanted


def test_a_large_result_becomes_a_bigtiff_in_time() -> None:
    """Where the compression may take nearly as much as none; half of it below quality 90."""
    lossless, rgb, small = (
        ImageRecipe(compression="deflate"),
        ImageRecipe(compression="jpeg", quality=95),
        ImageRecipe(compression="jpeg"),
    )
    gib = 1 << 30
    assert [is_big(3 * gib, recipe) for recipe in (lossless, rgb, small)] == [True, True, False]
    assert is_big(8 * gib, small)
    assert not is_big(2 * gib, lossless)


def test_pages_that_are_wanted() -> None:
    """Counted from 1; those that are not there are left out."""
    assert wanted_pages("first", 7) == [1]
    assert wanted_pages("all", 3) == [1, 2, 3]
    assert wanted_pages("2-5", 3) == [2, 3]
    assert wanted_pages("4", 3) == []
