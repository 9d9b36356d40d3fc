"""Command rerun: jobs named, or all that would do otherwise under the current configuration."""

from __future__ import annotations

from typing import Any

import click

from dittohead.cli.base import json_option, with_config
from dittohead.cli.jobs import ask


@click.command()
@with_config
@json_option
@click.argument("jobs", nargs=-1, metavar="[JOB...]")
@click.option("--from", "step", help="From this step on; earlier steps keep their results.")
@click.option("--pipeline", help="Instead of naming jobs: of this pipeline, those that --changed selects.")
@click.option(
    "--changed", is_flag=True, help="Those that the pipeline, as it is configured now, would do otherwise."
)
@click.option("--tools", is_flag=True, help="Those too that were done with other versions of tools.")
@click.option("--dry-run", is_flag=True, help="Only say how many they are, and why.")
def rerun(
    as_json: bool,
    jobs: tuple[str, ...],
    step: str | None,
    pipeline: str | None,
    changed: bool,
    tools: bool,
    dry_run: bool,
) -> None:
    """Do a finished job again: as a new job from the inbox, or with --from the same job from a step."""
    if not changed:
        if pipeline or tools or dry_run or as_json:
            raise click.UsageError("--pipeline, --tools, --dry-run and --json go with --changed")
        if not jobs:
            raise click.UsageError("name jobs, or give --pipeline NAME --changed")
        more: dict[str, Any] = {"from": step} if step else {}
        ask("rerun", jobs, **more)
        return
    if as_json and not dry_run:
        raise click.UsageError("--json goes with --dry-run")
    if jobs or step or not pipeline:
        raise click.UsageError("--changed goes with --pipeline NAME, and with no JOB and no --from")
    from dittohead.cli.changed import rerun_changed

    rerun_changed(pipeline, tools=tools, dry_run=dry_run, as_json=as_json)


COMMANDS = (rerun,)
