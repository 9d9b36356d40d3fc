"""Who may ask for something by a token: those who may connect to the daemon's own socket."""

from __future__ import annotations

import grp
import os
import stat
import time
from pathlib import Path

from dittohead.system import trust
from dittohead.system.users import Owner, owner

#: What is known of a user is asked for again after this time. Seconds.
_FRESH_S = 60.0

#: Users remembered at most.
_MOST = 1000


class Rights:
    """Says who asks, and whether they may.

    Args:
        state: the root's state/ directory: who may enter it may act.
    """

    def __init__(self, state: Path) -> None:
        self._state = state
        self._known: dict[int, tuple[float, Owner]] = {}

    def judge(self, status: os.stat_result, directory: Path) -> tuple[str, str]:
        """Return (name of who asks, why they may not); one of the two is "". Blocking.

        Args:
            status: the file's own, from its descriptor or lstat.
            directory: where it lies. A file of the daemon's was moved there by somebody who may write there.
        """
        if status.st_nlink > 1:
            return "", "it has another name elsewhere (a hard link): who made it cannot be known"
        user = self._owner(status.st_uid)
        if status.st_uid == os.geteuid():
            others = trust.writers(directory)
            if others and not self._are_operators(directory):
                return "", (
                    f"{others} may move files in this directory, so who moved it cannot be known; write or "
                    "copy a token instead, which is then yours"
                )
            return user.user, ""
        if status.st_uid == 0 or self._is_operator(user):
            return user.user, ""
        return "", f"{user.user} is not an operator: who may act is in docs/rights.md"

    def _owner(self, uid: int) -> Owner:
        now = time.monotonic()
        known = self._known.get(uid)
        if known is None or now - known[0] > _FRESH_S:
            if len(self._known) >= _MOST:
                self._known.clear()
            known = self._known[uid] = (now, owner(uid))
        return known[1]

    def _group(self) -> int | None:
        """Return the group that may enter state/; None where none may."""
        status = os.stat(self._state)
        return status.st_gid if status.st_mode & stat.S_IXGRP else None

    def _is_operator(self, user: Owner) -> bool:
        gid = self._group()
        if gid is None:
            return False
        try:
            return grp.getgrgid(gid).gr_name in user.groups
        except KeyError:
            return False

    def _are_operators(self, directory: Path) -> bool:
        """Tell whether only the group that may act may write here besides its owner."""
        status = os.stat(directory)
        return not status.st_mode & stat.S_IWOTH and status.st_gid == self._group()
