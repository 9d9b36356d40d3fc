"""Commands on jobs: show, retry, rename, dismiss, freeze, thaw, cancel, poke, verify, delete."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import click

from dittohead.cli import lines
from dittohead.cli.base import DATA, NO_INPUT, OK, TEMPORARY, UNAVAILABLE, json_option, with_config
from dittohead.cli.daemon_client import DaemonClient
from dittohead.cli.inbox import print_waiting, waiting
from dittohead.cli.terminal import err, escape, fail, out, print_json
from dittohead.cli.view import find_place, viewing
from dittohead.model.errors import DittoheadError, NoSuchJob
from dittohead.model.job_filter import JobFilter
from dittohead.model.records import RequestAnswer
from dittohead.model.shown import ShownCustody, ShownFile, ShownReport, WholeJob
from dittohead.model.text import counted, display
from dittohead.model.units import duration, size


@click.command()
@with_config
@json_option
@click.option("--files", is_flag=True, help="Its files instead: size, SHA-256, path, and where each lies.")
@click.argument("job")
def show(as_json: bool, files: bool, job: str) -> None:
    """Show one job: its steps, events and where everything is.

    JOB is an id, the beginning of one, or a folder's name (its latest job). Of what still waits in the
    inbox: why, since when, and what to type.
    """
    with viewing() as view:
        try:
            fields = view.job(job)
        except NoSuchJob:
            waits = None if files else waiting(job, view.status())
            if waits is None:
                raise
            (print_json if as_json else print_waiting)(waits)
            return
        if files:
            _print_files(view.files(fields["id"]), as_json=as_json)
            return
        # A second folder of the name may wait until the first has left.
        waits = waiting(job, view.status()) if fields["name"] == job and not as_json else None
    if as_json:
        print_json(fields)
        return
    if waits is not None:
        print_waiting(waits)
    _print_job(fields)


def _print_files(found: Iterator[ShownFile], *, as_json: bool) -> None:
    if as_json:
        print_json(list(found))
        return
    for file in found:
        made = f"  ({file['step']})" if file["step"] else ""
        # Exact: to be compared.
        out.print(f"{file['sha256']}  {file['size']:>12}  {escape(file['path'] + made)}", soft_wrap=True)
        for place in file["locations"]:
            out.print(f"    {escape(place['uri'])}  ({escape(place['verified_by'])})", soft_wrap=True)


def _print_job(fields: WholeJob) -> None:
    became = fields["outcome"] or fields["state"]
    colour = lines.colour(became)
    out.print(f"[bold]{escape(fields['name'])}[/bold]  [{colour}]{became}[/{colour}]  {fields['id']}")
    if fields["reason"]:
        out.print(f"  {escape(fields['reason'])}")
    out.print(
        f"  pipeline {escape(fields['pipeline'] or 'none')}, {counted(fields['files'], 'file')}, "
        f"{size(fields['bytes'])}, claimed {fields['claimed_at']}"
    )
    if fields["taken_up_by"]:
        out.print(f"  the folder was done again since: dittohead show {fields['taken_up_by']}")
    elif not fields["custody"]["removed_at"]:
        out.print(f"  folder: {escape(display(os.fsencode(fields['folder_path'])))}")
    _print_custody(fields["custody"])
    for step in fields["all_steps"]:
        seconds = duration(step["seconds"]) if "seconds" in step else ""
        out.print(
            f"  {step['state']:<8} {escape(step['name']):<14} {seconds:>10}  "
            f"{escape(step.get('detail', '') or _once(step['error'], fields['reason']))}"
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
        detail = escape(_once(event["detail"], fields["reason"]))
        out.print(f"  {event['at']}  {event['type']:<26} {event['outcome']:<8} {detail}")
    if fields["receipt"]:
        out.print(f"  receipt: {escape(fields['receipt'])}")


def _print_custody(known: ShownCustody) -> None:
    """Say when the copies were looked at, and what is to become of the folder."""
    if known["tried_at"]:
        words = {"good": "as the receipt says", "wrong": f"not as delivered: {known['reason']}"}
        found = words.get(known["fixity"] or "", f"could not be checked: {known['reason']}")
        out.print(f"  copies: {escape(found)}, looked at {known['tried_at']}")
    if known["removed_at"]:
        out.print(f"  folder: removed {known['removed_at']}: {escape(known['removed_why'])}")
    elif known["asked_at"]:
        approved = f"approved by {known['approved_by']}" if known["approved_by"] else "not yet approved"
        said = f"  folder: {known['asked_by']} asked to delete it, {approved}: {known['asked_why']}"
        out.print(escape(said))
    elif known["stays"]:
        out.print(f"  folder: not removed: {escape(known['stays'])}")


def _once(text: str, reason: str) -> str:
    """Return text, or where the reason stands that says the same."""
    return "see above" if text and text == reason else text


def ask(action: str, jobs: tuple[str, ...], *, quiet: bool = False, **args: Any) -> None:
    """Have the daemon do something and print its answer; without a daemon, carry it out here.

    Args:
        quiet: print it only when it is no.
    """
    client = find_place().client()
    if client is not None:
        statuses = {_answered(client.act(action, job, args), quiet=quiet) for job in jobs}
        client.close()
    else:
        from dittohead.cli.without_daemon import carried_out

        statuses = {_print_answer(answer, quiet=quiet) for answer in carried_out(action, jobs, args)}
    if worst := max(statuses - {OK}, default=OK):
        raise click.exceptions.Exit(worst)


def asked(action: str, of: str, **args: Any) -> str:
    """Have the daemon do something, or do it here without one, and return its answer; end where it is no."""
    client = find_place().client()
    if client is not None:
        answer = client.act(action, of, args)
        client.close()
    else:
        from dittohead.cli.without_daemon import carried_out

        answer = next(iter(carried_out(action, (of,), args)))
    if answer is None:
        fail("the daemon has not answered yet; it will carry this out: dittohead status", TEMPORARY)
    if not answer.ok:
        fail(answer.message, NO_INPUT if answer.missing else UNAVAILABLE)
    return answer.message


def _answered(answer: RequestAnswer | None, *, quiet: bool) -> int:
    if answer is None:
        fail("the daemon has not answered yet; it will carry this out: dittohead status", TEMPORARY)
    return _print_answer(answer, quiet=quiet)


def _print_answer(answer: RequestAnswer, *, quiet: bool) -> int:
    """Print an answer and return the exit status that it stands for."""
    for line in answer.message.splitlines():
        if answer.ok and not quiet:
            out.print(escape(line))
        elif not answer.ok:
            err.print(f"[red]error:[/red] {escape(line)}")
    if answer.ok:
        return OK
    return NO_INPUT if answer.missing else UNAVAILABLE


def _of_failures(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that name open failures instead of jobs."""
    for option in (
        click.option("--dry-run", is_flag=True, help="With --failed: only list them."),
        click.option(
            "--reason-has", "part", default="", help="With --failed: only whose reason holds this text."
        ),
        click.option("--pipeline", default="", help="With --failed: only those of this pipeline."),
        click.option(
            "--batch", default="", metavar="BATCH|NAME", help="All failures of a dropped collection."
        ),
        click.option("--failed", is_flag=True, help="All failures that wait for somebody."),
        click.argument("jobs", nargs=-1, metavar="JOB..."),
    ):
        command = option(command)
    return command


