"""Commands that show many jobs at a look: status, list."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from datetime import datetime

import click
from rich.console import Console

from dittohead.cli import advice, lines
from dittohead.cli.arguments import MomentArgument, digest_of, uid_of
from dittohead.cli.base import config_path, json_option, with_config
from dittohead.cli.lines import ListLine
from dittohead.cli.terminal import escape, out, print_json
from dittohead.cli.view import NamedRoot, find_place, viewing
from dittohead.model.job_filter import JobFilter
from dittohead.model.shown import LiveStatus, ShownJob, ShownProgress, ShownStatus
from dittohead.model.states import JobState
from dittohead.model.text import counted
from dittohead.model.units import age, amount, duration, size

#: The order in which states are counted: what needs somebody first.
_ORDER = ("failed", "frozen", "paused", "running", "waiting", "done")


@click.command()
@with_config
@json_option
@click.option("--watch", is_flag=True, help="Keep showing it as it changes, until Ctrl-C.")
def status(as_json: bool, watch: bool) -> None:
    """Show what needs attention, what runs, what waits and why."""
    here = find_place()
    if as_json:
        print_json(_status(here))
    elif watch:
        from dittohead.cli.watch import keep_showing

        _status(here)  # what is wrong is said before anything is drawn
        keep_showing(lambda to: _print_status(_status(here), to))
    else:
        _print_status(_status(here), out)


def _status(here: NamedRoot) -> ShownStatus:
    with viewing(here) as view:  # opened for each look: a daemon that is watched may stop and start
        return view.status()


def _print_status(found: ShownStatus, to: Console) -> None:
    now = found["live"]
    daemon = _daemon_words(found["running_daemon"], now)
    to.print(f"dittohead on {escape(found['root'])}: {daemon}")
    to.print(_counts(found))
    _print_attention(found, now, to)
    waits = _held(now)
    _print_group(
        "Waits in the inbox", waits, to, more=now.get("held_count", 0) - len(now.get("held", {})) + len(waits)
    )
    if waits:
        to.print(f"  the whole reason: dittohead show {escape(shlex.quote(waits[0].name))}")
    working = [_active(job, now.get("progress", {}).get(job["id"])) for job in found["active"]]
    active = sum(
        count for state, count in found["counts"].items() if state not in ("done", "failed", "frozen")
    )
    _print_group("Under way", working, to, more=active, see="dittohead list --state running")


def _daemon_words(running: bool, now: LiveStatus) -> str:
    if not running:
        return f"[red]not running[/red]; start it: {escape(advice.start(config_path()))}"
    watcher = now.get("watcher", {})
    why = f" ({escape(watcher['reason'])})" if watcher.get("reason") else ""
    return (
        f"[green]running[/green] (process {now.get('pid', '?')}), watching by {watcher.get('mode', '?')}{why}"
    )


def _counts(found: ShownStatus) -> str:
    """Return how many jobs are in each state; failures that a later job took up have ended."""
    counts = {**found["counts"], "failed": found["failed_count"]}
    words = ", ".join(f"{counts[state]:,} {state}" for state in _ORDER if counts.get(state))
    return f"jobs: {words or 'none yet'}; {counted(len(found['inbox']), 'folder')} in the inbox"


def _print_attention(found: ShownStatus, now: LiveStatus, to: Console) -> None:
    problems = list(_problems(found, now))
    failed = [lines.of_job(job) for job in found["failed"]]
    frozen = [_active(job, None) for job in found.get("frozen", [])]
    if not problems and not failed and not frozen:
        return
    to.print("\n[bold]Needs attention[/bold]")
    lines.show(frozen, to, indent=2)
    if (more := found["counts"].get("frozen", 0) - len(frozen)) > 0:
        to.print(f"  and {more:,} more that are frozen: dittohead list --state frozen")
    if frozen:
        to.print(f"  why, and what to do: dittohead show {escape(shlex.quote(frozen[0].name))}")
    lines.show(failed, to, indent=2)
    if found["failed_count"] > len(failed):
        more = found["failed_count"] - len(failed)
        to.print(f"  and {more:,} more that failed: dittohead list --open")
    if failed:
        to.print(f"  why, and what to do: dittohead show {escape(shlex.quote(failed[0].name))}")
    for problem in problems:
        to.print(f"  {problem}", soft_wrap=True)  # a command that is cut or broken cannot be typed


def _problems(found: ShownStatus, now: LiveStatus) -> Iterator[str]:
    """Yield a line for each thing that is not a job and waits for somebody."""
    yield from _troubles(now)
    for target in found["targets"]:
        if target["paused"]:
            yield f"[yellow]paused[/yellow] {escape(target['name'])}: {escape(target['reason'])}"
    for name, fields in now.get("sources", {}).items():
        why = fields["error"] or fields["held"]
        if why:
            word = "[red]source failing[/red]" if fields["error"] else "[yellow]source holds back[/yellow]"
            yield f"{word} {escape(name)}: {escape(why)}"
    for receiver in found["disabled_receivers"]:
        yield f"[red]gets no notices[/red] {escape(receiver['to'])}: {escape(receiver['error'])}"
    if found["unsent_notices"]:
        yield f"[yellow]not yet sent[/yellow] {counted(found['unsent_notices'], 'notice')}"
    yield from _copies(now)
    yield from _overdue(now)
    for upload in now.get("stale", []):
        words = f"{duration(upload['age_seconds'])}, {size(upload['bytes'])}"
        yield f"[yellow]stale upload[/yellow] {escape(upload['name'])}: {words}"
    more = now.get("stale_count", 0) - len(now.get("stale", []))
    if more > 0:
        yield f"[yellow]stale uploads[/yellow] {more:,} more"


def _copies(now: LiveStatus) -> Iterator[str]:
    """Yield lines for copies that are not as they were delivered, and for folders that are to be deleted."""
    for damaged in fixity["found"] if (fixity := now.get("fixity")) else []:
        yield f"[red]not as delivered[/red] {escape(damaged['name'])}: {escape(damaged['reason'])}"
    for one in now.get("deletions", []):
        words = f"{escape(one['by'])} asked to delete it: {escape(one['why'])}"
        yield f"[yellow]to approve[/yellow] {escape(one['name'])}: {words}"
        yield f"  [bold]dittohead approve {one['job']}[/bold]"


def _overdue(now: LiveStatus) -> Iterator[str]:
    """Yield lines for what stays in the inbox until somebody acts; a cure's words are there once."""
    said: set[str] = set()
    for one in now.get("overdue", []):
        word = "no folder" if one["kind"] == "stray" else "held"
        of = f" of {escape(one['owner'])}" if one["owner"] else ""
        since = age(max(time.time() - one["since"], 0))
        cure = f". {escape(one['cure'])}" if one["cure"] and one["cure"] not in said else ""
        said.add(one["cure"])
        yield f"[yellow]{word}[/yellow] {escape(one['name'])}{of}, {since}: {escape(one['reason'])}{cure}"
        if one["command"]:
            yield f"  [bold]{escape(one['command'])}[/bold]"
    more = now.get("overdue_count", 0) - len(now.get("overdue", []))
    if more > 0:
        yield f"[yellow]held[/yellow] {more:,} more in the inbox"


