"""The command line: one module for each family of commands; the only place that prints."""

from __future__ import annotations

from importlib import import_module

import click

from dittohead import __version__
from dittohead.cli.base import Group

#: The module of each command. Each is imported when its command is given: all of them together take longer
#: than most commands do.
MODULES = {
    "init": "setup",
    "check": "setup",
    "doctor": "setup",
    "reload": "setup",
    "schema": "setup",
    "run": "run",
    "drop": "run",
    "status": "status",
    "list": "status",
    "batches": "status",
    "show": "jobs",
    "retry": "jobs",
    "rename": "jobs",
    "replace": "replace",
    "dismiss": "jobs",
    "freeze": "jobs",
    "thaw": "jobs",
    "cancel": "jobs",
    "poke": "jobs",
    "verify": "jobs",
    "plan": "plan",
    "rerun": "rerun",
    "undo": "undo",
    "logs": "watch",
    "rebuild": "repair",
    "source": "sources",
    "notify": "notices",
}


class _Commands(Group):
    """Commands that are imported when they are given, or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name in MODULES:
            for command in import_module(f"{__name__}.{MODULES[cmd_name]}").COMMANDS:
                self.add_command(command)
        return self.commands.get(cmd_name)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="dittohead")
def main() -> None:
    """Carry folders dropped in an inbox through a pipeline without losing a byte.

    Shell completion: eval "$(_DITTOHEAD_COMPLETE=bash_source dittohead)"
    """
