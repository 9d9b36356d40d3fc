"""Commands on what a source knows of the remote system: show, want, hold, check, authorize, audit."""

from __future__ import annotations

import csv
import itertools
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import click

from dittohead.cli.base import DATA, json_option, with_config
from dittohead.cli.jobs import ask, asked
from dittohead.cli.terminal import escape, fail, out, print_json
from dittohead.cli.view import viewing
from dittohead.model.shown import ShownEntry
from dittohead.model.text import counted, visible

#: Keys handed to the daemon at once: a request is a row of its store.
_AT_ONCE = 500

_COLUMNS = ("key", "state", "stage", "reason", "priority", "first_at", "changed_at")


def print_entries(name: str, state: str, stage: str | None, *, as_json: bool, as_csv: bool) -> None:
    """Print a source's catalogue, as it comes: it may have millions of entries.

    Args:
        name: the source's name.
        state: only entries in this state; "" for all.
        stage: only entries in this stage; "" for those without one, None for all.
        as_json: print one JSON array.
        as_csv: print CSV with a head; goes before `as_json`.

    Raises: NoSuchJob: there is no such source.
    """
    with viewing() as view:
        found = view.entries(name, state, stage)
        if as_csv:
            _write_csv(found)
        elif as_json:
            for piece in _json_pieces(found):
                sys.stdout.write(piece)
        else:
            for one in found:
                said = f"  {one['reason']}" if one["reason"] else ""
                where = one["state"] + (f", {one['stage']}" if one["stage"] else "")
                out.print(f"{escape(one['key'])}  {escape(where)}{escape(said)}", soft_wrap=True)


def _json_pieces(found: Iterable[ShownEntry]) -> Iterator[str]:
    """Yield an array, an element a line."""
    yield "["
    for number, one in enumerate(found):
        yield ("," if number else "") + "\n " + json.dumps(one, ensure_ascii=False)
    yield "\n]\n"


def _write_csv(found: Iterable[ShownEntry]) -> None:
    """Write a table; cells that a spreadsheet would treat as a formula are made text."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow((*_COLUMNS, "attributes"))
    for one in found:
        cells = [cast(Mapping[str, Any], one)[column] for column in _COLUMNS]
        attributes = json.dumps(one["attributes"], ensure_ascii=False)
        writer.writerow([_cell(cell) for cell in (*cells, attributes)])


def _cell(value: Any) -> Any:
    # Source: OWASP, "CSV Injection".
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


@click.command()
@with_config
@json_option
@click.argument("name")
@click.argument("key")
def show(as_json: bool, name: str, key: str) -> None:
    """Show one entry of a source's catalogue: its state upstream, its stage here, all its history."""
    with viewing() as view:
        found = view.entry(name, key)
    if as_json:
        print_json(found)
        return
    out.print(f"[bold]{escape(found['key'])}[/bold]  {escape(found['state'])}  {escape(found['stage'])}")
    if found["reason"]:
        out.print(f"  {escape(found['reason'])}")
    for label, value in found["attributes"].items():
        if isinstance(value, dict):
            out.print(f"  {escape(label)}:")
            for name, said in value.items():
                out.print(f"    {escape(name)}: {escape(str(said))}")
        else:
            out.print(f"  {escape(label)}: {escape(str(value))}")
    out.print(f"  known since {found['first_at']}")
    for change in found["history"]:
        where = change["state"] + (f", {change['stage']}" if change["stage"] else "")
        out.print(f"  {change['at']}  {escape(where)}  {escape(change['reason'])}  ({escape(change['by'])})")


#: A file of keys, beside those that are typed.
_keys_from_file = click.option(
    "--file",
    "files",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    multiple=True,
    help="A file of them, one a line.",
)


