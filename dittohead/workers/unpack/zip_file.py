"""Read a zip archive strictly: by its list at the end, which must be whole and agree with the members.

Python's `zipfile` reads it; what that passes over is searched for here: bytes before and behind the archive,
members that share bytes, names that a NUL cuts short.

Source: PKWARE APPNOTE.TXT 6.3.10, 4.3 (the parts), 4.4 (the fields).
"""

from __future__ import annotations

import contextlib
import lzma
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO

from dittohead.system.files import BLOCK, kind_of
from dittohead.workers.unpack.broken import BrokenArchive, RefusedMember
from dittohead.workers.unpack.tar_stream import Member

_LOCAL, _END = b"PK\x03\x04", b"PK\x05\x06"
_END_LENGTH, _LOCAL_LENGTH = 22, 30
_ENCRYPTED, _UTF8 = 0x1, 0x800

#: What a damaged archive makes `zipfile` and its decompressors raise. Source: their code; fields of garbage.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, struct.error, ValueError, OverflowError)


def is_zip(head: bytes) -> bool:
    """Tell whether data begins with a member, or with the end of an archive that holds none."""
    return head.startswith((_LOCAL, _END))


class ZipFile:
    """The members of an archive in an open file, in the order of its list."""

    def __init__(self, file: IO[bytes]) -> None:
        """Read the list. Raises: Broken, RefusedMember."""
        self._file = file
        try:
            self._zip = zipfile.ZipFile(file)
        except (*_DAMAGED, NotImplementedError) as error:
            raise BrokenArchive(f"its list of members cannot be read ({error})") from None
        size = file.seek(0, 2)
        self._check_end(size)
        self._check_apart(self._zip.infolist(), size)
        self._present: zipfile.ZipInfo | None = None

    def members(self) -> Iterator[Member]:
        """Yield the members. Raises: RefusedMember."""
        for info in self._zip.infolist():
            self._present = info
            yield Member(name=_name(info), kind=_kind(info), size=info.file_size, mtime=_mtime(info))

    def content(self) -> Iterator[memoryview]:
        """Yield the present member's content in pieces, compared with its CRC at the end.

        Raises: Broken: it is damaged; RefusedMember: it is encrypted, or compressed in an unknown way.
        """
        info = self._present
        assert info is not None  # noqa: S101
        if info.flag_bits & _ENCRYPTED:
            hint = "Unpack it with its password, or have it made without one; gpg's encryption is read here"
            raise RefusedMember("a member is encrypted by zip's own means", member=_name(info), hint=hint)
        found = 0
        try:
            with self._zip.open(info) as stream:
                while piece := stream.read(BLOCK):
                    found += len(piece)
                    yield memoryview(piece)
        except (NotImplementedError, RuntimeError) as error:
            hint = "Have it made with deflate, which every zip program knows"
            what = f"a member is compressed in a way that is not read here ({error})"
            raise RefusedMember(what, member=_name(info), hint=hint) from None
        except _DAMAGED as error:
            raise BrokenArchive(f"a member is damaged ({error})") from None
        if found != info.file_size:
            raise BrokenArchive(f"a member has {found:,} bytes, and {info.file_size:,} in the list")

    def close(self) -> None:
        """Finish."""
        with contextlib.suppress(OSError):
            self._zip.close()

    def _check_end(self, size: int) -> None:
        """See that nothing but zeros, such as a tape's or a pipe's padding, follows the archive."""
        at = max(size - _END_LENGTH - 0xFFFF, 0)
        self._file.seek(at)
        tail = self._file.read()
        end = tail[tail.rfind(_END) :]
        comment = struct.unpack_from("<H", end, _END_LENGTH - 2)[0] if len(end) >= _END_LENGTH else 0
        if len(end) < _END_LENGTH + comment or end[_END_LENGTH + comment :].strip(b"\0"):
            raise BrokenArchive("something follows the end of the zip archive")

    def _check_apart(self, infos: Sequence[zipfile.ZipInfo], size: int) -> None:
        """See that members begin at the file's first byte and share none, as those of zip bombs do."""
        at = 0
        for info in sorted(infos, key=lambda info: info.header_offset):
            if at == 0 and info.header_offset:
                raise BrokenArchive("something stands before the zip archive")
            if info.header_offset < at or info.header_offset >= size:
                what = "two members share their bytes, as in a compression bomb"
                raise RefusedMember(
                    what, member=_name(info), hint="Do not trust this archive; ask who made it"
                )
            at = info.header_offset + _LOCAL_LENGTH + info.compress_size
        if at > size:
            raise BrokenArchive("it is truncated: a member reaches beyond its end")


def _name(info: zipfile.ZipInfo) -> bytes:
    """Return a member's name in UTF-8. Raises: RefusedMember: a NUL or a backslash stands in it."""
    name = info.orig_filename
    if "\0" in name or "\\" in name:
        character = "NUL" if "\0" in name else "backslash"
        hint = "Have it made by a program that writes names with /, as APPNOTE.TXT 4.4.17 says"
        member = name.encode("utf-8", "surrogateescape")
        raise RefusedMember(f"a member's name holds a {character}", member=member, hint=hint)
    if info.flag_bits & _UTF8 or name.isascii():
        return name.encode("utf-8", "surrogateescape")
    # Without the mark a name is in code page 437; programs on Unix have long written their own UTF-8.
    with contextlib.suppress(UnicodeError):
        raw = name.encode("cp437")
        raw.decode("utf-8")
        return raw
    return name.encode("utf-8", "surrogateescape")


def _kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    if info.is_dir():
        return "directory"
    return "file" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else kind_of(mode)


def _mtime(info: zipfile.ZipInfo) -> float:
    """Return when it was changed: its zone is not told, and taken to be UTC."""
    with contextlib.suppress(ValueError, OverflowError):
        return float(time.mktime((*info.date_time, 0, 0, 0))) - time.timezone
    return 0.0
