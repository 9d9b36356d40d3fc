"""The site's regular expressions on names that others choose: Python's rules, within a bound of time.

Python's own `re` may take forever over one name (repeats inside repeats), holds the whole process
meanwhile, and nothing can end it. The library `regex` knows the same language, and gives up in time.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import regex

from dittohead.model.errors import ItemError

#: The longest one name may take, in seconds of the processor. A name of 255 letters takes microseconds.
MOST_S = 0.1

#: Names known to take too long, so that none is tried again and again.
_REMEMBERED = 1000

#: What `re` calls a letter of a word, and a space; `regex` follows Unicode's newer table, by which
#: the accents of decomposed letters are letters too: names would go another way than they did.
_WORD, _SPACE = r"\p{L}\p{N}_", r"\s\x1c-\x1f"
_ESCAPES = {
    "w": f"[{_WORD}]",
    "W": f"[^{_WORD}]",
    "s": f"[{_SPACE}]",
    "S": f"[^{_SPACE}]",
    "b": f"(?:(?<=[{_WORD}])(?![{_WORD}])|(?<![{_WORD}])(?=[{_WORD}]))",
    "B": f"(?:(?<=[{_WORD}])(?=[{_WORD}])|(?<![{_WORD}])(?![{_WORD}]))",
}
_IN_SET = {"w": _WORD, "s": _SPACE}

_REPEAT = re.compile(r"\{(\d*)(,?)(\d*)\}")


class TooSlow(ItemError):
    """A name over which a pattern takes too long."""

    first = True  #: it was not known before


class Pattern:
    """A regular expression as Python's `re` has it, that gives up on a name in time."""

    def __init__(self, pattern: str, flags: int = 0) -> None:
        """Compile it. Raises: re.error: it is none."""
        compiled = re.compile(pattern, flags)  # its grammar is what holds, and its words about mistakes
        self.pattern, self.groups = pattern, frozenset(compiled.groupindex)
        self._fast = regex.compile(_translated(pattern, compiled.flags), flags | regex.VERSION0)
        self._slow: dict[str, None] = {}

    def fullmatch(self, name: str) -> dict[str, str] | None:
        """Return the named groups ("" for one that takes no part), None where it does not fit the whole name.

        Raises: TooSlow.
        """
        known = name in self._slow
        try:
            if known:
                raise TimeoutError
            found: Any = self._fast.fullmatch(name, timeout=MOST_S)
        except (TimeoutError, MemoryError):
            if len(self._slow) < _REMEMBERED:
                self._slow[name] = None
            error = TooSlow(
                f"it takes too long to see whether the pattern {self.pattern} fits this name",
                where=name,
                hint="Rename it, or write the pattern without repeats inside repeats (see: `dittohead "
                "check`); then move it to the inbox again",
            )
            error.first = not known
            raise error from None
        return None if found is None else {key: value or "" for key, value in found.groupdict().items()}

    def is_in(self, text: str) -> bool:
        """Tell whether it fits some part of a text; one that takes too long does not."""
        try:
            return self._fast.search(text, timeout=MOST_S) is not None
        except (TimeoutError, MemoryError):
            return False

    def slow_name(self) -> str | None:
        """Return a name that it takes too long over, where one is found; does not take long itself."""
        for name in _awkward(self.pattern):
            try:
                self._fast.fullmatch(name, timeout=MOST_S)
            except (TimeoutError, MemoryError):
                return name
        return None


def _translated(pattern: str, flags: int) -> str:
    """Return the pattern for `regex`: what it would read in another way than `re` is written out."""
    ascii_only = bool(flags & re.ASCII)
    written, at, in_set = [], 0, False
    while at < len(pattern):
        piece = pattern[at : at + 2] if pattern[at] == "\\" else pattern[at]
        if piece == "\\N":
            piece = pattern[at : pattern.index("}", at) + 1]
            written.append(piece)
        elif piece[0] == "\\" and not ascii_only:
            written.append((_IN_SET if in_set else _ESCAPES).get(piece[1:], piece))
        elif in_set and piece in "[]":
            in_set = piece == "["
            written.append("\\[" if in_set else "]")
        elif piece == "[":
            in_set = True
            # A bracket that closes nothing yet is a character of the set.
            piece = next(start for start in ("[^]", "[]", "[^", "[") if pattern.startswith(start, at))
            written.append(piece)
        elif piece == "{" and not in_set:
            found = _REPEAT.match(pattern, at)
            piece = found[0] if found is not None and found[0] != "{}" else piece
            written.append(piece.replace("{,", "{0,") if len(piece) > 1 else "\\{")
        elif piece == "#" and flags & re.VERBOSE and not in_set:
            piece = pattern[at:].partition("\n")[0]
        else:
            written.append(piece)
        at += len(piece)
    return "".join(written)


def _awkward(pattern: str) -> Iterator[str]:
    """Yield names that nearly fit: what repeats, repeated often, and a character that does not fit."""
    items = list(re._parser.parse(pattern))  # type: ignore[attr-defined]  # Python's own reading of it
    samples = [_sample([item]) for item in items]
    for index, item in enumerate(items):
        before, after = "".join(samples[:index]), "".join(samples[index + 1 :])
        for body in set(_repeated([item])):
            if body:
                often = body * max(60 // len(body), 1)
                yield from (
                    before + often + more for more in ("", "!" + after, after + "!", "!" + body + after)
                )


def _repeated(items: Any) -> Iterator[str]:
    """Yield a sample of all that is repeated, at every depth."""
    for op, arg in items:
        if str(op).endswith("_REPEAT"):
            if arg[1] > 1:
                yield _sample(arg[2])
            yield from _repeated(arg[2])
        for inner in _inside(op, arg):
            yield from _repeated(inner)


def _inside(op: Any, arg: Any) -> Iterator[Any]:
    if str(op) == "SUBPATTERN":
        yield arg[-1]
    elif str(op) == "BRANCH":
        yield from arg[1]
    elif str(op) == "ATOMIC_GROUP":
        yield arg


def _sample(items: Any) -> str:
    """Return a short text that fits."""
    return "".join(_sample_of(str(op), op, arg) for op, arg in items)


def _sample_of(kind: str, op: Any, arg: Any) -> str:
    if kind == "LITERAL":
        return chr(arg)
    if kind == "RANGE":
        return chr(arg[0])
    if kind == "IN":
        return _sample(arg[:1])
    if kind == "CATEGORY":
        return "0" if "DIGIT" in str(arg) else " " if "SPACE" in str(arg) else "a"
    if kind.endswith("_REPEAT"):
        return _sample(arg[2]) * max(int(arg[0]), 1)
    if kind in ("ANY", "NOT_LITERAL", "NEGATE"):
        return "x"
    return next((_sample(inner) for inner in _inside(op, arg)), "")