def _troubles(now: LiveStatus) -> Iterator[str]:
    """Yield a line for what is wrong with the daemon itself, and for what is stuck in processing/."""
    for trouble in now.get("troubles", []):
        where = f" ({escape(trouble['where'])})" if trouble["where"] else ""
        yield f"[red]{escape(trouble['what'])}[/red]{where}. {escape(trouble['hint'])}"
    for row in now.get("damaged_rows", []):
        place = f"{row['table']} {row['key']}" + (f" ({row['name']})" if row["name"] else "")
        yield f"[red]damaged[/red] in the store: {escape(place)}: {', '.join(row['columns'])}"
        yield f"  {escape(row['hint'])}"
    for name, reason in now.get("stuck", {}).items():
        yield f"[yellow]stuck in processing[/yellow] {escape(name)}: {escape(reason)}"


def _held(now: LiveStatus) -> list[ListLine]:
    """Return what waits by itself; the rest stands above, with what to do."""
    above = {one["name"] for one in now.get("overdue", [])}
    held = now.get("held", {}).items()
    return [ListLine(state="held", name=name, clause=reason) for name, reason in held if name not in above]


def _print_group(title: str, rows: list[ListLine], to: Console, *, more: int = 0, see: str = "") -> None:
    if not rows:
        return
    to.print(f"\n[bold]{title}[/bold]")
    lines.show(rows, to, indent=2)
    if more > len(rows):
        to.print(f"  and {more - len(rows):,} more" + (f": {see}" if see else ""))


