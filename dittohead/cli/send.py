"""Command send: hands over to the uploader's client, dittohead-send, which is a distribution of its own."""

from __future__ import annotations

from importlib.util import find_spec

import click

from dittohead.cli.base import UNAVAILABLE
from dittohead.cli.terminal import fail


@click.command(
    add_help_option=False,
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    },
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def send(arguments: tuple[str, ...]) -> None:
    """Send folders over SFTP to the inbox of another machine, as dittohead-send does.

    ARGUMENTS are FOLDER... user@host:[inbox] and options: `dittohead send --help` lists them.
    """
    if find_spec("dittohead_send") is None:
        fail("dittohead-send is not installed. Type: pip install dittohead-send", UNAVAILABLE)
    from dittohead_send.cli import main

    main(arguments)


COMMANDS = (send,)