def _chosen(
    jobs: tuple[str, ...], failed: bool, batch: str, pipeline: str, part: str, dry_run: bool
) -> tuple[str, ...]:
    """Return the jobs that are named, or the open failures that fit; none in a dry run."""
    many = failed or bool(batch)
    if bool(jobs) == many or (not many and (pipeline or part or dry_run)):
        raise click.UsageError("give jobs, or --batch or --failed (with --pipeline, --reason-has, --dry-run)")
    if jobs:
        return jobs
    with viewing() as view:
        if batch:
            batch = view.batch(batch)["id"]
        found = list(view.jobs(JobFilter(open=True, batch=batch, pipeline=pipeline, reason=part), None))
    lines.show(map(lines.of_job, found), out)
    out.print(f"{counted(len(found), 'failure')}{' would be meant' if dry_run else ''}")
    return () if dry_run else tuple(job["id"] for job in found)


@click.command()
@with_config
@_of_failures
def retry(jobs: tuple[str, ...], failed: bool, batch: str, pipeline: str, part: str, dry_run: bool) -> None:
    """Try failed jobs again, each from the step that failed; wake one that waits."""
    if batch and not (jobs or failed or pipeline or part or dry_run):
        ask("retry-batch", (batch,))
    else:
        ask("retry", _chosen(jobs, failed, batch, pipeline, part, dry_run))


