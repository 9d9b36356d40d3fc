"""Commands to look on: logs, and status as it changes."""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Callable, Iterable, Iterator
from io import StringIO

import click
from rich.console import Console

from dittohead.cli.base import UNAVAILABLE, with_config
from dittohead.cli.terminal import escape, fail, out
from dittohead.cli.view import View, viewing
from dittohead.model.states import TERMINAL

#: Seconds between two looks.
_TURN_S = 0.2
_SHOW_S = 1.0

#: Characters of a line that are held until its end comes.
_LONGEST = 1_000_000

_UTF8 = codecs.getincrementaldecoder("utf-8")  # a piece may end within a character


@click.command()
@with_config
@click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line: step and line.")
@click.argument("job")
@click.option("--step", help="Of this step only.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the job has ended.")
def logs(as_json: bool, job: str, step: str | None, follow: bool) -> None:
    """Show what the programs of a job's steps have printed, such as rsync's own words.

    It is kept as long as the job's work is. What the daemon itself says is in its journal. With --json a
    line of more than a million characters comes in several; what is not UTF-8 is replaced.
    """
    with viewing() as view:
        found = view.job(job)
        names = [row["name"] for row in found["all_steps"]]
        if step is not None and step not in names:
            raise click.UsageError(f"{found['name']} has no step {step}; there are: {', '.join(names)}")
        shown = _Logs(view, found["id"], [step] if step is not None else names)
        pieces = shown.until(lambda: not follow or view.summary(found["id"])["state"] in TERMINAL)
        if as_json:
            for name, line in _whole_lines(pieces):
                click.echo(json.dumps({"step": name, "line": line}, ensure_ascii=False))
        else:
            for text in _headed(pieces):
                out.print(text, end="")
    if not shown.any:
        fail(f"nothing that the steps of {found['name']} printed is kept", UNAVAILABLE)


class _Logs:
    """What has been printed so far of some steps' logs."""

    def __init__(self, view: View, job: str, steps: list[str]) -> None:
        self._view, self._job = view, job
        self._read = dict.fromkeys(steps, 0)
        self._decoders = {name: _UTF8(errors="replace") for name in steps}
        self.any = False

    def until(self, over: Callable[[], bool]) -> Iterator[tuple[str, str]]:
        """Yield (step, text) as it comes; to the end once it has ended."""
        while True:
            last = over()  # before reading: what comes until then is read
            for name in self._read:
                for piece in self._new(name):
                    self.any = True
                    yield name, self._decoders[name].decode(piece)
            if last:
                return
            time.sleep(_TURN_S)

    def _new(self, name: str) -> Iterator[bytes]:
        for piece in self._view.log(self._job, name, self._read[name]):
            self._read[name] += len(piece)
            yield piece


def _headed(pieces: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield text for a terminal, with a line for the step it is of."""
    last = ""
    for name, text in pieces:
        if name != last:
            yield f"[bold]{escape(name)}[/bold]\n"
            last = name
        yield _lines(text)


def _whole_lines(pieces: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield (step, line) without the line's end; what has none comes last."""
    begun: dict[str, str] = {}
    for name, text in pieces:
        *lines, rest = (begun.get(name, "") + text).split("\n")
        yield from ((name, line) for line in lines)
        while len(rest) >= _LONGEST:
            yield name, rest[:_LONGEST]
            rest = rest[_LONGEST:]
        begun[name] = rest
    yield from ((name, rest) for name, rest in begun.items() if rest)


def _lines(text: str) -> str:
    """Return what a program printed, for a terminal: only its line breaks are obeyed."""
    return "\n".join(escape(line) for line in text.split("\n"))


def keep_showing(show: Callable[[Console], None]) -> None:
    """Draw again and again until interrupted, in place, at the terminal's present size."""
    if not out.is_terminal:
        raise click.UsageError("--watch needs a terminal; for programs there is --json")
    from rich.live import Live
    from rich.text import Text

    with Live(console=out, auto_refresh=False, transient=False, vertical_overflow="crop") as live:
        while True:
            drawn = StringIO()
            show(
                Console(
                    file=drawn,
                    emoji=False,
                    force_terminal=True,
                    width=out.width,
                    highlight=False,
                    no_color=out.no_color,
                )
            )
            live.update(Text.from_ansi(drawn.getvalue()), refresh=True)
            time.sleep(_SHOW_S)


COMMANDS = (logs,)
