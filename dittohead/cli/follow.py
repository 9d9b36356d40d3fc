"""Show jobs as they happen: each step, a bar where it takes long, and where the results lie."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from dittohead.admin import views
from dittohead.cli import advice, lines
from dittohead.cli.open_config import reading
from dittohead.cli.terminal import escape, fail, out
from dittohead.config.loader import Config
from dittohead.engine import live_status
from dittohead.folders import receipt
from dittohead.folders.stations import Stations
from dittohead.model.records import Batch, Job, StepRow
from dittohead.model.shown import ShownProgress
from dittohead.model.states import TERMINAL, JobState, Station, StepState
from dittohead.model.text import counted
from dittohead.store import Connection, Store, queries
from dittohead.store import batches as batch_store
from dittohead.store import jobs as job_store
from dittohead.system import lock

_TURN_S = 0.1
#: How long a dropped folder may lie in the inbox before it is said that no daemon runs.
_PATIENCE_S = 10.0


def follow(config: Config, names: Sequence[str], *, since: datetime) -> bool:
    """Show the jobs of the named folders, claimed at or after a moment, until all have ended.

    Args:
        names: the folders' names in the inbox.
        since: with its time zone; earlier jobs of the names do not count.

    Returns: whether every one of them is done.
    """
    _wait_for_store(config)
    with reading(config) as (store, stations):
        results = [_follow_one(store, stations, name, since) for name in names]
    return all(results)


def _wait_for_store(config: Config) -> None:
    state = Stations(config.root).state
    end = time.monotonic() + _PATIENCE_S
    # A daemon that has just been started makes the store first, and then tells that it is there.
    while not (lock.is_held(state) and live_status.read(state)):
        if time.monotonic() > end:
            fail(
                "no daemon runs on this root; the folder waits in the inbox. "
                f"Start it: {advice.start(config.path)}",
                75,
            )
        time.sleep(_TURN_S)


def _follow_one(store: Store, stations: Stations, name: str, since: datetime) -> bool:
    job = _claimed(store, stations, name, since)
    if isinstance(job, Batch):
        return _follow_batch(store, job)
    out.print(f"[bold]{escape(job.name)}[/bold]  job {job.id}, pipeline {escape(job.pipeline or 'none')}")
    shown: set[int] = set()
    told = ""
    with Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(),
        console=out,
        disable=not sys.stdout.isatty(),
        transient=True,
    ) as bars:
        known: dict[str, TaskID] = {}
        while True:
            job, steps = store.run(_read, job.id)
            for step in steps:
                if step.state is StepState.DONE and step.position not in shown:
                    _print_step(step)
                    shown.add(step.position)
            progress = live_status.read(stations.state).get("progress", {}).get(job.id)
            _show(bars, known, progress)
            if _has_ended(job):
                break
            if job.state is not JobState.RUNNING and job.reason and job.reason != told:
                told = job.reason
                bars.console.print(f"  [yellow]{job.state}[/yellow]: {escape(told)}")
            if job.state is JobState.FROZEN:  # nothing more happens without somebody's doing
                return False
            time.sleep(_TURN_S)
    _print_end(store, stations, job)
    return job.state is JobState.DONE


def _read(connection: Connection, job_id: str) -> tuple[Job, list[StepRow]]:
    return job_store.get(connection, job_id), job_store.steps_of(connection, job_id)


def _has_ended(job: Job) -> bool:
    return job.state in TERMINAL and job.station is not Station.PROCESSING


def _follow_batch(store: Store, batch: Batch) -> bool:
    """Show how many of a collection's folders are done, until all jobs have ended."""
    out.print(f"[bold]{escape(batch.name)}[/bold]  batch {batch.id}, pipeline {escape(batch.pipeline)}")
    columns = (TextColumn("  {task.description}"), BarColumn(bar_width=30), TimeRemainingColumn())
    with Progress(*columns, console=out, disable=not sys.stdout.isatty(), transient=True) as bars:
        bar = bars.add_task("folders", total=None)
        while True:
            counts = store.run(batch_store.counts, [batch.id])[batch.id]
            bars.update(bar, total=counts.total, completed=counts.total - counts.active)
            if not store.run(batch_store.is_under_way, batch.id):
                break
            time.sleep(_TURN_S)
    lines.show([lines.of_batch(queries.batch_fields(batch, counts))], out)
    for job in store.run(batch_store.open_failures, batch.id):
        lines.show([lines.of_job(queries.summary(job))], out)
    return counts.done == counts.total


def _claimed(store: Store, stations: Stations, name: str, since: datetime) -> Job | Batch:
    told = False
    while True:
        batch = store.run(batch_store.named, name)
        if batch is not None and batch.claimed_at >= since and batch.whole:
            return batch
        found = [
            job
            for job in store.run(queries.listing, name=name, limit=5)
            if job.name == name and job.claimed_at >= since
        ]
        if found:
            return found[0]
        held = live_status.read(stations.state).get("held", {}).get(name)
        if held and not told:
            out.print(f"[yellow]{escape(name)} waits in the inbox:[/yellow] {escape(held)}")
            told = True
        time.sleep(_TURN_S)


def _show(bars: Progress, known: dict[str, TaskID], progress: ShownProgress | None) -> None:
    """Show a bar for each step that tells how far it is."""
    steps = {step["step"]: step for step in (progress, *progress.get("beside", ()))} if progress else {}
    for name in known.keys() - steps.keys():
        bars.remove_task(known.pop(name))
    for name, step in steps.items():
        total, done = float(step["total"]) or None, float(step["done"])
        amount = f"{done:,.0f}" + (f" of {total:,.0f}" if total else "") + f" {step['unit']}"
        if name not in known:
            known[name] = bars.add_task(escape(name), total=total, amount=amount)
        bars.update(known[name], completed=done, total=total, amount=amount)


def _print_step(step: StepRow) -> None:
    result = step.result
    out.print(
        f"  [green]done[/green] {escape(step.name):<14} {result.seconds:>8.2f} s  {escape(result.detail)}"
    )


def _print_end(store: Store, stations: Stations, job: Job) -> None:
    colour = "green" if job.state is JobState.DONE else "red"
    line = Text("  ")
    line.append(job.state.value, style=colour)
    line.append(f": {stations.folder(job.station, job.folder)}")
    out.print(line)
    if job.reason:
        out.print(f"  {escape(job.reason)}")
    for use, uri in store.run(views.links, stations, job.id):
        out.print(f"  {use}: {escape(uri)}")
    for place, count, how in store.run(views.places, stations, job.id):
        out.print(f"  {counted(count, 'file')} verified ({escape(how)}) at {escape(place)}")
    out.print(f"  receipt: {escape(str(receipt.path_of(stations.receipts, job)))}")
