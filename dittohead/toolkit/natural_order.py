"""The order that people mean: page 2 before page 10. The one order in which files of a folder are pages.

Lists that are compared line by line, such as the manifest, keep the order of `files.walk` instead.
"""

from __future__ import annotations

import os
import re
import unicodedata

from dittohead.system import folding

#: A number as \\d finds it: decimal digits of any script. Source: Unicode, General_Category=Nd.
_NUMBER = re.compile(r"(\d+)")

#: (text, length of the number behind it, its digits), in turn: a longer number is a larger one.
_Words = tuple[tuple[str, int, str], ...]

#: What compares as its path is ordered: (is a folder, stem, suffix, its own bytes) of each of its parts.
Key = tuple[tuple[bool, _Words, _Words, bytes], ...]


def key(path: bytes) -> Key:
    """Return what sorts paths within a folder as people do.

    A folder's own files come before its subfolders, and the files of one folder stand together. Names
    are compared without regard to case and to how accents are written, numbers in them by their value
    whatever their length and script, and what stands before the suffix before the suffix: `p1.tif`
    comes before `p1-2.tif`. Names that are the same by all that, such as `p1.tif` and `P01.tif`, are
    ordered by their bytes: no two paths have the same key.

    Args:
        path: relative to the folder, its parts separated by slashes; need not be UTF-8.
    """
    *folders, name = path.split(b"/")
    stem, suffix = os.path.splitext(name)
    around: Key = tuple((True, _words(folder), (), folder) for folder in folders)
    return (*around, (False, _words(stem), _words(suffix), name))


def page_key(path: bytes, origin: bytes) -> tuple[Key, Key]:
    """Return what sorts pages, however they are called by the steps that made them.

    Args:
        path: the page, as the step calls it that made it.
        origin: the folder's own file that it goes back to, which may have several pages; b"" for none.
    """
    return key(origin or path), key(path)


def _words(name: bytes) -> _Words:
    pieces = _NUMBER.split(folding.caseless(name.decode("utf-8", "surrogateescape")))
    return tuple(
        (text, *_number(digits)) for text, digits in zip(pieces[::2], [*pieces[1::2], ""], strict=True)
    )


def _number(digits: str) -> tuple[int, str]:
    """Return what orders numbers by value; no int: Python makes none of more than 4,300 digits."""
    if not digits.isascii():
        digits = "".join(str(unicodedata.decimal(digit)) for digit in digits)
    plain = digits.lstrip("0") or digits[:1]
    return len(plain), plain