@click.command()
@with_config
@click.argument("name")
@click.argument("keys", nargs=-1)
@_keys_from_file
@click.option("--queue", default="", help="All of a queue of the source's, such as converted.")
@click.option(
    "--changed", is_flag=True, help="Those that are stored, where the remote system has another version."
)
@click.option("--sample", type=click.IntRange(min=1), help="So many of the queue, by chance.")
@click.option("--limit", type=click.IntRange(min=1), help="So many at most.")
@click.option(
    "--priority", type=click.IntRange(-1000, 1000), default=0, help="Higher comes first; 0 is usual."
)
@click.option(
    "--again",
    is_flag=True,
    help="Also what the remote system refused before; what is stored or has failed here is fetched again.",
)
@click.option("--dry-run", is_flag=True, help="Only say how many it would be.")
def want(name: str, keys: tuple[str, ...], files: tuple[Path, ...], **given: Any) -> None:
    """Say what a source is to bring in: by name, from a file, or of a queue."""
    named = _named(keys, files)
    if bool(named) == bool(given["queue"] or given["changed"]):
        raise click.UsageError("give names, --file, --queue or --changed")
    args = {key: value for key, value in given.items() if value}
    _tell(name, "want", named, args)


@click.command()
@with_config
@click.argument("name")
@click.argument("keys", nargs=-1)
@_keys_from_file
@click.option("--dry-run", is_flag=True, help="Only say how many it would be.")
def unwant(name: str, keys: tuple[str, ...], files: tuple[Path, ...], dry_run: bool) -> None:
    """Take back a wish, where nothing has begun."""
    named = _given(keys, files)
    _tell(name, "unwant", named, {"dry_run": True} if dry_run else {})


@click.command()
@with_config
@click.argument("name")
@click.option("--accept", is_flag=True, help="And believe that what is not listed any more is gone.")
def refresh(name: str, accept: bool) -> None:
    """Have a source list all of the remote system now, whatever its schedule says."""
    _tell(name, "refresh", (), {"accept": True} if accept else {})
    ask("sync", (name,), prefix="")


def _tell(name: str, command: str, keys: Sequence[str], args: dict[str, Any]) -> None:
    if not keys:
        ask("source-tell", (name,), command=command, args=args)
    limit = args.get("limit")
    for begin in range(0, min(len(keys), limit or len(keys)), _AT_ONCE):
        part = list(itertools.islice(keys, begin, min(begin + _AT_ONCE, limit or len(keys))))
        ask("source-tell", (name,), command=command, args={**args, "keys": part})


def _named(keys: Sequence[str], files: Sequence[Path]) -> list[str]:
    """Return the keys that are given, and those in files: one a line, or the first cell of a table."""
    found = [key.strip() for key in keys]
    for path in files:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            fail(f"{visible(str(path))}: this is not text in UTF-8", DATA)
        found += [line.replace(",", "\t").split("\t")[0].strip().strip('"') for line in text.splitlines()]
    return [key for key in dict.fromkeys(found) if key]


def _given(keys: Sequence[str], files: Sequence[Path]) -> list[str]:
    """Return the keys as `_named` does, of which there must be some. Raises: click.UsageError."""
    named = _named(keys, files)
    if not named:
        raise click.UsageError("give names, or --file")
    return named


@click.command()
@with_config
@click.argument("name")
@click.argument("keys", nargs=-1)
@_keys_from_file
def hold(name: str, keys: tuple[str, ...], files: tuple[Path, ...]) -> None:
    """Hold what a source has on its way, until it is let go on: nothing of it is asked for or fetched."""
    _on_board(name, "source-hold", keys, files)


@click.command()
@with_config
@click.argument("name")
@click.argument("keys", nargs=-1)
@_keys_from_file
def thaw(name: str, keys: tuple[str, ...], files: tuple[Path, ...]) -> None:
    """Let go on what was held."""
    _on_board(name, "source-thaw", keys, files)


@click.command()
@with_config
@click.argument("name")
@click.argument("keys", nargs=-1)
@_keys_from_file
def refetch(name: str, keys: tuple[str, ...], files: tuple[Path, ...]) -> None:
    """Bring something in once more, whether it has changed or not."""
    _on_board(name, "source-refetch", keys, files)


def _on_board(name: str, action: str, keys: tuple[str, ...], files: tuple[Path, ...]) -> None:
    named = _given(keys, files)
    for begin in range(0, len(named), _AT_ONCE):
        ask(action, (name,), keys=named[begin : begin + _AT_ONCE])


