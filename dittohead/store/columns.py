"""The types of columns: a value that nobody could have written is read as a harmless one, and noticed.

SQLite keeps anything in any column, and a disk, an editor or another program may have put it there. Who
reads a row is to get what it can work with: one damaged value is to end what rests on it, and no list, no
search and no start. Which row it is, `damage.damaged_rows` finds out by the same rules, in SQL.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy import JSON, Double, Integer, LargeBinary, Text, TypeDecorator
from sqlalchemy.engine import Dialect

from dittohead.model.definition import (
    Failure,
    JobDefinition,
    Refusal,
    StepTotals,
    read_definition,
    read_failure,
    read_totals,
)
from dittohead.model.errors import storable

#: Moments that a date can stand for. Source: Python, datetime.MINYEAR and MAXYEAR.
FIRST, LAST = -62_135_596_800.0, 253_402_300_799.0

#: Bytes of a name at most. Source: Linux, NAME_MAX.
_NAME_MOST = 255

_Process = Callable[[Any], Any]


class Met:
    """Whether a damaged value was read since somebody looked for such."""

    def __init__(self) -> None:
        self.any = False

    def take(self) -> bool:
        """Return it, and begin again."""
        found, self.any = self.any, False
        return found


MET = Met()


class DamagedJson(dict[str, Any]):
    """What stands for a JSON value that cannot be read."""


def _wrong_type(column: Any, *kinds: str) -> sa.ColumnElement[bool]:
    return sa.func.typeof(column).not_in([*kinds, "null"])


class _Checked(TypeDecorator[Any]):
    """A column's value as it should be, or what stands for one that is not."""

    cache_ok = True
    impl: Any = Text

    @property
    def quick(self) -> type[Any] | None:
        """The type of which every value is right: each column of each row comes through here."""
        return None

    def result_processor(self, dialect: Dialect, coltype: Any) -> _Process:
        """Return what turns what the database gives into a value as it should be."""
        process = self.impl_instance.result_processor(dialect, coltype)
        quick, read = self.quick, self.read

        def checked(value: Any) -> Any:
            if value is None or type(value) is quick:
                return value
            found = read(value if process is None else process(value))
            if found is not _WRONG:
                return found
            MET.any = True
            return self.instead_of(value)

        return checked

    def read(self, value: Any) -> Any:
        """Return a value, or that it is wrong."""
        raise NotImplementedError

    def instead_of(self, value: Any) -> Any:
        """Return what stands for a wrong one."""
        raise NotImplementedError

    def wrong(self, column: Any) -> sa.ColumnElement[bool]:
        """Return the condition, on SQLite, for a wrong one."""
        raise NotImplementedError


_WRONG = object()


class Moment(_Checked):
    """Seconds since the epoch, UTC, as doubles: SQLite has no type for moments, and both order doubles alike.

    Args:
        instead: what stands for nonsense.
    """

    cache_ok = True
    impl = Double

    def __init__(self, instead: float | None = None) -> None:
        super().__init__()
        self.instead = instead

    def read(self, value: Any) -> Any:
        good = isinstance(value, float | int) and FIRST <= value <= LAST
        return float(value) if good else _WRONG

    def instead_of(self, value: Any) -> Any:
        return self.instead

    def wrong(self, column: Any) -> sa.ColumnElement[bool]:
        return sa.or_(_wrong_type(column, "real", "integer"), column < FIRST, column > LAST)


class Whole(_Checked):
    """A whole number; also the sum of some, which PostgreSQL gives as a decimal."""

    cache_ok = True
    impl = Integer

    def __init__(self, impl: Any = Integer) -> None:
        super().__init__()
        self.impl = impl()

    @property
    def quick(self) -> type[Any] | None:
        return int

    def read(self, value: Any) -> Any:
        if isinstance(value, int | Decimal):
            return value
        return int(value) if isinstance(value, float) and math.isfinite(value) else _WRONG

    def instead_of(self, value: Any) -> Any:
        return 0

    def wrong(self, column: Any) -> sa.ColumnElement[bool]:
        return _wrong_type(column, "integer")


