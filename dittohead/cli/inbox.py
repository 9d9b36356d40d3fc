"""Say of anything that waits in the inbox why, since when, and what to type."""

from __future__ import annotations

import time
from typing import NotRequired, TypedDict

from dittohead.cli import advice
from dittohead.cli.base import config_path
from dittohead.cli.terminal import escape, out
from dittohead.model.shown import LiveStatus, ShownStatus
from dittohead.model.units import age


class _Why(TypedDict):
    """Why a thing waits."""

    kind: NotRequired[str]
    due: NotRequired[str]
    reason: str
    cure: str
    command: str
    since: float | None  #: seconds since the epoch


class ShownWaiting(_Why):
    """What waits in the inbox, and why."""

    name: str
    station: str


def waiting(name: str, found: ShownStatus) -> ShownWaiting | None:
    """Return why a thing of this name waits, from what `status` tells; None where none does."""
    now = found["live"]
    why = now.get("waiting", {}).get(name) or _overdue(name, now)
    if why is None and name in found["inbox"]:
        why = _untold(found["running_daemon"], now)
    return None if why is None else {"name": name, "station": "inbox", **why}


def _overdue(name: str, now: LiveStatus) -> _Why | None:
    told = {one["name"]: one for one in now.get("overdue", [])}.get(name)
    if told is None:
        return None
    return {
        "reason": told["reason"],
        "cure": told["cure"],
        "command": told["command"],
        "since": told["since"],
    }


def _untold(running: bool, now: LiveStatus) -> _Why:
    """Return what can be said where the daemon says nothing of it."""
    if not running:
        return _why("no daemon runs", "Start it", advice.start(config_path()))
    if now.get("held_count", 0) > len(now.get("held", {})):
        return _why("very many wait; why this one does stands in the daemon's log (claim.held)")
    return _why("its turn has not come")


def _why(reason: str, cure: str = "", command: str = "") -> _Why:
    return {"reason": reason, "cure": cure, "command": command, "since": None}


def print_waiting(fields: ShownWaiting) -> None:
    """Print all of it; nothing is cut or broken: a command must be typed as it is."""
    since = fields["since"]
    ago = "" if since is None else f", {age(max(time.time() - since, 0))}"
    out.print(f"[bold]{escape(fields['name'])}[/bold]  [yellow]waits in the inbox[/yellow]{ago}")
    for part in (fields.get("due"), fields["reason"], fields["cure"]):
        if part:
            out.print(f"  {escape(part)}", soft_wrap=True)
    if fields["command"]:
        out.print(f"  [bold]{escape(fields['command'])}[/bold]", soft_wrap=True)