@click.command()
@with_config
@_of_failures
@click.option("--reason", default="", help="Why; shown with the job.")
def dismiss(
    jobs: tuple[str, ...],
    failed: bool,
    batch: str,
    pipeline: str,
    part: str,
    dry_run: bool,
    reason: str,
) -> None:
    """Note that nothing more is to be done about a failure; its folder stays in failed/."""
    ask("dismiss", _chosen(jobs, failed, batch, pipeline, part, dry_run), reason=reason)


@click.command()
@with_config
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
@click.option("--reason", required=True, help="Why; it stands in the receipt.")
@click.option("--unverified", is_flag=True, help="Do not compare the copies of a finished job first.")
def delete(jobs: tuple[str, ...], reason: str, unverified: bool) -> None:
    """Remove the folder of a job that has ended from done/ or failed/; its receipt stays.

    Where people are known, another person has to approve it. The copies of a job that is done are
    compared with its receipt first: a folder whose files lie nowhere else stays.
    """
    ask("delete", jobs, reason=reason, unverified=unverified)


@click.command()
@with_config
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
def approve(jobs: tuple[str, ...]) -> None:
    """Approve that a folder is deleted, as somebody else has asked."""
    ask("approve", jobs)


@click.command()
@with_config
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...")
def keep(jobs: tuple[str, ...]) -> None:
    """Keep a folder that somebody has asked to delete."""
    ask("keep", jobs)


@click.command()
@with_config
@click.argument("job")
@click.argument("name")
def rename(job: str, name: str) -> None:
    """Do a failed folder again under another name.

    Before it is moved, NAME is checked: it must fit a pipeline, and not be in the inbox.
    """
    ask("rename", (job,), name=name)


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
    client = find_place().client()
    if client is not None:
        report = _verified_by(client, job)
    else:
        from dittohead.cli.without_daemon import verified

        report = verified(job)
    if as_json:
        print_json(report)
    else:
        _print_report(report)
    if not report["good"]:
        raise click.exceptions.Exit(DATA if report["problems"] else UNAVAILABLE)


def _verified_by(client: DaemonClient, job: str) -> ShownReport:
    """Have the daemon do it: with its user, its groups and its credentials."""
    with contextlib.closing(client), err.status("") as status:
        for said in client.verify(job):
            if "report" in said:
                found: ShownReport = said["report"]
                return found
            if "problem" in said:
                raise DittoheadError(said["problem"])
            status.update(f"{said['looked']:,} of {counted(said['of'], 'file')} looked at")
    raise DittoheadError("the daemon went away before it had compared everything", hint="dittohead status")


def _print_report(report: ShownReport) -> None:
    for place, count in report["checked"].items():
        out.print(f"[green]ok[/green]   {escape(place)}: {counted(count, 'file')} as in the receipt")
    for one in report["problems"]:
        out.print(f"[red]bad[/red]  {escape(one['where'])}: {escape(one['what'])}")
    for step in report["taken_back"]:
        out.print(f"[yellow]undone[/yellow] step {escape(step)}: what it created was taken back")
    for left in report["unchecked"]:
        out.print(f"[yellow]?[/yellow]    {escape(left['where'])}: {escape(left['why'])}")
    if report["problems"]:
        err.print(f"[red]{counted(len(report['problems']), 'difference')}[/red]")
    if report["unchecked"]:
        err.print(f"[yellow]{len(report['unchecked'])} could not be checked[/yellow]")


COMMANDS = (show, retry, rename, dismiss, freeze, thaw, cancel, poke, verify, delete, approve, keep)
