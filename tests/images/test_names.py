"""What results are called: no two alike on any file system, whatever people call their images."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from dittohead.toolkit.images.names import Names


def named(paths: list[bytes], suffix: bytes = b".tif", *, pages: bool = False) -> dict[bytes, bytes]:
    """Return {image: result}."""
    names = Names(suffix, pages=pages)
    names.learn(paths)
    names.avoid(paths)
    return {path: names.output(path) for path in paths}


WORDS = st.sampled_from(
    ["a", "A", "a.jpg", "a-0001", "a.b-0001", "a~0123456789abcdef", "b", "é" * 125, "a.tif"]
)
ENDINGS = st.sampled_from([".jpg", ".JPG", ".tif", ".b-0001", ".pdf", "", ".jpg-0001"])
FOLDERS = st.sampled_from(["", "x/", "a.tif/", "X/"])
PATHS = st.builds(lambda folder, word, ending: f"{folder}{word}{ending}".encode(), FOLDERS, WORDS, ENDINGS)


def possible(paths: list[bytes]) -> bool:
    """Tell whether these can all be files, none being another's folder."""
    return not any(path.startswith(other + b"/") for path in paths for other in paths)


@given(paths=st.lists(PATHS, max_size=12, unique=True).filter(possible), pages=st.booleans())
def test_no_two_results_are_alike_nor_like_a_folder(paths: list[bytes], pages: bool) -> None:
    """Nor, when images have pages, like a page of another; upper and lower case count as alike."""
    made = named(paths, pages=pages)
    results = [result.lower() for result in made.values()]
    assert len(set(made.values())) == len(paths)
    assert len(set(results)) >= len({path.lower() for path in paths})  # originals may differ in case alone
    folders = {path[: at.start()].lower() for path in paths for at in re.finditer(b"/", path)}
    assert not folders & set(results)
    assert all(len(part) <= (248 if pages else 255) for result in results for part in result.split(b"/"))
    if pages:
        of_pages = {result[:-4] + b"-0001.tif" for result in results}
        assert not of_pages & set(results)
        assert not of_pages & folders


def test_the_plain_case_stays_plain() -> None:
    """One image, one name."""
    assert named([b"x/a.jpg", b"b-0001.tif"], b".iiif", pages=True) == {
        b"x/a.jpg": b"x/a.iiif",
        b"b-0001.tif": b"b-0001.iiif",
    }
