"""What commands print, and how: for a terminal with colours, for programs whole lines or JSON."""

from __future__ import annotations

import json
import sys
from typing import Any, NoReturn

import click
from rich.console import Console
from rich.markup import escape as markup


class _Console(Console):
    """Leaves it to `Group` what is done when nobody reads on."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


# Where it is not a terminal, lines are for programs: never cut or wrapped.
# No emoji: a name may hold `:x:`, as URNs do.
out = _Console(emoji=False, highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)
err = Console(emoji=False, stderr=True, highlight=False, soft_wrap=True)


def fail(message: str, status: int) -> NoReturn:
    """Print an error and leave with a sysexits status."""
    for line in message.splitlines():
        err.print(f"[red]error:[/red] {escape(line)}")
    sys.exit(status)


def escape(text: str) -> str:
    """Return text from outside for a terminal: no markup, no control characters."""
    return markup("".join(c if c.isprintable() or c == " " else repr(c)[1:-1] for c in text))


def print_json(value: Any) -> None:
    """Print JSON, indented for people and still one document for programs."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))