def _active(job: ShownJob, progress: ShownProgress | None) -> ListLine:
    """Return the line of a job that is not over: its step, how far that is, and why it waits."""
    words = [job["reason"]] if job["reason"] else []
    if "steps" in job:
        words.append(f"step {min(job['steps_done'] + 1, job['steps'])} of {job['steps']} ({job['step']})")
    words += [_progress(step) for step in ((progress, *progress.get("beside", ())) if progress else ())]
    return ListLine(
        state=job["state"],
        name=job["name"],
        pipeline=job["pipeline"],
        at=datetime.fromisoformat(job["claimed_at"]),
        clause=", ".join(words) or job["state"],
        id=job["id"],
    )


def _progress(step: ShownProgress) -> str:
    unit, done, total = step["unit"], step["done"], step["total"]
    words = f"{amount(done, unit)} of {amount(total, unit)}" if total else amount(done, unit)
    return f"{words}, {duration(step['eta_seconds'])} left" if "eta_seconds" in step else words


@click.command("list")
@with_config
@json_option
@click.option("--state", "states", multiple=True, type=click.Choice([s.value for s in JobState]))
@click.option("--open", "only_open", is_flag=True, help="Only failures that wait for somebody.")
@click.option("--reason", default="", help="Only jobs whose reason holds this text.")
@click.option("--pipeline", default="", help="Only jobs of this pipeline.")
@click.option("--name", default="", help="Only jobs whose name holds this text.")
@click.option("--batch", default="", metavar="BATCH|NAME", help="Only the jobs of a dropped collection.")
@click.option(
    "--holds",
    metavar="SHA256|FILE",
    help="Only jobs that held or made this file: a file to look for, or its digest (eight digits will do).",
)
@click.option("--uid", "--user", "uid", metavar="USER", help="Only whose folder this user uploaded.")
@click.option("--since", type=MomentArgument(), help="Only claimed at this date or moment, or later.")
@click.option("--until", type=MomentArgument(), help="Only claimed before this date or moment.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 100_000))
@click.option("--all", "everything", is_flag=True, help="All of them, however many.")
def list_(
    as_json: bool,
    states: tuple[str, ...],
    only_open: bool,
    reason: str,
    pipeline: str,
    name: str,
    batch: str,
    holds: str | None,
    uid: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    everything: bool,
) -> None:
    """List jobs, the latest first: state, name, pipeline, age, and why or how much.

    Moments are dates (2026-01-31) or as in 2026-01-31T14:00, in local time. A wide terminal, and what
    is not a terminal, also get each job's id; exact sizes and moments are in --json.
    """
    wanted = JobFilter(
        states=[JobState(state) for state in states],
        pipeline=pipeline,
        part=name,
        holds=digest_of(holds) if holds else "",
        uid=None if uid is None else uid_of(uid),
        since=since,
        until=until,
        open=only_open,
        reason=reason,
        batch=batch,
    )
    with viewing() as view:
        of_batch = view.batch(batch) if batch else None
        found = list(view.jobs(wanted, None if everything else limit + 1))
    shown = found if everything else found[:limit]
    if as_json:
        print_json(shown)
        return
    if of_batch is not None:
        lines.show([lines.of_batch(of_batch)], out)
    lines.show(map(lines.of_job, shown), out)
    if not shown:
        out.print("no jobs")
    if len(found) > len(shown):
        out.print("and more: dittohead list --all")


@click.command()
@with_config
@json_option
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000))
def batches(as_json: bool, limit: int) -> None:
    """List the collections that were dropped, the latest first: how many of their folders are done.

    A pipeline with `each: folder` makes a job of each folder in what is dropped.
    """
    with viewing() as view:
        found = view.batches(limit)
    if as_json:
        print_json(found)
        return
    lines.show(map(lines.of_batch, found), out)
    if not found:
        out.print("no batches")


COMMANDS = (status, list_, batches)
