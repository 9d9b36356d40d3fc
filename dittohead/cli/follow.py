"""Show jobs as they happen: each step, a bar where it takes long, and where the results lie."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from datetime import datetime

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text
from sqlalchemy.engine import Connection

from dittohead import live, lock, queries, receipt
from dittohead.cli.base import escape, fail, out, reading
from dittohead.config import Config
from dittohead.context import JobFiles
from dittohead.model import TERMINAL, Job, JobState, Station, StepRow, StepState
from dittohead.stations import Stations
from dittohead.store import Store
from dittohead.store import jobs as job_store

_LOOK_S = 0.1
#: How long a dropped folder may lie in the inbox before it is said that no daemon runs.
_PATIENCE_S = 10.0


def follow(config: Config, names: Sequence[str], *, since: datetime) -> bool:
    """Show the jobs of the named folders, claimed after `since`, until all are over.

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
    while not (lock.is_held(state) and live.read(state)):
        if time.monotonic() > end:
            fail(
                "no daemon runs on this root; the folder waits in the inbox. Start it: dittohead run",
                75,
            )
        time.sleep(_LOOK_S)


def _follow_one(store: Store, stations: Stations, name: str, since: datetime) -> bool:
    job = _claimed(store, stations, name, since)
    out.print(f"[bold]{escape(job.name)}[/bold]  job {job.id}, pipeline {escape(job.pipeline or 'none')}")
    shown = 0
    with Progress(
        TextColumn("  {task.description}"),
        BarColumn(bar_width=30),
        TextColumn("{task.fields[amount]}"),
        TimeRemainingColumn(),
        console=out,
        disable=not sys.stdout.isatty(),
        transient=True,
    ) as bars:
        bar: TaskID | None = None
        while True:
            job, steps = store.run(_look, job.id)
            while shown < len(steps) and steps[shown].state is StepState.DONE:
                _print_step(steps[shown])
                shown += 1
            progress = live.read(stations.state).get("progress", {}).get(job.id)
            bar = _show(bars, bar, progress)
            if _settled(job):
                break
            if job.state in (JobState.PAUSED, JobState.FROZEN) or (
                job.state is JobState.WAITING and job.reason
            ):
                out.print(f"  [yellow]{job.state}[/yellow]: {escape(job.reason)}")
                return False
            time.sleep(_LOOK_S)
    _print_end(store, stations, job)
    return job.state is JobState.DONE


def _look(connection: Connection, job_id: str) -> tuple[Job, list[StepRow]]:
    return job_store.get(connection, job_id), job_store.steps_of(connection, job_id)


def _settled(job: Job) -> bool:
    return job.state in TERMINAL and job.station is not Station.PROCESSING


def _claimed(store: Store, stations: Stations, name: str, since: datetime) -> Job:
    told = False
    while True:
        found = [
            job
            for job in store.run(queries.listing, name=name, limit=5)
            if job.name == name and job.claimed_at >= since
        ]
        if found:
            return found[0]
        held = live.read(stations.state).get("held", {}).get(name)
        if held and not told:
            out.print(f"[yellow]{escape(name)} waits in the inbox:[/yellow] {escape(held)}")
            told = True
        time.sleep(_LOOK_S)


def _show(bars: Progress, bar: TaskID | None, progress: dict[str, object] | None) -> TaskID | None:
    if progress is None:
        if bar is not None:
            bars.remove_task(bar)
        return None
    total = float(str(progress["total"])) or None
    done = float(str(progress["done"]))
    amount = f"{done:,.0f}" + (f" of {total:,.0f}" if total else "") + f" {progress['unit']}"
    if bar is None:
        bar = bars.add_task("", total=total, amount=amount)
    bars.update(bar, description=escape(str(progress["step"])), completed=done, total=total, amount=amount)
    return bar


def _print_step(step: StepRow) -> None:
    result = step.result
    seconds = result.get("seconds", 0)
    out.print(
        f"  [green]done[/green] {escape(step.name):<14} {seconds:>8.2f} s  {escape(result.get('detail', ''))}"
    )


def _print_end(store: Store, stations: Stations, job: Job) -> None:
    colour = "green" if job.state is JobState.DONE else "red"
    line = Text("  ")
    line.append(job.state.value, style=colour)
    line.append(f": {stations.folder(job.station, job.folder)}")
    out.print(line)
    if job.reason:
        out.print(f"  {escape(job.reason)}")
    for place, count, how in store.run(places, stations, job.id):
        out.print(f"  {count} files verified ({escape(how)}) at {escape(place)}")
    out.print(f"  receipt: {escape(str(receipt.path_of(stations.receipts, job)))}")


def places(connection: Connection, stations: Stations, job_id: str) -> list[tuple[str, int, str]]:
    """Return (directory's URI, files, how they were verified) for each place a job delivered to."""
    job = job_store.get(connection, job_id)
    files = JobFiles(stations, job)
    found = []
    for step in job_store.steps_of(connection, job_id):
        location = next(receipt.read_locations(files.locations(step.name)), None)
        if location is not None and step.result.get("locations"):
            place = location.uri.rsplit("/", location.path.count(b"/") + 1)[0] + "/"
            found.append((place, step.result["locations"], location.verified_by))
    return found
