"""What a google-books step may be told."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from dittohead.contract.worker import Options

#: What a page may lack.
Lack = Literal["no-text", "no-hocr", "empty-text", "empty-hocr"]


class GoogleBooksOptions(Options):
    """What a google-books step may be told."""

    barcode: str = Field(
        "",
        description="The volume's barcode, such as a group of the pipeline's `match`; by default the "
        "folder's name. It must be the one in the METS file; a library's prefix (`LIB_`) may stand before "
        "it.",
    )
    checksums: str = Field(
        "checksum.md5", description="The volume's own list of the MD5 of each of its files."
    )
    tolerate: list[Lack] = Field(
        ["empty-text"],
        description="What a page may lack; it is counted in the receipt. A blank page has an empty text, "
        "and some old volumes have no hOCR at all.",
    )
    ocr: Literal["objects", "strings", "none"] = Field(
        "objects",
        description="How the text is written into `BARCODE_ocr.jsonl`, a line for each page: objects with "
        "`page` and `text`, the texts alone as JSON strings, or not at all.",
    )

    @field_validator("barcode")
    @classmethod
    def _part(cls, value: str) -> str:
        if "/" in value:
            raise ValueError("write a barcode, or a group of match such as {barcode}")
        return value

    @field_validator("checksums")
    @classmethod
    def _name(cls, value: str) -> str:
        if not value or "/" in value:
            raise ValueError("write a file's name without a directory, such as checksum.md5")
        return value
