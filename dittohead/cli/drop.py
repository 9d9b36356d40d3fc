"""Command drop: folders uploaded the right way."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from dittohead.cli import advice
from dittohead.cli.base import DATA, NO_INPUT, with_config
from dittohead.cli.open_config import load_config
from dittohead.cli.terminal import err, escape, fail, out
from dittohead.config.loader import Config
from dittohead.folders.stations import Stations
from dittohead.folders.upload_protocol import Upload
from dittohead.model import units
from dittohead.model.errors import DittoheadError, ItemError
from dittohead.model.states import Station
from dittohead.model.text import counted, utcnow
from dittohead.system.control_socket import Reachable, reach
from dittohead.system.ignored_names import fault


@click.command()
@with_config
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--name", help="Another name for the folder in the inbox; for a single PATH.")
@click.option(
    "--for",
    "purposes",
    multiple=True,
    metavar="PURPOSE",
    help="Ask for a part of the pipeline only, such as access; may be given several times.",
)
@click.option("--follow", "-f", "watch", is_flag=True, help="Show each step until the job has ended.")
def drop(paths: tuple[Path, ...], name: str | None, purposes: tuple[str, ...], watch: bool) -> None:
    """Upload folders the right way: copy as .NAME, make durable, rename to NAME.

    PATH is a directory, or a file, which gets a folder of its own name.
    """
    config = load_config()
    if name is not None and len(paths) > 1:
        raise click.UsageError("--name goes with a single PATH")
    stations = Stations(config.root)
    inbox = stations.path(Station.INBOX)
    if not inbox.is_dir():
        start = advice.start(config.path)
        fail(f"{inbox}: there is no inbox; the daemon makes it. Start it: {start}", NO_INPUT)
    if watch and not _may_read(stations):
        may_ask = reach(stations.state) is not Reachable.BARRED
        look = f", and look with: `{advice.command('status')}`" if may_ask else ""
        raise DittoheadError(
            "you may upload here, but not look on",
            where=str(stations.state),
            hint=f"Leave out --follow{look}; who may look on: docs/rights.md",
        )
    started = utcnow()
    uploads = [Upload(path, inbox, name, purposes) for path in paths]
    for upload in uploads:
        _must_fit(config, upload.name, purposes)
    dropped = [_drop_one(upload) for upload in uploads]
    if watch:
        from dittohead.cli.follow import follow

        if not follow(config, dropped, since=started):
            raise click.exceptions.Exit(DATA)
    elif words := advice.untaken(stations.state, config.path):
        err.print(f"[yellow]note:[/yellow] {escape(words)}")


def _may_read(stations: Stations) -> bool:
    """Tell whether this user may read what the daemon writes: operators may only enter state/."""
    store = stations.state / "dittohead.sqlite3"
    if not os.access(stations.state, os.X_OK):
        return False
    return not store.exists() or os.access(store, os.R_OK | os.W_OK)


def _must_fit(config: Config, name: str, purposes: tuple[str, ...]) -> None:
    """Refuse before anything is copied what the daemon would put into failed/ after it. Raises: ItemError."""
    if why := fault(name, config.settings.watch.ignore):
        raise ItemError(why, where=name, hint="Give another name with --name")
    matched = config.pipeline_for(name)
    if matched is None:
        raise config.no_pipeline(name, "Give another with --name,")
    pipeline = matched[0]
    unknown = sorted(set(purposes) - pipeline.purposes)
    if unknown:
        there = ", ".join(sorted(pipeline.purposes)) or "none: it has no steps with for:"
        raise ItemError(
            f"the pipeline {pipeline.name} has nothing for {', '.join(unknown)}",
            where=name,
            hint=f"Its purposes are {there}",
        )


class _Sent(ProgressColumn):
    """How much is copied, and how fast."""

    def render(self, task: Task) -> Text:
        """Return it in words."""
        fast = f", {units.rate(task.speed, 'bytes')}" if task.speed else ""
        return Text(f"{units.size(task.completed)} of {units.size(task.total or 0)}{fast}")


def _drop_one(upload: Upload) -> str:
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        _Sent(),
        console=err,
        disable=not sys.stderr.isatty(),
        transient=True,
    ) as bar:
        task = bar.add_task(escape(f"uploading {upload.name}"), total=upload.size)
        try:
            upload.copy(lambda count: bar.advance(task, count))
        except KeyboardInterrupt:
            err.print(f"interrupted; the part copied is {escape(os.fsdecode(upload.hidden))}")
            raise
        except OSError as error:
            raise DittoheadError(
                f"the upload failed ({error.strerror})",
                where=os.fsdecode(error.filename or upload.hidden),
                hint=f"Remove {os.fsdecode(upload.hidden)} and try again",
            ) from error
    upload.publish()
    out.print(f"{escape(upload.name)}: {counted(upload.files, 'file')}, {upload.size:,} bytes, handed over")
    if upload.not_kept:
        err.print(f"[yellow]not kept:[/yellow] {escape(upload.not_kept)}")
    return upload.name


COMMANDS = (drop,)
