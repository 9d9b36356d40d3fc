"""Who besides us may write, or read, what the program goes by: its configuration, secrets and programs.

A configuration names commands, and hosts that keys are shown to: who may write it acts as those who use it.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

from dittohead.model.errors import ConfigError
from dittohead.system.users import owner

#: Where the installation puts it.
INSTALLED = Path("/etc/dittohead/config.yaml")

#: Where the configuration is searched for, in this order.
DEFAULTS = (Path("config.yaml"), INSTALLED)


def find(path: Path | None) -> Path:
    """Return the configuration's path: the one given, or the first default there is.

    Raises: ConfigError: none is there, or one that somebody else may have put there.
    """
    if path is not None:
        return path
    for candidate in DEFAULTS:
        if _is_there(candidate):
            if not candidate.is_absolute():
                check_found(candidate)
            return candidate
    raise ConfigError(
        "there is no configuration: neither ./config.yaml nor /etc/dittohead/config.yaml",
        hint="Write one with: dittohead init",
    )


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except PermissionError:  # in a directory that is closed to us, as with sudo -u in one's own
        return False


def check_found(path: Path) -> None:
    """See that a configuration may be used that nobody named, and that lies where somebody happens to be.

    As git does with a repository (safe.directory): in a directory of somebody else's it may be anything.
    Raises: ConfigError: somebody else owns it or may change it.
    """
    why = _distrust(path)
    if why:
        raise ConfigError(
            f"this configuration is not used, for nobody named it and {why}",
            where=str(path.absolute()),
            hint=f"It could have any command run as {owner(os.geteuid()).user}. To use it all the same: "
            f"--config {shlex.quote(f'./{path}')}; for the installed one: --config {INSTALLED}",
        )


def _distrust(path: Path) -> str:
    """Return why a file is not to be trusted; "" where it may be."""
    directory = path.absolute().parent
    looked = [
        (f"{directory} belongs", os.stat(directory)),
        ("it belongs", os.stat(path)),
        ("the link belongs", os.lstat(path)),
    ]
    for what, status in looked:
        if status.st_uid not in _ours():
            return f"{what} to {owner(status.st_uid).user}"
    who = writers(directory)
    if who:
        return f"{who} may write to {directory}"
    who = writers(path)
    return f"{who} may write to it" if who else ""


def _ours() -> set[int]:
    """Return whose files are ours: our own, root's, and for root those of the user who called sudo."""
    ours, caller = {os.geteuid(), 0}, os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and caller.isascii() and caller.isdecimal():
        ours.add(int(caller))
    return ours


def writers(path: Path) -> str:
    """Return who besides its owner may write a file, or put another in a directory's; "" for nobody."""
    status = os.stat(path)
    if stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX:
        return ""  # they may add to it, and replace nothing
    return _who(path, status, stat.S_IWGRP, stat.S_IWOTH)


def readers(path: Path) -> str:
    """Return who besides its owner may read a file; "" for nobody."""
    return _who(path, os.stat(path), stat.S_IRGRP, stat.S_IROTH)


def _who(path: Path, status: os.stat_result, group: int, others: int) -> str:
    if status.st_mode & others and _is_reached(path, None):
        return "everybody"
    if status.st_mode & group and not _is_private(status) and _is_reached(path, status.st_gid):
        return f"the group {_group(status.st_gid)}"
    return ""


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _is_private(status: os.stat_result) -> bool:
    """Tell whether a file's group is its owner's alone, as many systems give each user one."""
    try:
        group, user = grp.getgrgid(status.st_gid), pwd.getpwuid(status.st_uid)
    except KeyError:
        return False
    return group.gr_name == user.pw_name and not set(group.gr_mem) - {user.pw_name}


def _is_reached(path: Path, gid: int | None) -> bool:
    """Tell whether everybody, or a group's members, can come as far as a path's own permissions."""
    for parent in path.resolve().parents:
        status = os.stat(parent)
        by_group = gid is not None and status.st_gid == gid and status.st_mode & stat.S_IXGRP
        if not (by_group or status.st_mode & stat.S_IXOTH):
            return False
    return True


def exposed(config: Path) -> Iterator[tuple[str, str]]:
    """Yield (path, what is wrong and what to do) of a configuration, what lies above it, and its secrets."""
    config = config.resolve()
    yield from _written(config)
    status = os.stat(config)
    for parent in config.parents:
        who = os.stat(parent).st_uid
        if who not in _ours() | {status.st_uid}:
            yield str(parent), f"it belongs to {owner(who).user}, who may put another {config.name} there"
        yield from _written(parent)
    for place in _secrets(config):
        yield from _secret_place(place)


def _secrets(config: Path) -> Iterator[Path]:
    given = os.environ.get("CREDENTIALS_DIRECTORY")
    if given:
        yield Path(given)
    yield config.parent / "credentials"


def _secret_place(place: Path) -> Iterator[tuple[str, str]]:
    try:
        names = sorted(os.listdir(place))
    except OSError:  # there is none, or it is closed to us
        return
    yield from _written(place)
    for name in names:
        path = place / name
        if not path.is_file():
            continue
        who = readers(path) or writers(path)
        if who:
            yield str(path), f"{who} may read or write this credential: chmod 600 {shlex.quote(str(path))}"


def written(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (path, what is wrong and what to do) of a file that is gone by, and its directory."""
    for place in (path, path.parent):
        try:
            yield from _written(place)
        except OSError:  # it is not there, which others say
            return


def _written(path: Path) -> Iterator[tuple[str, str]]:
    who = writers(path)
    if who:
        yield str(path), f"{who} may write to it: chmod go-w {shlex.quote(str(path))}"
