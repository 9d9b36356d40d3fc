"""What an unpack step may be told."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from dittohead.contract import placeholders
from dittohead.contract.options import Size
from dittohead.contract.worker import Options
from dittohead.workers.unpack import globs

#: Endings of archives, for their name without them.
_ENDINGS = re.compile(r"(\.(gpg|pgp|asc|gz|bz2|xz|tar|tgz|tbz2?|txz|zip))+$", re.IGNORECASE)
_ENCRYPTED = re.compile(rb"\.(gpg|pgp|asc)$", re.IGNORECASE)


class UnpackOptions(Options):
    """What an unpack step may be told."""

    match: list[str] = Field(
        ["*"],
        min_length=1,
        description="The archives among the files it takes: patterns for a file's name, or with a `/` for "
        "its path; upper and lower case alike.",
    )
    others: Literal["fail", "skip"] = Field(
        "fail", description="What to do with files that `match` does not name: fail, or leave them out."
    )
    credential: str = Field(
        "",
        description="Name of the credential that holds the passphrase of archives that gpg has encrypted "
        "(`gpg --symmetric`). When it is left out, an encrypted archive fails.",
    )
    keep: Literal["members", "archive", "both"] = Field(
        "members",
        description="What the step makes: the archive's `members`; the decrypted `archive` alone, which is "
        "read through to its end and checked like the others; or `both`.",
    )
    into: str = Field(
        "",
        description="Directory that the members go to, made from `{stem}`, `{file}` ... of their archive; "
        "where a folder holds several archives: `{stem}`.",
    )
    prefix: str = Field(
        "",
        description="Directory that all members lie in inside the archive, such as `{name}/`; it is left out "
        "of their names.",
    )
    members: list[str] = Field(
        ["*"],
        min_length=1,
        description="Patterns for the names that members may have (behind `prefix`), such as `*.tif`. `*` "
        "stands for anything without a `/`, `**` for anything: by default no member may lie in a directory, "
        'and `["**"]` lets in all.',
    )
    unlisted: Literal["fail", "skip"] = Field(
        "fail", description="What to do with members that fit none of `members`: fail, or leave them out."
    )
    alike: Literal["fail", "keep"] = Field(
        "fail",
        description="What to do with members whose names differ only by capital letters or by how accents "
        "are written, and so are one file on some file systems: fail, or keep both.",
    )
    checksums: str = Field(
        "",
        description="Name of the member that lists the MD5 or SHA-256 of all others, as `md5sum` writes it. "
        "Nothing is made unless all of them are there, and no others, each with its digest.",
    )
    max_members: int = Field(100_000, ge=1, description="The most members that may come out of one folder.")
    max_member: Size = Field(16 << 30, ge=1, description="The most bytes of one member.")
    max_size: Size = Field(256 << 30, ge=1, description="The most bytes that may come out of one folder.")
    max_ratio: float = Field(
        100,
        ge=1,
        description="The most bytes that may come out of each byte of an archive, from 64 MiB on: more is a "
        "compression bomb.",
    )

    @field_validator("match", "members")
    @classmethod
    def _patterns(cls, value: list[str]) -> list[str]:
        for text in value:
            try:
                globs.compiled(text)
            except re.error as error:
                raise ValueError(f'"{text}" is not a pattern: {error}') from None
        return value

    @field_validator("prefix")
    @classmethod
    def _directory(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("write a directory inside the archive, such as data/")
        return value if not value or value.endswith("/") else f"{value}/"

    @field_validator("into")
    @classmethod
    def _below(cls, value: str) -> str:
        if value.startswith("/") or ".." in value.split("/"):
            raise ValueError("write a directory below the step's own, such as {stem}")
        return value.rstrip("/")

    @field_validator("checksums")
    @classmethod
    def _relative(cls, value: str) -> str:
        if value.startswith("/"):
            raise ValueError("write the member's name, such as checksum.md5")
        return value

    @model_validator(mode="after")
    def _whole(self) -> UnpackOptions:
        if self.checksums and self.unlisted == "skip":
            raise ValueError("checksums: the list names all members: unlisted: skip cannot stand beside it")
        return self

    def place_of(self, archive: bytes) -> bytes:
        """Return the directory that an archive's members go to, with its slash; b"" for the step's own.

        Raises: ValueError: the archive's name makes it another than one below that.
        """
        if not self.into:
            return b""
        values = placeholders.path_values(archive.decode("utf-8", "surrogateescape"))
        values["stem"] = _ENDINGS.sub("", values["file"])
        filled = placeholders.fill(self.into, values)
        if any(part in ("", ".", "..") for part in filled.split("/")):
            raise ValueError(filled)
        return filled.encode("utf-8", "surrogateescape") + b"/"


def decrypted_name(archive: bytes) -> bytes:
    """Return what a decrypted archive is called: its own file's name without `.gpg`, `.pgp` or `.asc`."""
    name = archive.rpartition(b"/")[2]
    return _ENCRYPTED.sub(b"", name) or name
