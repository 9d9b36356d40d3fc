"""What to type next, as the person who reads it: with sudo where they need it, with systemd where it runs."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

import click

from dittohead.cli.terminal import err, escape
from dittohead.system.control_socket import Reachable, reach, state_of
from dittohead.system.service_units import is_down, unit_of
from dittohead.system.trust import INSTALLED
from dittohead.system.users import owner

#: Where a running systemd says that it runs. Source: sd_booted(3).
_BOOTED = Path("/run/systemd/system")

#: Where an installed unit lies.
_UNITS = (Path("/etc/systemd/system"), Path("/usr/local/lib/systemd/system"), Path("/usr/lib/systemd/system"))


def start(config: Path | None) -> str:
    """Return the command that starts the daemon of a configuration."""
    installed = any((place / "dittohead.service").exists() for place in _UNITS)
    if installed and _BOOTED.is_dir() and config is not None and config.absolute() == INSTALLED:
        return "sudo systemctl start dittohead"
    return command("run")


def command(*words: str) -> str:
    """Return a command of dittohead for the same configuration as this one's."""
    given = click.get_current_context().obj["config"] if click.get_current_context(silent=True) else None
    return shlex.join(["dittohead", *(["--config", str(given)] if given is not None else []), *words])


def note_other_service(config: Path) -> None:
    """Say so where the service on this machine reads another configuration than this command. Blocking."""
    if INSTALLED.exists() and config.resolve() != INSTALLED.resolve() and unit_of(INSTALLED) is not None:
        typed = shlex.join(["dittohead", "--config", str(INSTALLED), *_behind_config()])
        err.print(
            f"[yellow]note:[/yellow] this command reads {escape(str(config.absolute()))}; "
            f"the service reads {INSTALLED}: {escape(typed)}"
        )


def _behind_config() -> list[str]:
    """Return what was typed behind `dittohead`, without --config and its file."""
    words, left = iter(sys.argv[1:]), []
    for word in words:
        if word == "--config":
            next(words, None)
        elif not word.startswith("--config="):
            left.append(word)
    return left


def untaken(state: Path, config: Path) -> str:
    """Return the sentence that no daemon takes what was handed over now; "" where one does, or may. Blocking.

    Args:
        state: the directory state/ below the root.
        config: the config.yaml in use.
    """
    found = reach(state)
    if found is Reachable.SILENT or (found is Reachable.BARRED and _service_is_down(config)):
        return not_running(state, config, ". What was handed over waits in the inbox")
    return ""


def _service_is_down(config: Path) -> bool:
    unit = unit_of(config) if _BOOTED.is_dir() else None
    return unit is not None and is_down(unit)


def denied(error: PermissionError, config: Path | None = None) -> tuple[str, bool]:
    """Return what to say of a place that this user may not enter, with what helps.

    Also whether it is for want of a daemon: one that runs would have been asked instead.

    Args:
        config: the configuration that is used, where there is one.
    """
    place = Path(os.fsdecode(error.filename)) if error.filename else Path.cwd()
    me, holder = owner(os.geteuid()).user, _holder(place)
    state = _state_around(place)
    if holder == me or (holder is None and state is None):
        words = (
            f"{place}: permission denied for {me}. If it lies above where you are, go elsewhere first: cd /"
        )
        return words, False
    if state is None:
        return f"{place}: permission denied for {me}. Type: {as_user(holder)}", False
    found = reach(state)
    if found is Reachable.SILENT:
        return not_running(state, config, f", and {me} may not read its store"), True
    if found is Reachable.BARRED:
        words = f"{me} may neither ask the daemon (operators may: docs/rights.md) nor read its store"
    else:
        words = f"{me} may not read the store, and this command reads it itself"
    return f"{state.parent}: {words}. Who may use sudo can type: {as_user(holder)}", False


def unasked(state: Path, config: Path | None) -> tuple[str, bool]:
    """Return why nobody answers whom only a daemon could; and whether that is for want of a daemon."""
    if reach(state) is not Reachable.BARRED:
        return not_running(state, config), True
    me, holder = owner(os.geteuid()).user, _holder(state)
    words = f"{state.parent}: {me} may not ask the daemon (operators may: docs/rights.md)"
    return f"{words}. Who may use sudo can type: {as_user(holder)}", False


def not_running(state: Path, config: Path | None, more: str = "") -> str:
    """Return the sentence that no daemon answers, with the command that starts it and who may type it.

    Args:
        state: the directory state/ below the root; the owner of what is in it runs the daemon.
        config: the config.yaml in use; None for the default one.
        more: what else is in the way, added behind "(or does not answer)"; "" for nothing.
    """
    me, holder, command = owner(os.geteuid()).user, _holder(state), start(config)
    words = f"{state.parent}: the daemon is not running (or does not answer){more}"
    if os.geteuid() == 0 or holder == me:
        return f"{words}. Start it: {command}"
    if not command.startswith("sudo "):
        command = f"sudo {f'-u {holder} ' if holder else ''}{command}"
    return f"{words}. Ask the person who administers this machine: {command}"


def as_user(name: str | None) -> str:
    """Return the command that was typed, as another user types it; root without a name."""
    return f"sudo {f'-u {name} ' if name else ''}{shlex.join(['dittohead', *sys.argv[1:]])}"


def _state_around(place: Path) -> Path | None:
    """Return the state/ of a root that a place lies in; None where it lies elsewhere."""
    return next((path for path in (place, *place.parents) if path == state_of(path.parent)), None)


def _holder(place: Path) -> str | None:
    """Return who owns a place, or the nearest one above it that can be seen; None for root's."""
    for path in (place, *place.parents):
        try:
            uid = path.stat().st_uid
        except OSError:
            continue
        return None if uid == 0 else owner(uid).user
    return None
