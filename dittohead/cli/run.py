"""Command run: the daemon itself."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import click

from dittohead.cli.arguments import Span
from dittohead.cli.base import with_config


@click.command()
@with_config
@click.option(
    "--log-json/--log-pretty", default=None, help="Log lines; by default JSON unless on a terminal."
)
@click.option(
    "--until-empty",
    is_flag=True,
    help="End when inbox, jobs and sources hold nothing more: for a scheduled run.",
)
@click.option(
    "--patience",
    type=Span(),
    default="5m",
    show_default=True,
    help="With --until-empty: leave what has only waited for this long, such as a target that is down.",
)
def run(log_json: bool | None, until_empty: bool, patience: float) -> None:
    """Run the daemon in the foreground, until SIGTERM or Ctrl-C.

    With --until-empty the exit status is 0 when everything is done, 65 when a job failed, and 75 when
    something is left that waits or is frozen.
    """
    with _no_collection():
        from dittohead import daemon
        from dittohead.cli.open_config import load_config
        from dittohead.system import log

    daemon.log_in_thread()
    config = load_config(probe=True)
    log.configure(level=config.settings.log, json=log_json)
    status = daemon.main(config, patience_s=patience if until_empty else None)
    if status:
        raise click.exceptions.Exit(status)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Look for no garbage while much is imported: all of it stays, and is gone through again and again."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


COMMANDS = (run,)
