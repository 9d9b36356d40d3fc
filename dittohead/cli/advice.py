"""What to type next, as the person who reads it: with sudo where they need it, with systemd where it runs."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from dittohead.owners import owner

#: Where a running systemd says that it runs. Source: sd_booted(3).
_BOOTED = Path("/run/systemd/system")

#: Where an installed unit lies.
_UNITS = (Path("/etc/systemd/system"), Path("/usr/local/lib/systemd/system"), Path("/usr/lib/systemd/system"))

#: The configuration that the installed unit runs by.
_INSTALLED = Path("/etc/dittohead/config.yaml")


def start(config: Path | None) -> str:
    """Return the command that starts the daemon of a configuration."""
    installed = any((place / "dittohead.service").exists() for place in _UNITS)
    if installed and _BOOTED.is_dir() and config is not None and config.absolute() == _INSTALLED:
        return "sudo systemctl start dittohead"
    return "dittohead run"


def denied(error: PermissionError) -> str:
    """Return what to say of a place that this user may not enter, with the command that helps."""
    place = Path(os.fsdecode(error.filename)) if error.filename else Path.cwd()
    me, holder = owner(os.geteuid()).user, _holder(place)
    if holder is None or holder == me:
        return (
            f"{place}: permission denied for {me}. If it lies above where you are, go elsewhere first: cd /"
        )
    command = shlex.join(["dittohead", *sys.argv[1:]])
    return f"{place}: permission denied for {me}. Type: sudo -u {holder} {command}"


def _holder(place: Path) -> str | None:
    """Return who owns a place, or the nearest one above it that can be seen; None for root's."""
    for path in (place, *place.parents):
        try:
            uid = path.stat().st_uid
        except OSError:
            continue
        return None if uid == 0 else owner(uid).user
    return None
