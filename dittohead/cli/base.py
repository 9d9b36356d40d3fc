"""What all commands share: --config anywhere, errors with sysexits codes, JSON, the store for readers."""

from __future__ import annotations

import errno
import json
import os
import select
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click
from rich.console import Console
from rich.markup import escape as markup

from dittohead import config as config_module
from dittohead.cli import advice
from dittohead.config import Config
from dittohead.errors import DittoheadError, StoreError
from dittohead.model import visible
from dittohead.opening import open_store
from dittohead.queries import NoSuchJob
from dittohead.stations import Stations
from dittohead.store import Store, sqlite_url
from dittohead.wants import FULL

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


class _Console(Console):
    """Leaves it to `Group` what is done when nobody reads on."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


# Where it is no terminal, lines are for programs: never cut or wrapped.
out = _Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 1000)
err = Console(stderr=True, highlight=False, soft_wrap=True)


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
            fail(str(error), getattr(error, "exit_status", UNAVAILABLE))
        except NoSuchJob as error:
            fail(str(error), NO_INPUT)
        except PermissionError as error:
            words, unasked = advice.denied(error, _config_in_use(ctx))
            fail(words, UNAVAILABLE if unasked else NO_PERMISSION)
        except OSError as error:
            if ctx.invoked_subcommand != "run" and error.filename is not None and error.errno in _OF_PATHS:
                fail(f"{_named(error.filename)}: {os.strerror(error.errno)}", NO_INPUT)
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
            err.print("interrupted")
            sys.exit(130)
        except _OutputLost as lost:
            # What is still in the buffer has nowhere to go.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if lost.reason:
                fail(f"standard output cannot be written ({lost.reason})", OUTPUT_LOST)
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


def _named(path: str | bytes) -> str:
    """Return a path of an error on one line."""
    return visible(os.fsdecode(path))


def _lost(error: OSError) -> BaseException:
    """Return what an error means when it came from standard output, else the error itself."""
    if isinstance(error, BrokenPipeError) and _reader_gone():
        return _OutputLost("")
    if error.filename is None and error.errno in FULL:
        return _OutputLost(os.strerror(error.errno))
    return error


def _reader_gone() -> bool:
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # a pipe without a reader tells so unasked
    return bool(poll.poll(0))


def fail(message: str, status: int) -> NoReturn:
    """Print an error and leave with a sysexits status."""
    for line in message.splitlines():
        err.print(f"[red]error:[/red] {escape(line)}")
    sys.exit(status)


def escape(text: str) -> str:
    """Return text from outside for a terminal: no markup, no control characters."""
    return markup("".join(c if c.isprintable() or c == " " else repr(c)[1:-1] for c in text))


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
        return config_module.find(ctx.obj["config"])
    except (DittoheadError, OSError):
        return None


def config_path() -> Path:
    """Return the configuration's path. Raises: ConfigError: there is none."""
    return config_module.find(click.get_current_context().obj["config"])


def load_config(*, probe: bool = False) -> Config:
    """Load the configuration. Raises: ConfigError.

    Args:
        probe: also check what this host can do; for commands that start work.
    """
    return config_module.load(config_path(), probe=probe)


def print_json(value: Any) -> None:
    """Print JSON, indented for people and still one document for programs."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def has_store(config: Config) -> bool:
    """Tell whether there is a store to read; one that is no file here is taken to be there."""
    return config.settings.store != "sqlite" or _has_file(config.root)


def _has_file(root: Path) -> bool:
    try:
        os.stat(Stations(root).state / "dittohead.sqlite3")
    except FileNotFoundError:  # no other error: who may not look is to be told so
        return False
    return True


@contextmanager
def reading(config: Config) -> Iterator[tuple[Store, Stations]]:
    """Open the store to read, whether a daemon runs or not.

    Raises: StoreError: there is no store yet, or it cannot be read.
    """
    with reading_at(config.root, config) as store:
        yield store, Stations(config.root)


@contextmanager
def reading_at(root: Path, config: Config | None) -> Iterator[Store]:
    """Open the store of a root to read; the embedded one where the configuration cannot be read.

    Raises: StoreError: there is no store yet, or it cannot be read.
    """
    stations = Stations(root)
    if config is None or config.settings.store == "sqlite":
        file = stations.state / "dittohead.sqlite3"
        if not _has_file(root):
            start = advice.start(config.path if config is not None else None)
            hint = f"It is made when the daemon first starts: {start}"
            raise StoreError("there is no store here yet", where=str(stations.state), hint=hint)
        if not os.access(file, os.R_OK | os.W_OK):  # SQLite would only say that it cannot be opened
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))
    if config is None:
        store = Store.open(sqlite_url(stations.state), check=False)
    else:
        store = open_store(config, stations)
    try:
        yield store
    finally:
        store.close()
