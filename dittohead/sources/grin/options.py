"""What a grin source may be told, and the words that it keeps volumes by."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from dittohead.contract import schedule
from dittohead.contract.board import Board
from dittohead.contract.options import Duration
from dittohead.contract.source import SourceOptions

#: The kind of its entries in the catalogue.
VOLUME = "volume"

#: What GRIN makes of a volume. Those in capitals in GRIN's own words are in docs/grin.md.
KNOWN = "known"  # in its list of all books; it has not said more
AVAILABLE = "available"  # may be converted
PREVIOUS = "previous"  # was converted once, and is not in the pool now
REQUESTED = "requested"  # asked for; GRIN has not listed it yet
IN_PROCESS = "in_process"
CONVERTED = "converted"  # its archive can be fetched now
FAILED = "failed"  # GRIN could not convert it
UNAVAILABLE = "unavailable"  # GRIN does not give it out
GONE = "gone"  # in none of GRIN's lists any more

#: What we make of it. "" is nothing: nobody asked for it.
WANTED = "wanted"
FETCHING = "fetching"  # the engine has it: to be fetched, or its folder is under way
BROKEN = "failed"  # the job of its folder has failed; retried, it is under way again
STORED = "stored"  # the job of its folder is done
ASIDE = "set_aside"  # not worked on any more, with the reason

#: Where volumes stand on the board before they are fetched.
BOARD = Board(
    key="barcode",
    columns={
        "available": frozenset(),
        "requested": frozenset({REQUESTED, IN_PROCESS}),
        "converted": frozenset({CONVERTED}),
    },
    wanted=WANTED,
    fetching=FETCHING,
    failed=BROKEN,
    aside=ASIDE,
)

#: Which volumes a queue holds, by what GRIN makes of them.
QUEUES = {"converted": CONVERTED, "previous": PREVIOUS, "unconverted": AVAILABLE}

#: GRIN's lists, and the parts of a row that a site may name.
LISTS = ("_all_books", "_available", "_in_process", "_converted", "_failed")

#: Characters of an address at most, with everything; public clients keep below 7,500.
URL_MOST = 7000

#: Ending of an archive's file name.
ENDING = ".tar.gz.gpg"

Queue = Literal["converted", "previous", "unconverted"]


def may_have_secrets(address: str) -> bool:
    """Tell whether a token may be sent to an address: encrypted, or to this machine. Raises: ValueError."""
    parts = urlsplit(address)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    return parts.scheme == "https" or (parts.scheme == "http" and local)


class GrinOptions(SourceOptions):
    """What a grin source may be told."""

    library: str = Field(description="The library's code at GRIN, with its capitals, such as `PRNC`.")
    client: str = Field(
        description="Name of the credential file with the OAuth client of an installed application, or the "
        "key of a service account: JSON, as Google gives it."
    )
    url: str = Field("https://books.google.com/libraries", description="Where GRIN is.")
    every: Duration = Field(900.0, gt=0, description="How often to read what is in process and converted.")
    redirect_port: int = Field(
        53682, ge=1024, le=65535, description="Port on this machine that the browser is led to after sign-in."
    )
    queues: list[Queue] = Field(
        default_factory=list,
        description="Volumes that are brought in without being asked for, in this order: `converted` now, "
        "`previous`ly converted, `unconverted`. Others by `dittohead source want`.",
    )
    limit: int = Field(
        1000,
        ge=1,
        description="Volumes that `queues` have under way at a time; more follow as they are stored.",
    )
    in_process: int = Field(
        5000, ge=1, le=50_000, description="Volumes that GRIN is to convert at the same time, at most."
    )
    batch: int = Field(100, ge=1, le=200, description="Volumes asked for in one request.")
    ask_by: Literal["post", "get"] = Field(
        "post", description="How conversions are asked for: in a request's body, or in its address."
    )
    rate: float = Field(4.0, gt=0, description="Requests a second for this library, at most, of all kinds.")
    connections: int = Field(6, ge=1, le=64, description="Requests at once for this library, at most.")
    downloads: int = Field(4, ge=1, le=32, description="Archives fetched at once, of those.")
    stall: Duration = Field(
        60.0,
        gt=0,
        description="A request that brings not a byte for this long is broken off, and goes on later.",
    )
    lists: Literal["text", "all", "html"] = Field(
        "text",
        description="How GRIN's lists are read: bare barcodes; lines with dates (`mode=all`); or the pages "
        "that people see, with dates and reasons.",
    )
    columns: dict[str, list[str]] = Field(
        default_factory=dict,
        description="With `lists: all`, which has no header: the columns of each list for this library, such "
        "as `{_all_books: [barcode, scanned, processed, analyzed, converted, ocrd, link]}`.",
    )
    details: bool = Field(
        True,
        description="Ask GRIN once for what it knows of each volume that is fetched or refused besides: "
        "viewability, conditions, rates of errors, the library's own key.",
    )
    page: int = Field(10_000, ge=1, le=50_000, description="Rows of one page, with `lists: html`.")
    full: str = Field(
        "0 3 * * 6", description="When all books are listed, as cron writes it; between, only what is new."
    )
    increment: Duration = Field(86_400.0, gt=0, description="How often books scanned lately are listed.")
    believed: float = Field(
        0.02,
        ge=0,
        le=1,
        description="The part of all books that may be missing from a list that came whole; if more are, "
        "none is marked as gone, and `dittohead source refresh NAME --accept` believes it.",
    )
    evictions: int = Field(
        5, ge=0, description="A volume that leaves the pool before it is fetched is asked for again so often."
    )
    refusals: int = Field(3, ge=1, description="A volume that GRIN refuses without a reason: tries at most.")

    @field_validator("library")
    @classmethod
    def _library(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", value):
            raise ValueError("a library's code has letters, digits, - and _ only, such as PRNC")
        return value

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        parts = urlsplit(value)
        if not may_have_secrets(value):
            raise ValueError("an address that begins with https:// is needed: a token goes there")
        if parts.username or parts.query or parts.fragment:
            raise ValueError("an address without a user, ? and # is needed")
        return value.rstrip("/")

    @field_validator("full")
    @classmethod
    def _full(cls, value: str) -> str:
        schedule.check(value)
        return value

    @field_validator("columns")
    @classmethod
    def _columns(cls, value: dict[str, list[str]]) -> dict[str, list[str]]:
        for name, columns in value.items():
            if name not in LISTS:
                raise ValueError(f'there is no list "{name}"; there are {", ".join(LISTS)}')
            if not {"barcode", "file"} & set(columns):
                raise ValueError(f"{name}: one of the columns must be barcode or file")
        return value

    @property
    def base(self) -> str:
        """Where the library's resources are."""
        return f"{self.url}/{self.library}"
