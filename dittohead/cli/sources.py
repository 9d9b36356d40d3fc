"""Commands on sources: what they do, what they know, what to bring in, and how they sign in."""

from __future__ import annotations

import click

from dittohead.cli.base import json_option, with_config
from dittohead.cli.jobs import ask
from dittohead.cli.terminal import escape, out, print_json
from dittohead.cli.view import viewing
from dittohead.model.shown import ShownSource
from dittohead.model.text import counted

#: Keys shown by a dry run.
_SHOWN = 50


@click.group()
def source() -> None:
    """Look at what brings work in from elsewhere, and have it look or fetch again."""


@source.command(name="list")
@with_config
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Of NAME: as CSV, for a spreadsheet.")
@click.option("--state", default="", help="Of NAME: only entries in this state at the remote system.")
@click.option("--stage", default=None, help='Of NAME: only those that are so far here; "" for not at all.')
@click.argument("name", required=False)
def list_(as_json: bool, as_csv: bool, state: str, stage: str | None, name: str | None) -> None:
    """Show each source: what it does, when it last looked, its items by state, why it holds back.

    With NAME: all that this one knows of the remote system, an entry a line.
    """
    if name is not None:
        from dittohead.cli.catalogue import print_entries

        print_entries(name, state, stage, as_json=as_json, as_csv=as_csv)
        return
    if as_csv or state or stage is not None:
        raise click.UsageError("--csv, --state and --stage go with the NAME of a source")
    with viewing() as view:
        found = view.sources()
    if as_json:
        print_json(found)
        return
    if not found:
        out.print("there are no sources in the configuration")
    for fields in found:
        _print(fields)


def _print(fields: ShownSource) -> None:
    colour = {"failing": "red", "stopped": "red", "not running": "yellow"}.get(fields["state"], "green")
    out.print(
        f"[bold]{escape(fields['name'])}[/bold] ({fields['kind']}): [{colour}]{fields['state']}[/{colour}]"
    )
    counts = ", ".join(f"{count} {state}" for state, count in fields["items"].items() if count)
    out.print(f"  items: {counts or 'none seen yet'}; {fields['orders']['open']} orders to settle")
    if fields["orders"]["unreadable"]:
        out.print(f"  [yellow]{fields['orders']['unreadable']} orders cannot be read[/yellow]; they are left")
    last = fields["finished_at"] or "never"
    out.print(f"  last round: {last}; next: {fields['next_at'] or 'now'}")
    if fields["error"]:
        out.print(f"  [red]error[/red] {escape(fields['error'])}")
    if fields["held"]:
        out.print(f"  [yellow]holds back[/yellow] {escape(fields['held'])}")
    for folder, why in fields["waiting"].items():
        out.print(f"  [yellow]waits[/yellow] {escape(folder)}: {escape(why)}")
    for what, why in fields["paused"].items():
        out.print(f"  [yellow]paused[/yellow] {escape(what)}{': ' if why else ''}{escape(why)}")
    for panel in fields["panels"]:
        said = ", ".join(f"{row['value']} {row['label']}" for row in panel["rows"])
        out.print(f"  {escape(panel['title'])}: {escape(said)}", soft_wrap=True)
    for one in fields["refused"]:
        out.print(f"  [yellow]refused[/yellow] {escape(one['key'])}: {escape(one['reason'])}")


@source.command()
@with_config
@click.argument("name")
@click.option("--prefix", default="", help="Look only for keys that begin so.")
@click.option("--dry-run", is_flag=True, help="Only say what would be fetched. Queues are not read.")
def sync(name: str, prefix: str, dry_run: bool) -> None:
    """Make a round now: look for what is new, fetch it, drop it into the inbox.

    Where no daemon runs it is done here, to its end: as much as there is room for.
    """
    from dittohead.cli.source_rounds import dry_look, setting_of

    config, setting = setting_of(name)
    if not dry_run:
        ask("sync", (name,), prefix=prefix)
        return
    ctx = dry_look(config, setting, prefix)
    for sighting in ctx.found[:_SHOWN]:
        what = (
            f"[red]refused[/red]: {escape(sighting.refused)}" if sighting.refused else escape(sighting.folder)
        )
        out.print(f"{escape(sighting.key)}  {sighting.size:,} bytes  → {what}")
    if len(ctx.found) > _SHOWN:
        out.print(f"... and {len(ctx.found) - _SHOWN} more")
    for handle, why in ctx.problems:
        out.print(f"[yellow]cannot be read[/yellow] {escape(handle)}: {escape(why)}")
    folders = len({sighting.folder for sighting in ctx.found if not sighting.refused})
    out.print(
        f"{counted(ctx.seen, 'item')} seen, {len(ctx.found)} new or changed, "
        f"for {counted(folders, 'folder')}; nothing was done"
    )


@source.command()
@with_config
@click.argument("name")
@click.option("--prefix", default="", help="Only items whose keys begin so.")
@click.option("--sync", "then_sync", is_flag=True, help="Then look for them at once.")
@click.option("--dry-run", is_flag=True, help="Only say how many it would be.")
def reset(name: str, prefix: str, then_sync: bool, dry_run: bool) -> None:
    """Let items be fetched again, whether they have changed or not: the way to re-run a prefix.

    Those whose folder is being fetched or processed now are left as they are.
    """
    from dittohead.cli.source_rounds import forgettable, setting_of

    config, _ = setting_of(name)
    if not dry_run:
        ask("reset", (name,), prefix=prefix, sync=then_sync)
        return
    count, busy = forgettable(config, name, prefix)
    out.print(f"{name}: {count} items would be fetched again; {busy} are under way and would be left")


@source.command()
@with_config
@click.argument("name")
@click.argument("what", default="fetches")
@click.option("--reason", default="", help="Why, for people.")
def pause(name: str, what: str, reason: str) -> None:
    """Pause a part of a source; what is under way ends. WHAT: fetches, or another word of the source's."""
    ask("source-pause", (name,), what=what, reason=reason)


@source.command()
@with_config
@click.argument("name")
@click.argument("what", default="fetches")
def resume(name: str, what: str) -> None:
    """Let a part of a source go on that was paused."""
    ask("source-resume", (name,), what=what)


def _register() -> None:
    from dittohead.cli import catalogue

    for command in catalogue.COMMANDS:
        source.add_command(command)


_register()

COMMANDS = (source,)
