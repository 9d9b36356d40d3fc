"""Which of the three set-ups for uploaders an inbox has, what is wrong with it, and what in it is held.

The set-ups are those of docs/permissions.md: the same user, the group, the capability.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dittohead.folders.stations import Stations
from dittohead.model.states import Station
from dittohead.model.text import counted, display, own_group, shell_word
from dittohead.system import capabilities
from dittohead.system.users import owner

#: Kinds of entries in an access control list. Source: linux/posix_acl.h.
_USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x02, 0x04, 0x08, 0x10, 0x20
_ALL, _WRITE = 7, 2

#: What neither the group nor a default list helps.
_UNLESS = (
    "what asks for mode 0755 by itself (rsync -a, sftp's put -r) is held, unless it is uploaded as "
    "docs/drop-folder.md says"
)

#: Folders that are named; of the others the number is told.
_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class InboxSetup:
    """One thing that was seen."""

    good: bool
    message: str


def examine(stations: Stations) -> Iterator[InboxSetup]:
    """Look at the inbox as this user. Blocking. Raises: OSError: there is none, or it may not be listed."""
    yield from _set_up(stations.path(Station.INBOX))
    yield from _closed(stations)


def is_shared(inbox: Path) -> bool:
    """Tell whether others than exactly this user may create folders in the inbox."""
    return bool(inbox.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH) or _default_list(inbox))


def _set_up(inbox: Path) -> Iterator[InboxSetup]:
    if capabilities.has(capabilities.DAC_OVERRIDE):
        yield _powerful(inbox)
    elif entries := _default_list(inbox):
        yield from _by_list(inbox, entries)
    elif is_shared(inbox):
        yield from _by_group(inbox)
    else:
        yield InboxSetup(good=True, message="uploads come from exactly this user (same uid)")


def _powerful(inbox: Path) -> InboxSetup:
    able = "this user may move every upload (CAP_DAC_OVERRIDE)"
    holder = os.stat(inbox).st_uid
    if os.geteuid() != 0:
        return InboxSetup(good=True, message=able)
    if holder == 0:
        return InboxSetup(
            good=False, message=f"{able}; it is root: better run the daemon as a user of its own"
        )
    user = shell_word(os.fsencode(owner(holder).user))
    return InboxSetup(
        good=False, message=f"root may move all; whether the daemon may: sudo -u {user} dittohead doctor"
    )


def _by_list(inbox: Path, entries: list[tuple[int, int, int]]) -> Iterator[InboxSetup]:
    """Judge the inbox's default access list, which every folder made in it gets."""
    word, me = _word(inbox), shell_word(os.fsencode(owner(os.geteuid()).user))
    if _rights_of_daemon(inbox, entries) != _ALL:
        yield InboxSetup(
            good=False,
            message="the inbox's default access list does not let the daemon write to what is uploaded, and "
            f"so it may not move it. Type: sudo setfacl -d -m u:{me}:rwx,o::- {word}",
        )
    elif any(tag == _OTHER and rights & _WRITE for tag, rights, _ in entries):
        yield InboxSetup(
            good=False,
            message="by the inbox's default access list everybody on this machine may change what is "
            f"uploaded. Type: sudo setfacl -d -m o::- {word}",
        )
    else:
        yield InboxSetup(
            good=True, message=f"uploads are movable by the inbox's default access list; {_UNLESS}"
        )


def _by_group(inbox: Path) -> Iterator[InboxSetup]:
    status, group, word = os.stat(inbox), own_group(), _word(inbox)
    if status.st_gid not in (os.getegid(), *os.getgroups()) or not status.st_mode & stat.S_ISGID:
        yield InboxSetup(
            good=False,
            message="folders made in the inbox do not get the daemon's group, and so it may not move them. "
            f"Type: sudo chgrp {group} {word} && sudo chmod g+s {word}",
        )
        return
    name, join = _group(status.st_gid), f"sudo usermod -aG {_group(status.st_gid)} NAME"
    alone = not _members(status.st_gid) - {owner(os.geteuid()).user}
    if alone and not status.st_mode & stat.S_IWOTH:
        yield InboxSetup(
            good=False,
            message=f"nobody but the daemon is in the group {name}, and others may not upload here. "
            f"For each uploader type: {join}",
        )
        return
    more = f"; uploaders over ssh must be in that group, and nobody is: {join}" if alone else ""
    yield InboxSetup(
        good=True,
        message=f"uploads are movable when their folder is writable for the group {name}; {_UNLESS}{more}",
    )


def _closed(stations: Stations) -> Iterator[InboxSetup]:
    """Name the folders that lie in the inbox now and may not be moved."""
    found = [(a, why) for a in stations.scan().arrivals if (why := stations.immovable(a.folder)) is not None]
    for arrival, why in found[:_NAMED]:
        message = f"{display(arrival.folder)} is held: {why.what}. {why.cure}. Type: {why.command}"
        yield InboxSetup(good=False, message=message)
    if (more := len(found) - _NAMED) > 0:
        yield InboxSetup(
            good=False, message=f"{counted(more, 'folder')} more held like that: dittohead status"
        )


def _default_list(path: Path) -> list[tuple[int, int, int]]:
    """Return the entries (kind, rights, number) of a directory's default access list; [] for none."""
    try:
        data = os.getxattr(path, "system.posix_acl_default")
    except OSError:
        return []
    return list(struct.iter_unpack("<HHI", data[4:])) if len(data) % 8 == 4 else []


def _rights_of_daemon(inbox: Path, entries: list[tuple[int, int, int]]) -> int:
    """Return what a default list lets the daemon do in a folder that another user makes. Source: acl(5)."""
    mask = next((rights for tag, rights, _ in entries if tag == _MASK), _ALL)
    named = [rights for tag, rights, number in entries if tag == _USER and number == os.geteuid()]
    if named:
        return named[0] & mask
    groups, status = {os.getegid(), *os.getgroups()}, os.stat(inbox)
    ours = [rights for tag, rights, number in entries if tag == _GROUP and number in groups]
    if status.st_mode & stat.S_ISGID and status.st_gid in groups:
        ours += [rights for tag, rights, _ in entries if tag == _GROUP_OBJ]
    if ours:
        return max(rights & mask for rights in ours)
    return next((rights for tag, rights, _ in entries if tag == _OTHER), 0)


def _members(gid: int) -> set[str]:
    """Return the users of a group, as far as this system lists them."""
    try:
        listed = set(grp.getgrgid(gid).gr_mem)
    except KeyError:
        listed = set()
    return listed | {user.pw_name for user in pwd.getpwall() if user.pw_gid == gid}


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _word(path: Path) -> str:
    return shell_word(os.fsencode(path))
