"""Checksums as object stores compute them, taken while data passes, and found in their answers."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from awscrt import checksums as crt

#: Full-object checksums, in order of preference: the first is S3's own default since 2024, and
#: like CRC32C stays one of the whole object in a multipart upload, where SHA-256 does not.
#: Source: Amazon S3 User Guide, "Checking object integrity".
WANTED: Final = ("CRC64NVME", "CRC32C", "SHA256")

_CRC = {"CRC64NVME": (crt.crc64nvme, 8), "CRC32C": (crt.crc32c, 4), "CRC32": (crt.crc32, 4)}
_HASHES = {"SHA256": hashlib.sha256, "SHA1": hashlib.sha1, "MD5": lambda: hashlib.md5(usedforsecurity=False)}

_PLAIN_MD5 = re.compile(r"[0-9a-f]{32}")


class Digests:
    """Takes the SHA-256 and any further checksums of data as it passes.

    Args:
        algorithms: of CRC64NVME, CRC32C, CRC32, SHA256, SHA1, MD5.
        sha256: False leaves the SHA-256 out, unless it is among them.
    """

    def __init__(self, algorithms: Iterable[str] = (), *, sha256: bool = True) -> None:
        wanted = {*algorithms, *(["SHA256"] if sha256 else [])}
        self._crc = dict.fromkeys(sorted(wanted & _CRC.keys()), 0)
        self._hashes = {name: _HASHES[name]() for name in sorted(wanted & _HASHES.keys())}
        self.size = 0  #: bytes so far

    def update(self, data: bytes | memoryview) -> None:
        """Take in the next piece. Blocking: about a second for each GB."""
        self.size += len(data)
        for name, before in self._crc.items():
            self._crc[name] = _CRC[name][0](data, before)
        for running in self._hashes.values():
            running.update(data)

    @property
    def sha256(self) -> str:
        """The SHA-256, 64 lower-case hex digits."""
        return self._hashes["SHA256"].hexdigest()

    @property
    def algorithms(self) -> list[str]:
        """The checksums that are taken."""
        return [*self._crc, *self._hashes]

    def has(self, algorithm: str) -> bool:
        """Tell whether this checksum was taken."""
        return algorithm in self._crc or algorithm in self._hashes

    def value(self, algorithm: str) -> str:
        """Return a checksum as S3 writes it: base64 of its big-endian bytes."""
        if algorithm in self._crc:
            raw = self._crc[algorithm].to_bytes(_CRC[algorithm][1], "big")
        else:
            raw = self._hashes[algorithm].digest()
        return base64.b64encode(raw).decode("ascii")


def checksum(algorithm: str, data: bytes | memoryview) -> str:
    """Return one checksum of data in memory, as S3 writes it."""
    if algorithm in _CRC:
        function, size = _CRC[algorithm]
        raw = function(data).to_bytes(size, "big")
    else:
        running = _HASHES[algorithm]()
        running.update(data)
        raw = running.digest()
    return base64.b64encode(raw).decode("ascii")


def stored(head: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return (algorithm, base64) of the whole object's checksum in an answer of HEAD, GET or PUT.

    None when the store gives none, or only one put together from parts (COMPOSITE).
    """
    if head.get("ChecksumType", "FULL_OBJECT") != "FULL_OBJECT":
        return None
    for algorithm in (*WANTED, "CRC32", "SHA1"):
        value = head.get(f"Checksum{algorithm}")
        if value and "-" not in value:  # VALUE-N is of N parts
            return algorithm, str(value)
    return None


def etag_md5(head: Mapping[str, Any]) -> str | None:
    """Return the ETag where it may be an MD5 of the whole: 32 hex digits; otherwise None.

    It is none of objects encrypted by KMS keys and of some stores' own: only a match proves something.
    """
    etag = str(head.get("ETag", "")).strip('"').lower()
    return etag if _PLAIN_MD5.fullmatch(etag) else None


def hex_of(value: str) -> str:
    """Return a base64 checksum as lower-case hex digits."""
    return base64.b64decode(value).hex()
