"""Patterns for names as shells have them: `*` within a directory, `**` across directories, `?`, `[a-z]`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dittohead.system.patterns import Pattern

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[!?\]?[^\]/]*\]|.", re.DOTALL)
_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def compiled(glob: str, *, caseless: bool = False) -> Pattern:
    """Return what tells whether a whole path fits. Raises: re.error: its set of characters is not valid."""
    return Pattern("".join(map(_piece, _TOKEN.findall(glob))), re.DOTALL | (re.IGNORECASE if caseless else 0))


def _piece(token: str) -> str:
    if len(token) > 2 and token[0] == "[":
        inner = token[1:-1].replace("\\", "\\\\").replace("[", "\\[")
        inner = f"^{inner[1:]}" if inner[0] == "!" else inner.replace("^", "\\^", 1)
        return f"(?!/)[{inner}]"
    return _MEANING.get(token) or re.escape(token)


class Globs:
    """Several patterns, of which one is to fit."""

    def __init__(self, globs: Sequence[str], *, caseless: bool = False) -> None:
        self._patterns = [(compiled(glob, caseless=caseless), "/" in glob) for glob in globs]

    def fit_path(self, path: bytes) -> bool:
        """Tell whether one fits the whole path. Raises: TooSlow."""
        text = path.decode("utf-8", "surrogateescape")
        return any(pattern.fullmatch(text) is not None for pattern, _ in self._patterns)

    def fit_file(self, path: bytes) -> bool:
        """Tell whether one fits: one without `/` the file's name, another the whole path. Raises: TooSlow."""
        text = path.decode("utf-8", "surrogateescape")
        name = text.rpartition("/")[2]
        return any(
            pattern.fullmatch(text if whole else name) is not None for pattern, whole in self._patterns
        )
