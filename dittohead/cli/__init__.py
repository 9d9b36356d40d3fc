"""The command line: one module for each family of commands; the only place that prints."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

import click
from click.shell_completion import CompletionItem

from dittohead import __version__
from dittohead.cli.base import Group


class Of(NamedTuple):
    """Where a command is, and what is said about it where all are listed."""

    module: str
    help: str  #: the first sentence of its own


#: Each command. Its module is imported when it is given, and not when it is listed: a command that asks the
#: running daemon imports nothing that it does not use.
MODULES = {
    "init": Of("setup", "Write a commented config.yaml and make the stations."),
    "check": Of("setup", "Check config.yaml: every error with its line, and what to write instead."),
    "doctor": Of(
        "setup", "Look at permissions, programs, the image library and the targets; say what to do."
    ),
    "reload": Of("reload", "Have the running daemon read config.yaml again, and wait for its answer."),
    "schema": Of("setup", "Print the JSON Schema of config.yaml, for editors."),
    "run": Of("run", "Run the daemon in the foreground, until SIGTERM or Ctrl-C."),
    "drop": Of("drop", "Upload folders the right way: copy as .NAME, make durable, rename to NAME."),
    "send": Of("send", "Send folders over SFTP to the inbox of another machine, as dittohead-send does."),
    "status": Of("status", "Show what needs attention, what runs, what waits and why."),
    "list": Of("status", "List jobs, the latest first: state, name, pipeline, age, and why or how much."),
    "batches": Of(
        "status",
        "List the collections that were dropped, the latest first: how many of their folders are done.",
    ),
    "show": Of("jobs", "Show one job: its steps, events and where everything is."),
    "retry": Of("jobs", "Try failed jobs again, each from the step that failed; wake one that waits."),
    "rename": Of("jobs", "Do a failed folder again under another name."),
    "replace": Of(
        "replace", "Put another file in the place of FILE in a failed folder, and run the folder again."
    ),
    "dismiss": Of(
        "jobs", "Note that nothing more is to be done about a failure; its folder stays in failed/."
    ),
    "freeze": Of("jobs", "Stop a job where it is until it is thawed."),
    "thaw": Of("jobs", "Let a frozen job go on."),
    "cancel": Of("jobs", "End a job; its folder goes to failed/ and can be retried."),
    "poke": Of("jobs", "Look now at a job that waits for an answer, a retry or a paused target."),
    "verify": Of("jobs", "Check a finished job's receipt against what is on disk and at the targets."),
    "delete": Of(
        "jobs", "Remove the folder of a job that has ended from done/ or failed/; its receipt stays."
    ),
    "approve": Of("jobs", "Approve that a folder is deleted, as somebody else has asked."),
    "keep": Of("jobs", "Keep a folder that somebody has asked to delete."),
    "plan": Of(
        "plan", "Show what would be done with FOLDER, step by step; nothing is changed, here or outside."
    ),
    "rerun": Of(
        "rerun",
        "Do a finished job again: as a new job from the inbox, or with --from the same job from a step.",
    ),
    "undo": Of("undo", "Take back what a job created in other systems: records, nodes, links."),
    "logs": Of("watch", "Show what the programs of a job's steps have printed, such as rsync's own words."),
    "rebuild": Of("repair", "Rebuild a damaged or lost store from receipts, stations and work/."),
    "source": Of("sources", "Look at what brings work in from elsewhere, and have it look or fetch again."),
    "ocfl": Of("ocfl", "Look at an OCFL storage root: list its objects, verify them, export one."),
    "notify": Of(
        "notices", "Look at who gets which notices, send a test, enable a receiver that was disabled."
    ),
}


class _Commands(Group):
    """Commands that are imported when they are given."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.commands and cmd_name in MODULES:
            for command in import_module(f"{__name__}.{MODULES[cmd_name].module}").COMMANDS:
                self.add_command(command)
        return self.commands.get(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        room = formatter.width - 6 - max(map(len, MODULES))  # as click's own does, which imports all
        with formatter.section("Commands"):
            formatter.write_dl([(name, _help(name, room)) for name in self.list_commands(ctx)])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)  # a group's own imports all
        return [*(CompletionItem(name, help=_help(name)) for name in names), *options]


def _help(name: str, room: int = 45) -> str:
    """Return a command's help on one line of so many characters; 45 are click's own, in completion."""
    return click.Command(name, help=MODULES[name].help).get_short_help_str(room)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="dittohead")
def main() -> None:
    """Carry folders dropped in an inbox through a pipeline without losing a byte.

    Shell completion: eval "$(_DITTOHEAD_COMPLETE=bash_source dittohead)"
    """
