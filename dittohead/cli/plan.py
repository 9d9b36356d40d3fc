"""Command plan: what would be done with a folder, before anything is."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import click

from dittohead.admin.dry_run import Plan, PlannedStep, plan
from dittohead.cli.base import DATA, TEMPORARY, json_option, with_config
from dittohead.cli.open_config import load_config
from dittohead.cli.terminal import escape, fail, out, print_json
from dittohead.config import registry
from dittohead.config.loader import Config
from dittohead.contract.worker import Planned
from dittohead.model.errors import ItemError, StepError, TargetError, TransientError
from dittohead.model.text import counted, display, visible
from dittohead.system.credentials import Credentials
from dittohead.system.ignored_names import ignored_names

#: Things a step would do that are shown without --all.
_SHOWN = 12

#: Of a file that no pipeline takes by itself.
_LEFT_ALONE = (
    "as a file in the inbox it would be left alone. Put it into a folder, as `dittohead drop` does, or set "
    "files: folder in its pipeline"
)

#: A job's plan, and what each of its steps would do.
_Planned = tuple[Plan, list[tuple[PlannedStep, list[Planned]]]]


@click.command("plan")
@with_config
@json_option
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--as", "name", help="Its name in the inbox; by default its own.")
@click.option("--all", "whole", is_flag=True, help="Show everything, also of folders with many files.")
def plan_(as_json: bool, folder: Path, name: str | None, whole: bool) -> None:
    """Show what would be done with FOLDER, step by step; nothing is changed, here or outside.

    A file is planned as the folder that would hold it.

    Its files are read for their digests, and every system that the steps name is asked what they
    must know; nothing is written anywhere.
    """
    config = load_config(probe=True)
    folder = folder.resolve()
    called = name or folder.name.removeprefix(".")
    if not folder.is_dir() and not folder.is_file():
        fail(f"{folder}: this is neither a folder nor a file", DATA)
    jobs = _jobs(config, folder, called)
    if jobs[0][0] == folder:
        note = _LEFT_ALONE if folder.is_file() and not config.takes_file(os.fsencode(called)) else ""
        try:
            planned = _planned(config, folder, called)
        except ItemError as error:
            fail(_refused(called, error), DATA)
        if as_json:
            print_json({**_as_json(*planned), **({"note": note} if note else {})})
        else:
            _print(*planned, len(planned[1]) if whole else _SHOWN, whole=whole)
            if note:
                out.print(f"[yellow]note:[/yellow] {escape(note)}")
        _end([planned], [])
    else:
        _plan_collection(config, folder, called, jobs, as_json=as_json, whole=whole)


def _plan_collection(
    config: Config, folder: Path, called: str, jobs: list[tuple[Path, str]], *, as_json: bool, whole: bool
) -> None:
    """Plan each folder of a collection; one that would fail does not hide the others."""
    plans, refused = [], []
    for number, (path, job) in enumerate(jobs):
        if not as_json:
            out.print("\n" if number else "", end="")
        try:
            planned = _planned(config, path, job)
        except ItemError as error:
            refused.append({"name": job, "good": False, "problem": str(error)})
            if not as_json:
                out.print(escape(_refused(job, error)))
            continue
        plans.append(planned)
        if not as_json:
            _print(*planned, len(planned[1]) if whole else _SHOWN, whole=whole)
    beside = _beside(config, folder, [path for path, _ in jobs])
    if as_json:
        shown = [_as_json(*one) for one in plans]
        print_json({"name": called, "folders": [*shown, *refused], "beside": beside})
    elif beside:
        out.print(f"\nBeside the folders, of no job and delivered nowhere: {escape(', '.join(beside))}")
    _end(plans, refused)


def _refused(name: str, error: ItemError) -> str:
    return f"{visible(name)} would go to failed/ before its first step: {error}"


def _end(plans: list[_Planned], refused: list[dict[str, Any]]) -> None:
    """End with the exit status that says what is wrong, if something is."""
    problems = [step for _, steps in plans for step, _ in steps if step.problem]
    if refused:
        raise click.exceptions.Exit(DATA)
    if problems:
        raise click.exceptions.Exit(TEMPORARY if all(step.waits for step in problems) else DATA)


def _jobs(config: Config, folder: Path, called: str) -> list[tuple[Path, str]]:
    """Return the folders that would be a job each, with their names: itself, or those of a collection."""
    matched = config.pipeline_for(called)
    if matched is None or not matched[0].settings.each:
        return [(folder, called)]
    if folder.is_file():
        fail(f"{folder}: the pipeline {matched[0].name} is for collections, and a file cannot be one", DATA)
    found = [
        (path, f"{called}/{path.name}")
        for path in sorted(folder.iterdir())
        if path.is_dir()
        and not path.is_symlink()
        and not path.name.startswith(".")
        and os.fsencode(path.name) not in ignored_names(tuple(config.settings.watch.ignore))
    ]
    if not found:
        what = f"it would go to failed/: the pipeline {matched[0].name} makes a job of each folder in it"
        fail(f"{what}, and there is none", DATA)
    return found


def _beside(config: Config, folder: Path, jobs: Collection[Path]) -> list[str]:
    """Return the names of what lies in a collection and would be of no job, without what is ignored."""
    others = ignored_names(tuple(config.settings.watch.ignore))
    return [
        visible(display(os.fsencode(path.name)))
        for path in sorted(folder.iterdir())
        if path not in jobs and os.fsencode(path.name) not in others
    ]


def _planned(config: Config, folder: Path, called: str) -> _Planned:
    """Plan one job. Raises: ItemError: it would go to failed/ before its first step."""
    with tempfile.TemporaryDirectory(prefix="dittohead-plan-") as scratch:
        return asyncio.run(_plan(config, folder, called, Path(scratch)))


async def _plan(config: Config, folder: Path, name: str, scratch: Path) -> _Planned:
    found = await plan(config, registry.default(), Credentials(config.path).needed, folder, name, scratch)
    steps = []
    stopped = any(step.problem for step in found.steps)
    for step in found.steps:
        # What one step would do rests on those before: after a problem nothing more can be said.
        would = await _would(step) if not stopped else []
        steps.append((step, would))
        stopped = stopped or bool(step.problem)
    return found, steps


async def _would(step: PlannedStep) -> list[Planned]:
    """Return what a step would do, as far as can be said; what stands against it becomes its problem."""
    would: list[Planned] = []
    try:
        if step.do is not None:
            async for planned in step.do():
                would.append(planned)  # noqa: PERF401  # what was said before an error is kept
    except StepError as error:
        step.problem, step.begun = str(error), True
        step.waits = isinstance(error, (TargetError, TransientError))
    return would


def _as_json(found: Plan, steps: list[tuple[PlannedStep, list[Planned]]]) -> dict[str, Any]:
    return {
        "name": found.name,
        "pipeline": found.pipeline.name,
        "purposes": sorted(found.purposes),
        "files": found.files,
        "bytes": found.size,
        "left_out": found.left_out,
        "good": not any(step.problem for step, _ in steps),
        "steps": [
            {
                "name": step.name,
                "worker": step.worker,
                "for": step.purpose,
                "needs": step.needs,
                "target": step.target,
                "facts": step.found,
                "problem": step.problem,
                "waits": step.waits,
                "would": [vars(planned) for planned in would],
            }
            for step, would in steps
        ],
    }


def _print(found: Plan, steps: list[tuple[PlannedStep, list[Planned]]], most: int, *, whole: bool) -> None:
    asked = f", for {' and '.join(sorted(found.purposes))}" if found.purposes else ""
    size = f"{counted(found.files, 'file')}, {found.size:,} bytes"
    size += f" ({found.left_out})" if found.left_out else ""
    out.print(f"{escape(found.name)}: {size}, by {escape(found.pipeline.name)}{asked}")
    before: list[str] = []
    for step, would in steps:
        out.print()
        after = "" if step.needs == before else f", {escape(_after(step.needs))}"
        kind = "" if step.worker == step.name else f" ({escape(step.worker)})"
        target = f" → {escape(step.target)}" if step.target else ""
        out.print(f"[bold]{escape(step.name)}[/bold]{kind}{after}{target}")
        before = [*before, step.name]
        if step.problem:
            word = "[yellow]cannot be done now:[/yellow]" if step.waits else "[red]cannot be done:[/red]"
            out.print(f"  {word} {escape(step.problem)}")
        shown = would if whole else would[:most]
        for planned in shown:
            out.print(f"  {_line(planned)}")
        if len(would) > len(shown):
            out.print(f"  and {len(would) - len(shown)} more; --all shows them")
    out.print()
    problems = [step for step, _ in steps if step.problem]
    if problems and all(step.waits for step in problems):
        out.print("[yellow]It would wait, and go on by itself.[/yellow]")
    elif problems:
        begun = any(step.begun for step in problems)
        when = "when that step is reached" if begun else "before anything is written"
        out.print(f"[red]It would go to failed/ {when}.[/red]")
    else:
        out.print("Nothing was changed.")


def _after(needs: list[str]) -> str:
    return f"after {', '.join(needs)}" if needs else "at once"


def _line(planned: Planned) -> str:
    where = f" → {escape(planned.where)}" if planned.where else ""
    detail = f"  [dim]{escape(planned.detail)}[/dim]" if planned.detail else ""
    return f"{planned.action:<6} {escape(planned.what)}{where}{detail}"


COMMANDS = (plan_,)
