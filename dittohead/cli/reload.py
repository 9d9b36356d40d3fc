"""Command reload: the running daemon reads its configuration again."""

from __future__ import annotations

import click

from dittohead.cli import advice
from dittohead.cli.base import NO_PERMISSION, UNAVAILABLE, config_path, with_config
from dittohead.cli.daemon_client import DaemonClient
from dittohead.cli.terminal import err, escape, fail, out
from dittohead.cli.view import find_place
from dittohead.model.errors import ConfigError
from dittohead.system.control_socket import state_of


@click.command()
@with_config
def reload() -> None:
    """Have the running daemon read config.yaml again, and wait for its answer.

    A file with errors is refused, with all of them, and the daemon goes on with the one it has. Jobs under
    way keep the options they were claimed with.
    """
    path = config_path()
    state = state_of(find_place().root)
    client = DaemonClient.open(state)  # what is wrong with the file is said once: by the daemon
    if client is None:
        words, unasked = advice.unasked(state, path)
        fail(words, UNAVAILABLE if unasked else NO_PERMISSION)
    try:
        out.print(escape(client.reload()))
    except ConfigError:
        err.print("[red]refused:[/red] the daemon goes on with the configuration that it has")
        raise
    finally:
        client.close()


COMMANDS = (reload,)
