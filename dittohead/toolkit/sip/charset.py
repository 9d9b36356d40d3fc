"""In which character set a text is written."""

from __future__ import annotations

import codecs
import os
import re

from dittohead.system import files

#: Marks at the beginning of a text, the longer first. Source: Unicode, 23.8.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF8, "UTF-8"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)

#: An XML declaration. Source: XML 1.0, 2.8 and 4.3.3.
_DECLARED = re.compile(rb"""<\?xml[^>]{0,100}encoding\s*=\s*["']([A-Za-z0-9._-]{1,40})["']""")


def of(fd: int) -> str:
    """Return a text's character set, in upper case; "" where it is neither UTF nor says what it is."""
    head = os.pread(fd, 256, 0)
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    declared = _DECLARED.match(head)
    if declared is not None and declared[1].upper() != b"UTF-8":
        return declared[1].decode().upper()
    return "UTF-8" if _is_utf8(fd) else ""


def _is_utf8(fd: int) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    at = 0
    try:
        while piece := os.pread(fd, files.BLOCK, at):
            at += len(piece)
            decoder.decode(piece)
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True
