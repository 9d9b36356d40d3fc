"""What all commands share: --config anywhere, --json, errors with sysexits codes.

What only some commands need is imported where it is needed: rich alone takes longer than `--version` does.
"""

from __future__ import annotations

import errno
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from dittohead.model.errors import DittoheadError, NoSuchJob
from dittohead.system.trust import find

F = TypeVar("F", bound=Callable[..., Any])

# Exit statuses. Source: sysexits.h.
OK = os.EX_OK
USAGE = os.EX_USAGE
DATA = os.EX_DATAERR  # a job failed, a check did not hold
NO_INPUT = os.EX_NOINPUT  # no such job, folder or file
UNAVAILABLE = os.EX_UNAVAILABLE  # what was asked for cannot be done now
TEMPORARY = os.EX_TEMPFAIL  # another daemon holds the root
NO_PERMISSION = os.EX_NOPERM
CONFIG = os.EX_CONFIG

OUTPUT_LOST = os.EX_IOERR  # standard output cannot be written


#: What the kernel says of a path that leads to nothing of use; of anything else the place in the program
#: matters.
_OF_PATHS = frozenset(
    {
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENXIO,
        errno.EROFS,
    }
)


class Group(click.Group):
    """Commands whose --config may stand before or after their name, with errors said plainly."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_config_option())

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except OSError as error:  # --help is printed here
            raise _lost(error) from error

    def invoke(self, ctx: click.Context) -> Any:
        given = ctx.params.pop("config_path", None)
        ctx.obj = {"config": given}
        try:
            return super().invoke(ctx)
        except DittoheadError as error:
            _fail(str(error), getattr(error, "exit_status", UNAVAILABLE))
        except NoSuchJob as error:
            _fail(str(error), NO_INPUT)
        except PermissionError as error:
            _denied(error, ctx)
        except OSError as error:
            if ctx.invoked_subcommand != "run" and error.filename is not None and error.errno in _OF_PATHS:
                _fail(f"{_named(error.filename)}: {os.strerror(error.errno)}", NO_INPUT)
            raise _lost(error) from error

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            # Without click's own standalone mode, whose exit status for wrong usage is another, an
            # Exit comes back as a number.
            status = super().main(*args, **{**kwargs, "standalone_mode": False})
            _flush()
            sys.exit(status if isinstance(status, int) else OK)
        except click.UsageError as error:
            error.show()
            sys.exit(USAGE)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
        except click.Abort:
            click.echo("interrupted", err=True)
            sys.exit(130)
        except _OutputLost as lost:
            # What is still in the buffer has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if lost.reason:
                _fail(f"standard output cannot be written ({lost.reason})", OUTPUT_LOST)
            sys.exit(OK)


class _OutputLost(Exception):
    """Standard output cannot be written; without a reason when its reader has read enough (`| head`)."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _lost(error) from None


def _fail(message: str, status: int) -> NoReturn:
    from dittohead.cli.terminal import fail

    fail(message, status)


def _denied(error: PermissionError, ctx: click.Context) -> NoReturn:
    """Leave with what helps somebody who may not enter a place."""
    from dittohead.cli import advice

    words, unasked = advice.denied(error, _config_in_use(ctx))
    _fail(words, UNAVAILABLE if unasked else NO_PERMISSION)


def _named(path: str | bytes) -> str:
    """Return a path of an error on one line."""
    from dittohead.model.text import visible

    return visible(os.fsdecode(path))


def _lost(error: OSError) -> BaseException:
    """Return what an error means when it came from standard output, otherwise the error itself."""
    if isinstance(error, BrokenPipeError) and _reader_gone():
        return _OutputLost("")
    from dittohead.system.machine_faults import FULL

    if error.filename is None and error.errno in FULL:
        return _OutputLost(os.strerror(error.errno))
    return error


def _reader_gone() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # a pipe without a reader tells so unasked
    return bool(poll.poll(0))


def _config_option() -> click.Option:
    return click.Option(
        ["--config", "config_path"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The configuration; default ./config.yaml, then /etc/dittohead/config.yaml.",
    )


def with_config(command: F) -> F:
    """Give a command its own --config, so that it may stand after the command's name too."""

    def remember(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
        if value is not None:
            ctx.obj["config"] = value

    return click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        callback=remember,
        help="The configuration; default ./config.yaml, then /etc/dittohead/config.yaml.",
    )(command)


def json_option(command: F) -> F:
    """Give a reading command --json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def _config_in_use(ctx: click.Context) -> Path | None:
    try:
        return find(ctx.obj["config"])
    except (DittoheadError, OSError):
        return None


def config_path() -> Path:
    """Return the configuration's path; say so, once, where the service reads another. Raises: ConfigError."""
    ctx = click.get_current_context()
    path = find(ctx.obj["config"])
    if ctx.obj["config"] is None and not path.is_absolute() and "noted" not in ctx.obj:
        from dittohead.cli import advice

        ctx.obj["noted"] = True
        advice.note_other_service(path)
    return path
