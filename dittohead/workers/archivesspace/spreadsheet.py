"""A folder's list of objects, as spreadsheet programs write it: its rows, and names as people see them."""

from __future__ import annotations

import codecs
import csv
import io
import re
import unicodedata
from collections.abc import Callable, Collection, Iterator

#: What separates columns: RFC 4180, and what spreadsheets write where a comma is the decimal mark.
_SEPARATORS = (",", ";", "\t")

#: A first line with which Excel says what separates columns.
_SAYS = re.compile(r"sep=([,;\t])\r?\n")


class UnreadableSheet(ValueError):
    """It is not such a list; the words say why."""


def rows(data: bytes, wanted: Collection[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line it begins in, from 1; {column: text}) of each row, for the columns wanted.

    UTF-8, or UTF-16 with its mark; commas, semicolons or tabs; columns by name, in capitals or not.

    Raises: Unreadable.
    """
    text = _text(data)
    first = 1
    if said := _SAYS.match(text):
        text, first = text[said.end() :], 2
    separators = said[1] if said else _SEPARATORS
    lacks = ""
    for separator in separators:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        at = first
        try:
            names = [name.strip().casefold() for name in next(reader, [])]
            places = {one: names.index(one.casefold()) for one in wanted if one.casefold() in names}
            twice = [one for one in wanted if names.count(one.casefold()) > 1]
            if twice:
                raise UnreadableSheet(f"its first line names the column {twice[0]} twice")
            if len(places) < len(wanted):
                lacks = lacks or text.partition("\n")[0].strip()[:80]
                continue
            at = first + reader.line_num
            for row in reader:
                yield at, {one: row[place] if place < len(row) else "" for one, place in places.items()}
                at = first + reader.line_num
        except csv.Error as error:
            raise UnreadableSheet(f"line {at}: {error}") from None
        return
    raise UnreadableSheet(f'its first line must name the columns {" and ".join(wanted)}; it is "{lacks}"')


def _text(data: bytes) -> str:
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableSheet("it is not UTF-8; save it as CSV UTF-8") from None


class Present:
    """The names of files that are there."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = frozenset(names)
        self._same = _by(names, lambda name: unicodedata.normalize("NFC", name))
        self._alike = _by(names, _seen)

    def meant(self, listed: str) -> str | None:
        """Return the file that a listed name means: that, or one in another normal form; None for none."""
        if listed in self._names:
            return listed
        for name in (listed, listed.replace("\\", "/").removeprefix("./")):
            found = self._same.get(unicodedata.normalize("NFC", name), [])
            if len(found) == 1:
                return found[0]
        return None

    def missing(self, listed: str) -> str:
        """Return a name that is not there, beside the one that may be meant, told apart for the eye."""
        like = self._alike.get(_seen(listed), [])
        return f"{shown(listed)} (the folder holds {shown(like[0])})" if like else shown(listed)


def _by(names: Collection[str], key: Callable[[str], str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(key(name), []).append(name)
    return found


def _seen(name: str) -> str:
    """Return a name as it looks: without capitals, forms of characters, and kinds of blanks."""
    plain = unicodedata.normalize("NFKC", name.replace("\\", "/")).casefold()
    return " ".join("".join(c for c in plain if unicodedata.category(c) != "Cf").split())


def shown(name: str) -> str:
    """Return a name in which what the eye would miss is written as its code."""
    odd = {
        c for c in name if not c.isprintable() or (unicodedata.category(c) in ("Zs", "Mn", "Cf") and c != " ")
    }
    text = "".join(f"<U+{ord(c):04X}>" if c in odd and not "\udc80" <= c <= "\udcff" else c for c in name)
    return f'"{text}"' if text != text.strip() or "  " in text else text