class Id(TypeDecorator[str]):
    """A key; nobody reads another in its place."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Return what the database is given."""
        return None if value is None else storable(value)


class Word(_Checked):
    """Text; what is not a character in it is stored as its escape: it would end the transaction.

    Args:
        known: where it is one of a few words, those; the first stands for any other.
    """

    cache_ok = True
    impl = Text

    def __init__(self, length: int | None = None, known: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.length, self.known = length, known
        kind: Any = sa.String(length) if length else Text()
        self.impl = kind

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Return what the database is given."""
        return storable(value) if isinstance(value, str) else value

    @property
    def quick(self) -> type[Any] | None:
        return None if self.known else str

    def read(self, value: Any) -> Any:
        return value if isinstance(value, str) and (not self.known or value in self.known) else _WRONG

    def instead_of(self, value: Any) -> Any:
        if self.known:
            return self.known[0]
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

    def wrong(self, column: Any) -> sa.ColumnElement[bool]:
        wrong = _wrong_type(column, "text")
        return sa.or_(wrong, column.not_in(self.known)) if self.known else wrong


class Plain(Word):
    """A word that becomes part of a path: the name of a step, or of a folder."""

    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__(length)

    @property
    def quick(self) -> type[Any] | None:
        return None

    def read(self, value: Any) -> Any:
        return value if isinstance(value, str) and _is_plain(value.encode("utf-8", "replace")) else _WRONG

    def instead_of(self, value: Any) -> Any:
        return "damaged"

    def wrong(self, column: Any) -> sa.ColumnElement[bool]:
        return sa.or_(super().wrong(column), _not_plain(column))


def _is_plain(name: bytes) -> bool:
    return name not in (b"", b".", b"..") and not {*b"/\0"} & {*name} and len(name) <= _NAME_MOST


def _is_folder(path: bytes) -> bool:
    return path.count(b"/") <= 1 and all(_is_plain(name) for name in path.split(b"/"))


def _no_folder(column: Any) -> sa.ColumnElement[bool]:
    """Return the condition for what `_is_folder` refuses, where there is a slash by its two parts."""
    slash = sa.func.instr(column, sa.text("x'2f'"))
    head, tail = sa.func.substr(column, 1, slash - 1), sa.func.substr(column, slash + 1)
    return sa.case((slash > 0, sa.or_(_not_plain(head), _not_plain(tail))), else_=_not_plain(column))


def _not_plain(column: Any) -> sa.ColumnElement[bool]:
    odd = [sa.func.instr(column, part) > 0 for part in (sa.text("x'2f'"), sa.text("x'00'"))]
    text = sa.cast(column, Text)
    length = sa.func.length(sa.cast(column, LargeBinary))
    return sa.or_(text.in_(["", ".", ".."]), length > _NAME_MOST, length == 0, *odd)


class Digits(_Checked):
    """A number that may need all 64 bits, as text.

    Args:
        empty: whether there may be none yet, as "".
    """

    cache_ok = True
    impl = Text

    def __init__(self, *, empty: bool = False) -> None:
        super().__init__()
        self.empty = empty

    def read(self, value: Any) -> Any:
        if isinstance(value, str) and value.isascii() and value.isdecimal():
            return value
        return value if self.empty and value == "" else _WRONG

    def instead_of(self, value: Any) -> Any:
        return "" if self.empty else "0"

    def wrong(self, column: Any) -> sa.ColumnElement[bool]:
        none = sa.false() if self.empty else column == ""
        return sa.or_(_wrong_type(column, "text"), column.op("GLOB")("*[^0-9]*"), none)


class FolderPath(_Checked):
    """A folder's path below its station, as the kernel gives it: NAME, or COLLECTION/NAME."""

    cache_ok = True
    impl = LargeBinary

    def read(self, value: Any) -> Any:
        good = isinstance(value, bytes | memoryview) and _is_folder(bytes(value))
        return bytes(value) if good else _WRONG

    def instead_of(self, value: Any) -> Any:
        return b".damaged"  # no folder of a station begins with a dot

    def wrong(self, column: Any) -> sa.ColumnElement[bool]:
        return sa.or_(_wrong_type(column, "blob"), _no_folder(column))


@dataclass(frozen=True)
class Shape:
    """How a dataclass stands in a column of JSON."""

    read: Callable[[Any], Any]  #: raises TypeError, KeyError, AttributeError or ValueError for what is wrong
    instead: Any  #: what stands for a value that is wrong


class Json(TypeDecorator[Any]):
    """JSON; a damaged value is an empty one: it ends what needs it, and not all that is read with it.

    Args:
        kind: what it is to be, "object" or "array".
        shape: what a value is, where it is more than JSON.
    """

    impl = JSON
    cache_ok = True

    def __init__(
        self, kind: str = "object", shape: Shape | None = None, *, none_as_null: bool = False
    ) -> None:
        super().__init__(none_as_null=none_as_null)
        self.kind, self.shape, self.none_as_null = kind, shape, none_as_null

    def bind_processor(self, dialect: Dialect) -> _Process | None:
        """Return what turns a value into what the database is given."""
        process = super().bind_processor(dialect)

        def write(value: Any) -> Any:
            plain = value.as_dict() if self.shape is not None and hasattr(value, "as_dict") else value
            return plain if process is None else process(plain)

        return write

    def result_processor(self, dialect: Dialect, coltype: Any) -> _Process | None:
        """Return what turns what the database gives into a value."""
        process = super().result_processor(dialect, coltype)
        kind: type[Any] = list if self.kind == "array" else dict

        def read(value: Any) -> Any:
            found = None
            try:
                found = value if process is None else process(value)
                if value is None or (found is None and self.none_as_null):
                    return None
                good = isinstance(found, kind)
            except (ValueError, TypeError, RecursionError):
                good = False
            if good and self.shape is None:
                return found
            with contextlib.suppress(TypeError, KeyError, AttributeError, ValueError):
                if good and self.shape is not None:
                    return self.shape.read(found)
            MET.any = True
            if self.shape is not None:
                return self.shape.instead
            return [] if self.kind == "array" else DamagedJson()

        return read

    def wrong(self, column: Any) -> sa.ColumnElement[bool]:
        """Return the condition, on SQLite, for a wrong one."""
        text = sa.cast(column, Text)
        valid = sa.and_(sa.func.typeof(column) == "text", sa.func.json_valid(text) == 1)
        kinds = [self.kind, *(["null"] if self.none_as_null else [])]
        kind = sa.case((valid, sa.func.json_type(text)), else_="wrong")
        wrong: sa.ColumnElement[bool] = kind.not_in(kinds)
        if self.shape is DEFINITION:
            steps = sa.case((valid, sa.func.json_type(text, "$.steps")), else_="array")
            wrong = sa.or_(wrong, sa.func.coalesce(steps, "wrong") != "array")
        return sa.and_(column.is_not(None), wrong)


class Facts(Json):
    """JSON that the database looks into: PostgreSQL refuses all of it for one invalid character.

    Elsewhere such text comes back as it was: a path that is not UTF-8 is to be found again by it.
    """

    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Return what the database is given."""
        return _storable(value)


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {_storable(key): _storable(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(inner) for inner in value]
    return value


#: A pipeline as it was at a claim; where it cannot be read, one that refuses the folder.
DEFINITION = Shape(
    read_definition,
    JobDefinition(
        refusal=Refusal(
            what="what was to be done with the folder cannot be read: its row in the store is damaged",
            where="state/",
            hint="The folder is as it was. Move it to the inbox again, to run by the current configuration",
        )
    ),
)

#: Why a job has failed.
FAILURE = Shape(read_failure, Failure(what="why it failed cannot be read any more"))

#: What a step that is done has come to.
TOTALS = Shape(read_totals, StepTotals())
