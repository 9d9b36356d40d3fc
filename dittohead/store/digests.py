"""Which jobs held a file of some digest: an index over the receipts, by the digest's first eight bytes.

Eight bytes of a SHA-256 tell files apart well enough to find a handful of jobs among millions; the receipt of
each holds the whole digest. A row has a quarter of the bytes that the digest as text would have.
"""

from __future__ import annotations

from collections.abc import Iterable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from dittohead.model.records import JobId

#: Rows written in one transaction; a folder of a million files must not hold the writer for seconds.
AT_ONCE = 5000

_HEAD = 16  # hexadecimal digits in eight bytes
_ADD = sa.text("INSERT INTO digests (head, job_id) VALUES (:head, :job) ON CONFLICT DO NOTHING")


def head(sha256: str) -> int:
    """Return the first eight bytes of a digest, given in hexadecimal, as databases count them: signed."""
    return _signed(int(sha256[:_HEAD], 16))


def _signed(number: int) -> int:
    return number - (1 << 64) if number >= 1 << 63 else number


def add(connection: Connection, job: JobId, heads: Iterable[int]) -> None:
    """Record that a job held files of these digests. Harmless to repeat."""
    rows = [{"head": head, "job": job} for head in heads]
    if rows:
        connection.execute(_ADD, rows)


def span(text: str) -> tuple[int, int]:
    """Return the least and the greatest head of digests that begin with this text."""
    begun = text[:_HEAD]
    return _signed(int(begun.ljust(_HEAD, "0"), 16)), _signed(int(begun.ljust(_HEAD, "f"), 16))
