"""Command undo: take back what a job has created in systems outside."""

from __future__ import annotations

import asyncio

import click

from dittohead import queries, registry
from dittohead.cli.base import DATA, escape, json_option, load_config, out, print_json, reading, with_config
from dittohead.cli.jobs import ask
from dittohead.credentials import Credentials
from dittohead.undo import Undone, undo_job


@click.command()
@with_config
@json_option
@click.argument("job")
@click.option("--dry-run", is_flag=True, help="Only say what would be taken back.")
def undo(as_json: bool, job: str, dry_run: bool) -> None:
    """Take back what a job created in other systems: records, nodes, links.

    Only what this job created and nobody has changed since; the rest stays, and is named. Files in
    buckets and at rsync targets stay, and the folder stays where it is.
    """
    config = load_config()
    with reading(config) as (store, stations):
        found = store.run(queries.resolve, job)
        secret = Credentials(config.path).needed
        undone = asyncio.run(undo_job(found, store, stations, registry.default(), secret, dry_run=dry_run))
    if as_json:
        print_json(undone.as_dict())
    else:
        _print(undone, dry_run=dry_run)
    if undone.gone and not dry_run:
        text = f"{len(undone.gone)} taken back, {len(undone.kept)} left: " + ", ".join(undone.steps)
        ask("undone", (found.id,), quiet=as_json, what=text, good=undone.good)
    if not undone.good:
        raise click.exceptions.Exit(DATA)


def _print(undone: Undone, *, dry_run: bool) -> None:
    for uri, what in undone.gone:
        out.print(f"{'would go' if dry_run else 'gone'}  {escape(uri)}: {escape(what)}")
    for uri, what in undone.kept:
        out.print(f"[yellow]stays[/yellow] {escape(uri)}: {escape(what)}")
    if not undone.gone and not undone.kept:
        out.print("There is nothing to take back: this job created nothing that is still there.")


COMMANDS = (undo,)
