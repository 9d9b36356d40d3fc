"""The command line: one module for each family of commands; the only place that prints."""

from __future__ import annotations

import click

from dittohead import __version__
from dittohead.cli import jobs, notices, plan, repair, rerun, run, setup, sources, undo, watch
from dittohead.cli.base import Group


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="dittohead")
def main() -> None:
    """Carry folders dropped in an inbox through a pipeline without losing a byte.

    Shell completion: eval "$(_DITTOHEAD_COMPLETE=bash_source dittohead)"
    """


for command in (
    *setup.COMMANDS,
    *run.COMMANDS,
    *jobs.COMMANDS,
    *plan.COMMANDS,
    *rerun.COMMANDS,
    *undo.COMMANDS,
    *watch.COMMANDS,
    *repair.COMMANDS,
    *sources.COMMANDS,
    *notices.COMMANDS,
):
    main.add_command(command)
