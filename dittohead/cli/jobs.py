"""Commands on jobs: status, list, show, retry, freeze, thaw, cancel, poke, verify."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import pwd
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dittohead import lock, queries, registry
from dittohead.cli.base import (
    DATA,
    TEMPORARY,
    UNAVAILABLE,
    err,
    escape,
    fail,
    json_option,
    load_config,
    out,
    print_json,
    reading,
    with_config,
)
from dittohead.cli.door import Door
from dittohead.cli.given import Moment, digest_of, uid_of
from dittohead.cli.view import Place, find_place, viewing
from dittohead.cli.watch import keep_showing
from dittohead.config import Config
from dittohead.credentials import Credentials
from dittohead.model import JobState, counted
from dittohead.stations import Stations
from dittohead.store import Store
from dittohead.store import requests as request_store
from dittohead.store.search import Wanted
from dittohead.verify import Report, verify_job

#: How long a command waits for the daemon's answer.
_ANSWER_S = 30.0

_COLOURS = {
    "running": "cyan",
    "waiting": "yellow",
    "paused": "yellow",
    "frozen": "blue",
    "done": "green",
    "failed": "red",
}


@click.command()
@with_config
@json_option
@click.option("--watch", is_flag=True, help="Keep showing it as it changes, until Ctrl-C.")
def status(as_json: bool, watch: bool) -> None:
    """Show what runs, what waits and why, and what needs attention."""
    here = find_place()
    if as_json:
        print_json(_status(here))
    elif watch:
        keep_showing(lambda to: _print_status(_status(here), to))
    else:
        _print_status(_status(here), out)


def _status(here: Place) -> dict[str, Any]:
    with viewing(here) as view:  # anew each time: a daemon that is watched may stop and start
        return view.status()


def _print_status(found: dict[str, Any], to: Console) -> None:
    now = found["live"]
    watcher = now.get("watcher", {})
    daemon_line = (
        f"[green]running[/green] (process {now.get('pid', '?')}), watching by {watcher.get('mode', '?')}"
        + (f" ({escape(watcher['reason'])})" if watcher.get("reason") else "")
        if found["running_daemon"]
        else "[red]not running[/red]; start it: dittohead run"
    )
    to.print(f"dittohead on {escape(found['root'])}: {daemon_line}")
    counts = ", ".join(f"{count} {state}" for state, count in found["counts"].items() if count)
    to.print(f"jobs: {counts or 'none yet'}; {counted(len(found['inbox']), 'folder')} in the inbox")
    for target in found["targets"]:
        if target["paused"]:
            to.print(f"[yellow]paused[/yellow] {escape(target['name'])}: {escape(target['reason'])}")
    for name, reason in now.get("held", {}).items():
        to.print(f"[yellow]waits in the inbox[/yellow] {escape(name)}: {escape(reason)}")
    _print_sources(now.get("sources", {}), to)
    for upload in now.get("stale", []):
        hours = upload["age_seconds"] / 3600
        size = f"{upload['bytes']:,} bytes"
        to.print(f"[yellow]stale upload[/yellow] {escape(upload['name'])}: {hours:.0f} h, {size}")
    more = now.get("stale_count", 0) - len(now.get("stale", []))
    if more > 0:
        to.print(f"[yellow]stale uploads[/yellow] and {more:,} more")
    for name in now.get("strays", []):
        to.print(f"[yellow]ignored in the inbox[/yellow] {escape(name)}: it is not a directory")
    for job in found["active"]:
        to.print(_active_line(job, now.get("progress", {}).get(job["id"])))
    for job in found["failed"]:
        to.print(f"[red]failed[/red]   {escape(job['name'])}  {job['id']}  {escape(job['reason'])}")
    if found["failed_count"] > len(found["failed"]):
        more = found["failed_count"] - len(found["failed"])
        to.print(f"and {more:,} more that failed: dittohead list --state failed")
    _print_notices(found, to)


def _print_notices(found: dict[str, Any], to: Console) -> None:
    if found["unsent_notices"]:
        to.print(f"not yet sent: {counted(found['unsent_notices'], 'notice')}")
    for receiver in found["disabled_receivers"]:
        to.print(f"[red]gets no notices[/red] {escape(receiver['to'])}: {escape(receiver['error'])}")


def _print_sources(sources: dict[str, Any], to: Console) -> None:
    for name, fields in sources.items():
        why = fields["error"] or fields["held"]
        if why:
            word = "[red]source failing[/red]" if fields["error"] else "[yellow]source holds back[/yellow]"
            to.print(f"{word} {escape(name)}: {escape(why)}")


def _active_line(job: dict[str, Any], progress: dict[str, Any] | None) -> str:
    colour = _COLOURS[job["state"]]
    line = f"[{colour}]{job['state']:<8}[/{colour}] {escape(job['name'])}  {job['id']}"
    if "steps" in job:
        line += f"  step {min(job['steps_done'] + 1, job['steps'])} of {job['steps']} ({job['step']})"
    for step in (progress, *progress.get("beside", ())) if progress else ():
        total = f" of {step['total']:,}" if step["total"] else ""
        line += f"  {step['done']:,}{total} {step['unit']}"
        if "eta_seconds" in step:
            line += f", {step['eta_seconds']:.0f} s left"
    return line + (f"  {escape(job['reason'])}" if job["reason"] else "")


@click.command("list")
@with_config
@json_option
@click.option("--state", "states", multiple=True, type=click.Choice([s.value for s in JobState]))
@click.option("--pipeline", default="", help="Only jobs of this pipeline.")
@click.option("--name", default="", help="Only jobs whose name holds this text.")
@click.option(
    "--holds",
    metavar="SHA256|FILE",
    help="Only jobs that held or made this file: a file to look for, or its digest (eight digits will do).",
)
@click.option("--uid", "--user", "uid", metavar="USER", help="Only whose folder this user uploaded.")
@click.option("--since", type=Moment(), help="Only claimed at this date or moment, or later.")
@click.option("--until", type=Moment(), help="Only claimed before this date or moment.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--all", "everything", is_flag=True, help="All of them, however many.")
def list_(
    as_json: bool,
    states: tuple[str, ...],
    pipeline: str,
    name: str,
    holds: str | None,
    uid: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    everything: bool,
) -> None:
    """List jobs, the latest first.

    Moments are dates (2026-01-31) or as in 2026-01-31T14:00, in local time.
    """
    wanted = Wanted(
        states=[JobState(state) for state in states],
        pipeline=pipeline,
        part=name,
        holds=digest_of(holds) if holds else "",
        uid=None if uid is None else uid_of(uid),
        since=since,
        until=until,
    )
    with viewing() as view:
        found = list(view.jobs(wanted, None if everything else limit))
    if as_json:
        print_json(found)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("job", "state", "name", "pipeline", "files", "bytes", "claimed", "reason"):
        justify: Any = "right" if column in ("files", "bytes") else "left"
        table.add_column(column, justify=justify, no_wrap=column != "reason")
    for job in found:
        colour = _COLOURS[job["state"]]
        table.add_row(
            job["id"],
            f"[{colour}]{job['state']}[/{colour}]",
            escape(job["name"]),
            escape(job["pipeline"]),
            f"{job['files']:,}",
            f"{job['bytes']:,}",
            datetime.fromisoformat(job["claimed_at"]).strftime("%Y-%m-%d %H:%M:%SZ"),
            escape(job["reason"]),
        )
    out.print(table)


@click.command()
@with_config
@json_option
@click.argument("job")
def show(as_json: bool, job: str) -> None:
    """Show one job: its steps, events and where everything is.

    JOB is an id, the beginning of one, or a folder's name (its latest job).
    """
    with viewing() as view:
        fields = view.job(job)
    if as_json:
        print_json(fields)
    else:
        _print_job(fields)


def _print_job(fields: dict[str, Any]) -> None:
    colour = _COLOURS[fields["state"]]
    out.print(
        f"[bold]{escape(fields['name'])}[/bold]  [{colour}]{fields['state']}[/{colour}]  {fields['id']}"
    )
    if fields["reason"]:
        out.print(f"  {escape(fields['reason'])}")
    out.print(
        f"  pipeline {escape(fields['pipeline'] or 'none')}, {counted(fields['files'], 'file')}, "
        f"{fields['bytes']:,} bytes, claimed {fields['claimed_at']}"
    )
    if fields["taken_up_by"]:
        out.print(f"  the folder was done again since: dittohead show {fields['taken_up_by']}")
    else:
        out.print(f"  folder: {escape(fields['folder_path'])}")
    for step in fields["all_steps"]:
        seconds = f"{step['seconds']:.2f} s" if "seconds" in step else ""
        out.print(
            f"  {step['state']:<8} {escape(step['name']):<14} {seconds:>10}  "
            f"{escape(step.get('detail', '') or step['error'])}"
        )
    for link in fields["links"]:
        out.print(f"  {link['use']}: {escape(link['uri'])}")
    for place in fields["locations"]:
        out.print(
            f"  {counted(place['files'], 'file')} verified ({escape(place['verified_by'])}) "
            f"at {escape(place['uri'])}"
        )
    for asked in reversed(fields["requests"]):
        said = {True: "done", False: "refused", None: "not answered yet"}[asked["ok"]]
        out.print(f"  {asked['at']}  {asked['action']} asked for by {escape(asked['who'])}: {said}")
    for event in fields["events"]:
        out.print(f"  {event['at']}  {event['type']:<26} {event['outcome']:<8} {escape(event['detail'])}")
    if fields["receipt"]:
        out.print(f"  receipt: {escape(fields['receipt'])}")


def ask(action: str, jobs: tuple[str, ...], *, quiet: bool = False, **args: Any) -> None:
    """Have the daemon do something and print its answer; without a daemon, carry it out here.

    Args:
        quiet: print it only when it is no.
    """
    door = Door.open(Stations(find_place().root).state)
    if door is not None:
        answers = [_answered(door.act(action, job, args), quiet=quiet) for job in jobs]
        door.close()
    else:
        config = load_config()
        with reading(config) as (store, stations):
            answers = [_ask_by_row(config, store, stations, action, job, args, quiet) for job in jobs]
    if not all(answers):
        raise click.exceptions.Exit(UNAVAILABLE)


def _ask_by_row(
    config: Config, store: Store, stations: Stations, action: str, job: str, args: dict[str, Any], quiet: bool
) -> bool:
    """Leave a row for a daemon that is just starting, or for this process."""
    number = store.run(request_store.add, action, job, args, getpass.getuser())
    if not lock.is_held(stations.state):
        must_be_its_user(stations.state)
        from dittohead.daemon import answer_requests  # takes longer to import than all else of a command

        with contextlib.suppress(lock.Locked):  # a daemon has just started, and will carry it out
            answer_requests(config)
    return _print_answer(_wait_for_answer(store, number), quiet=quiet)


def _answered(answer: dict[str, Any] | None, *, quiet: bool) -> bool:
    if answer is None:
        fail("the daemon has not answered yet; it will carry this out: dittohead status", TEMPORARY)
    return _print_answer(answer, quiet=quiet)


def must_be_its_user(state: Path) -> None:
    """Without a daemon this command writes in its stead, and must not leave files it cannot read."""
    owner = state.stat().st_uid
    if owner != os.geteuid():
        name = pwd.getpwuid(owner).pw_name
        fail(
            f"no daemon runs; it will answer when it starts. Or run this as its user: sudo -u {name} ...", 77
        )


def _wait_for_answer(store: Any, number: int) -> dict[str, Any]:
    end = time.monotonic() + _ANSWER_S
    while time.monotonic() < end:
        answer: dict[str, Any] | None = store.run(request_store.answer_to, number)
        if answer is not None:
            return answer
        time.sleep(0.05)
    fail("the daemon has not answered yet; it will carry this out: dittohead status", 75)


def _print_answer(answer: dict[str, Any], *, quiet: bool) -> bool:
    for line in answer["message"].splitlines():
        if answer["ok"] and not quiet:
            out.print(escape(line))
        elif not answer["ok"]:
            err.print(f"[red]error:[/red] {escape(line)}")
    return bool(answer["ok"])


@click.command()
@with_config
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
def retry(jobs: tuple[str, ...]) -> None:
    """Try a failed job again, from the step that failed; wake one that waits."""
    ask("retry", jobs)


@click.command()
@with_config
@click.argument("jobs", nargs=-1, required=True, metavar="JOB|NAME...")
@click.option("--reason", required=True, help="Why; shown wherever the job is shown.")
def freeze(jobs: tuple[str, ...], reason: str) -> None:
    """Stop a job where it is until it is thawed."""
    ask("freeze", jobs, reason=reason)


@click.command()
@with_config
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
def thaw(jobs: tuple[str, ...]) -> None:
    """Let a frozen job go on."""
    ask("thaw", jobs)


@click.command()
@with_config
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
def cancel(jobs: tuple[str, ...]) -> None:
    """End a job; its folder goes to failed/ and can be retried."""
    ask("cancel", jobs)


@click.command()
@with_config
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
def poke(jobs: tuple[str, ...]) -> None:
    """Look now at a job that waits for an answer, a retry or a paused target."""
    ask("poke", jobs)


@click.command()
@with_config
@json_option
@click.argument("job")
def verify(as_json: bool, job: str) -> None:
    """Check a finished job's receipt against what is on disk and at the targets.

    Of several jobs of a name it is the latest that is done.
    """
    config = load_config()
    with reading(config) as (store, stations):
        found = store.run(queries.resolve, job, (JobState.DONE,))
        secret = Credentials(config.path).needed
        report = asyncio.run(verify_job(found, store, stations, registry.default(), secret))
    if as_json:
        print_json(report.as_dict())
    else:
        _print_report(report)
    if not report.good:
        raise click.exceptions.Exit(DATA if report.problems else UNAVAILABLE)


def _print_report(report: Report) -> None:
    for place, count in report.checked.items():
        out.print(f"[green]ok[/green]   {escape(place)}: {counted(count, 'file')} as in the receipt")
    for place, problem in report.problems:
        out.print(f"[red]bad[/red]  {escape(place)}: {escape(problem)}")
    for step in report.taken_back:
        out.print(f"[yellow]undone[/yellow] step {escape(step)}: what it created was taken back")
    for place, why in report.unchecked:
        out.print(f"[yellow]?[/yellow]    {escape(place)}: {escape(why)}")
    if report.problems:
        err.print(f"[red]{counted(len(report.problems), 'difference')}[/red]")
    if report.unchecked:
        err.print(f"[yellow]{len(report.unchecked)} could not be checked[/yellow]")


COMMANDS = (status, list_, show, retry, freeze, thaw, cancel, poke, verify)
