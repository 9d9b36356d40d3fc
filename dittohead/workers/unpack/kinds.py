"""What a file is by its first bytes, whatever it is called: an archive, a compressed or encrypted one."""

from __future__ import annotations

from dittohead.workers.unpack import compression
from dittohead.workers.unpack.tar_stream import is_tar
from dittohead.workers.unpack.zip_file import is_zip

#: Bytes that tell.
HEAD = 1024

#: What is wrong with a file that is not an archive.
IS_EMPTY = "it is empty"
IS_PAGE = "it is a web page, and no archive"
IS_NONE = "it is not a tar or zip archive, and not encrypted by gpg"

_ARMOUR = b"-----BEGIN PGP MESSAGE-----"

#: Packets that an encrypted message begins with: session keys (1, 3), a marker (10), the data (9, 18, 20);
#: and those of one that is only packed or signed, which gpg is to refuse (2, 4, 8, 11).
#: Source: RFC 9580, 4.2 (headers), 5 (tags).
_TAGS = frozenset({1, 2, 3, 4, 8, 9, 10, 11, 18, 20})


def kind_of(head: bytes) -> str:
    """Return "tar", "zip", "gzip", "bzip2", "xz", "zstd", "gpg" or "page" (a web page); "" for another.

    Args:
        head: `HEAD` bytes, where there are so many.
    """
    if is_tar(head):  # first: its first bytes are a name, which may look like anything
        return "tar"
    if is_zip(head):
        return "zip"
    return compression.kind_of(head) or ("gpg" if _is_message(head) else "page" if _is_page(head) else "")


def _is_message(head: bytes) -> bool:
    if head.lstrip().startswith(_ARMOUR):
        return True
    if not head or not head[0] & 0x80:
        return False
    tag = head[0] & 0x3F if head[0] & 0x40 else head[0] >> 2 & 0x0F
    return tag in _TAGS


def _is_page(head: bytes) -> bool:
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype html", b"<html"))
