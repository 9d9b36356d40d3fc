"""Who owns a folder: the names of its user and their groups, as this system knows them."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """A folder's owner."""

    uid: int
    user: str  #: the number where the system has no name for it
    groups: frozenset[str]

    def may_use(self, uploaders: Sequence[str]) -> bool:
        """Tell whether one of the names is the owner's or that of one of their groups.

        Args:
            uploaders: names of groups and users, or a user's number; empty admits everybody.
        """
        return not uploaders or not self.groups.union({self.user, str(self.uid)}).isdisjoint(uploaders)


def owner(uid: int) -> Owner:
    """Look an owner up. Blocking: names may come from the network.

    Source: getpwuid(3), getgrouplist(3).
    """
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return Owner(uid=uid, user=str(uid), groups=frozenset())
    names = set()
    for gid in os.getgrouplist(entry.pw_name, entry.pw_gid):
        try:
            names.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            continue
    return Owner(uid=uid, user=entry.pw_name, groups=frozenset(names))


def is_known(name: str) -> bool:
    """Tell whether the system has a group or a user of this name, or it is a number. Blocking."""
    if name.isdecimal():
        return True
    for look in (grp.getgrnam, pwd.getpwnam):
        try:
            look(name)
        except KeyError:
            continue
        return True
    return False