@click.command()
@with_config
@json_option
@click.argument("name")
@click.option("--repair", is_flag=True, help="Make the board and the disk say what the store says.")
def check(as_json: bool, name: str, repair: bool) -> None:
    """Say where the store, the board and the disk of a source disagree.

    It ends with status 65 where something does, and was not repaired.
    """
    found: list[dict[str, str]] = json.loads(asked("source-check", name, repair=repair))
    left = [one for one in found if not one["done"]]
    if as_json:
        print_json(found)
    else:
        for one in found:
            done = f" [green]{escape(one['done'])}[/green]" if one["done"] else ""
            said = f"{escape(one['what'])}: {escape(one['why'])}"
            out.print(f"[yellow]{one['kind']}[/yellow] {said}{done}", soft_wrap=True)
        repaired = len(found) - len(left)
        said = f"{counted(len(left), 'difference')} left" + (f", {repaired:,} repaired" if repaired else "")
        out.print(said if found else "store, board and disk agree")
    if left:
        raise click.exceptions.Exit(DATA)


class Terminal:
    """The person at this terminal."""

    def say(self, text: str) -> None:
        """Show a line, whole: an address is to be copied."""
        out.print(escape(text), soft_wrap=True)

    async def ask(self, text: str) -> str:
        """Ask for a line, and wait for it without a thread: one that reads cannot be ended."""
        self.say(text)
        import asyncio  # no command that only asks needs it

        loop = asyncio.get_running_loop()
        ready, found = asyncio.Event(), bytearray()
        try:
            loop.add_reader(0, ready.set)
        except OSError as error:  # a file, of which nobody types another line
            raise EOFError from error
        try:
            while not found.endswith(b"\n"):
                await ready.wait()
                ready.clear()
                piece = os.read(0, 4096)
                if not piece:
                    raise EOFError
                found += piece
        finally:
            loop.remove_reader(0)
        return found.decode("utf-8", "replace").strip()


@click.command()
@with_config
@click.argument("name")
def authorize(name: str) -> None:
    """Sign a source in: open the address that is shown in a browser, and consent.

    Run it as the daemon's user. Over ssh, forward the port that is named, or paste the address of the page
    that the browser could not open.
    """
    from dittohead.cli.source_rounds import authorized

    out.print(escape(authorized(name, Terminal())))


@click.command()
@with_config
@json_option
@click.argument("name")
@click.option("--against", default="", metavar="s3://BUCKET/PREFIX", help="Also compare with a bucket.")
@click.option("--endpoint-url", default="", help="Address of a store that is not Amazon's.")
@click.option("--credentials", default="", help="Name of the credential file for the bucket.")
@click.option("--read", is_flag=True, help="Read each object, whole, and compare its SHA-256.")
def audit(as_json: bool, name: str, against: str, endpoint_url: str, credentials: str, read: bool) -> None:
    """Compare what a source says is stored with the receipts, and with a bucket.

    Of each object its size is compared, and its checksum where the store keeps one. Run it as the daemon's
    user. It ends with status 65 where something is missing, surplus or changed.
    """
    from dittohead.cli.audit import audited

    if read and not against:
        raise click.UsageError("--read goes with --against")
    found = audited(name, against, endpoint_url, credentials, read=read)
    if as_json:
        print_json(found)
    else:
        _print_audit(found)
    if found["wrong"]:
        raise click.exceptions.Exit(DATA)


def _print_audit(found: dict[str, Any]) -> None:
    from dittohead.admin.audit import findings

    for kind, what, why in findings(found):
        out.print(f"[red]{kind}[/red] {escape(what)}: {escape(why)}", soft_wrap=True)
    counts = ", ".join(f"{count:,} {kind}" for kind, count in found["counts"].items())
    said = f"{found['stored']:,} stored, {found['objects']:,} objects as their receipts say"
    out.print(f"{said}; {counts if found['wrong'] else 'nothing is missing, surplus or changed'}")
    alone = found["by"].get("size alone", 0)
    if alone:
        out.print(
            f"Of {alone:,} objects the store gives no checksum: only their size is compared. See: --read"
        )


COMMANDS = (show, want, unwant, hold, thaw, refetch, refresh, check, authorize, audit)
