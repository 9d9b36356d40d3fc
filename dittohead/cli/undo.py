"""Command undo: take back what a job has created in systems outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import click

from dittohead.admin.undo import UndoReport, undo_all, undo_job
from dittohead.cli.base import DATA, json_option, with_config
from dittohead.cli.jobs import ask
from dittohead.cli.open_config import load_config, reading
from dittohead.cli.terminal import escape, out, print_json
from dittohead.config import registry
from dittohead.folders.stations import Stations
from dittohead.model.states import JobState
from dittohead.store import Store, queries
from dittohead.system.credentials import Credentials


@click.command()
@with_config
@json_option
@click.argument("job")
@click.option("--dry-run", is_flag=True, help="Only say what would be taken back.")
@click.option("--all", "everything", is_flag=True, help="Of all jobs of the folder's name, the latest first.")
def undo(as_json: bool, job: str, dry_run: bool, everything: bool) -> None:
    """Take back what a job created in other systems: records, nodes, links.

    Only what this job created and nobody has changed since; the rest stays, and is named. Files in
    buckets and at rsync targets stay, and the folder stays where it is. Of several jobs of a name it is the
    latest that is done.
    """
    config = load_config()
    undoing = undo_all if everything else _one
    found: list[UndoReport] = []

    async def work(store: Store, stations: Stations) -> None:
        meant = await store.read(queries.resolve, job, (JobState.DONE,))
        secret = Credentials(config.path).needed
        async for undone in undoing(meant, store, stations, registry.default(), secret, dry_run=dry_run):
            found.append(undone)
            if not as_json:
                _print(undone, dry_run=dry_run)

    try:
        with reading(config) as (store, stations):
            asyncio.run(work(store, stations))
    finally:
        if not dry_run and any(undone.gone for undone in found):
            for (
                undone
            ) in found:  # of several also those that had created nothing, and went by the others' records
                _record(undone, quiet=as_json)
    if as_json:
        print_json([one.as_dict() for one in found] if everything else found[0].as_dict())
    if not all(undone.good for undone in found):
        raise click.exceptions.Exit(DATA)


async def _one(*args: Any, dry_run: bool) -> AsyncIterator[UndoReport]:
    yield await undo_job(*args, dry_run=dry_run)


def _record(undone: UndoReport, *, quiet: bool) -> None:
    text = f"{len(undone.gone)} taken back, {len(undone.kept)} left: " + ", ".join(undone.steps)
    ask("undone", (undone.job,), quiet=quiet, what=text, good=undone.good)


def _print(undone: UndoReport, *, dry_run: bool) -> None:
    for uri, what in undone.gone:
        out.print(f"{'would go' if dry_run else 'gone'}  {escape(uri)}: {escape(what)}")
    for uri, what in undone.kept:
        out.print(f"[yellow]stays[/yellow] {escape(uri)}: {escape(what)}")
    if not undone.gone and not undone.kept:
        out.print(f"There is nothing to take back: job {undone.job} created nothing that is still there.")
        if undone.created_by:
            out.print(
                f"Its records are an earlier job's too ({', '.join(undone.created_by)}). Take back what all "
                f"jobs of this name created: dittohead undo --all {undone.job}"
            )


COMMANDS = (undo,)
