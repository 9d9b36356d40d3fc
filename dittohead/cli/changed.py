"""Rerun what would do otherwise under the current configuration: which jobs those are, and why."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from dittohead.admin.outdated import OutdatedJob, compare
from dittohead.cli.base import UNAVAILABLE
from dittohead.cli.jobs import ask
from dittohead.cli.open_config import load_config, reading
from dittohead.cli.terminal import err, escape, fail, out, print_json
from dittohead.config import registry
from dittohead.config.loader import Config
from dittohead.engine import live_status
from dittohead.folders.stations import Stations
from dittohead.system import lock


def rerun_changed(pipeline: str, *, tools: bool, dry_run: bool, as_json: bool) -> None:
    """Do again what a pipeline has done and would do otherwise now, or only say what that is.

    Args:
        tools: what was done with other versions of tools, too.

    Raises: UsageError: there is no such pipeline; ConfigError, StoreError.
    """
    config = load_config()
    known = [found.name for found in config.pipelines]
    if pipeline not in known:
        raise click.UsageError(f"there is no pipeline {pipeline}; there are: {', '.join(known)}")
    _see_the_daemon_knows(config, dry_run=dry_run)
    found = _compared(config, pipeline)
    chosen = [finding for finding in found if finding.changes or (tools and finding.tools)]
    others = [finding for finding in found if finding.tools and finding not in chosen]
    if as_json:
        print_json(_as_json(pipeline, len(found), chosen, others))
    else:
        _print(pipeline, len(found), chosen, others)
    if chosen and not dry_run:
        ask("rerun", tuple(finding.job.id for finding in chosen))


def _see_the_daemon_knows(config: Config, *, dry_run: bool) -> None:
    """What is selected here is done by the daemon, by the configuration that it has read."""
    state = Stations(config.root).state
    if not lock.is_held(state) or live_status.read(state).get("config_sha256") == config.digest:
        return
    text = f"{config.path} was changed since the daemon read it. First: systemctl reload dittohead"
    if not dry_run:
        fail(text, UNAVAILABLE)
    err.print(f"[yellow]note:[/yellow] {escape(text)}")


def _compared(config: Config, pipeline: str) -> list[OutdatedJob]:
    with reading(config) as (store, stations):
        return list(compare(config, pipeline, registry.default(), store, stations))


def _as_json(
    pipeline: str, done: int, chosen: list[OutdatedJob], others: list[OutdatedJob]
) -> dict[str, Any]:
    def fields(findings: list[OutdatedJob]) -> list[dict[str, Any]]:
        return [
            {"id": f.job.id, "name": f.job.name, "changes": f.changes, "tools": f.tools} for f in findings
        ]

    return {"pipeline": pipeline, "done": done, "selected": fields(chosen), "other_tools": fields(others)}


def _print(pipeline: str, done: int, chosen: list[OutdatedJob], others: list[OutdatedJob]) -> None:
    out.print(f"{len(chosen)} of {done} folders that {escape(pipeline)} has done would be done otherwise now")
    for why, count in Counter(why for f in chosen for why in f.changes or f.tools).most_common():
        out.print(f"  {count:>6}  {escape(why)}")
    if others:
        out.print(f"{len(others)} more were done with other versions of tools; --tools selects them too")
        for why, count in Counter(why for f in others for why in f.tools).most_common():
            out.print(f"  {count:>6}  {escape(why)}")
