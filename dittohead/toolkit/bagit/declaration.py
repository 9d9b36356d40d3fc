"""The bag declaration, `bagit.txt`, and other tag files of labels and values.

Source: RFC 8493, 2.1.1 and 2.2.2.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass

#: The versions that can be read. Later ones may mean something else by the same files.
VERSIONS = ((0, 93), (0, 94), (0, 95), (0, 96), (0, 97), (1, 0))

#: A tag file with labels is read as a whole; this is far more than any holds. Bytes.
LARGEST = 4 << 20

_VERSION = re.compile(r"BagIt-Version: (\d+)\.(\d+)")
_ENCODING = re.compile(r"Tag-File-Character-Encoding: (\S+)")
#: Before 1.0 the colon could have blanks before it.
_LOOSE = re.compile(r"[ \t]*:[ \t]*")


class Malformed(ValueError):
    """A tag file is not what its version allows; the words say why."""


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """What `bagit.txt` says."""

    version: tuple[int, int]  #: such as (1, 0)
    encoding: str  #: of the other tag files, as Python names it

    @property
    def strict(self) -> bool:
        """Whether the rules of RFC 8493 count, which allow less than the drafts before it."""
        return self.version >= (1, 0)

    def __str__(self) -> str:
        return f"BagIt {self.version[0]}.{self.version[1]}"


def read(data: bytes) -> Declaration:
    """Return what a bag declaration says. Raises: Malformed."""
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise Malformed("it begins with a byte order mark")
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        raise Malformed("it is not UTF-8") from None
    if len(lines) != 2:
        raise Malformed(f"it has {len(lines)} lines in place of two")
    if not lines[0].startswith("BagIt-Version: 1."):
        lines = [_LOOSE.sub(": ", line, count=1) for line in lines] if _is_draft(lines[0]) else lines
    version, encoding = _VERSION.fullmatch(lines[0].rstrip()), _ENCODING.fullmatch(lines[1].rstrip())
    if version is None:
        raise Malformed('its first line is not "BagIt-Version: 1.0"')
    if encoding is None:
        raise Malformed('its second line is not "Tag-File-Character-Encoding: UTF-8"')
    number = (int(version[1]), int(version[2]))
    if number not in VERSIONS:
        raise Malformed(f"version {version[1]}.{version[2]} is unknown")
    try:
        name = codecs.lookup(encoding[1]).name
    except LookupError:
        raise Malformed(f"the encoding {encoding[1]} is unknown") from None
    return Declaration(version=number, encoding=name)


def _is_draft(line: str) -> bool:
    return re.match(r"BagIt-Version[ \t]*:[ \t]*0\.", line) is not None


def labels(data: bytes, encoding: str) -> list[tuple[str, str]]:
    """Return the labels and values of a tag file such as `bag-info.txt`, in their order.

    Args:
        data: the file's content.
        encoding: as the declaration names it.

    Raises: Malformed: it is not text, or a line is neither a label with a value nor goes on with one.
    """
    try:
        lines = data.decode(encoding).splitlines()
    except UnicodeDecodeError:
        raise Malformed(f"it is not {encoding.upper()}") from None
    found: list[tuple[str, str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if line[0] in " \t" and found:
            label, value = found[-1]
            found[-1] = (label, f"{value} {line.strip()}")
            continue
        label, colon, value = line.partition(":")
        if not colon or not label.strip():
            raise Malformed(f"line {number} has no label")
        found.append((label.strip(), value.strip()))
    return found
