"""How often people get notices of one owner's things: of a few each by itself, of more all at once.

Anybody who may write into the inbox can put thousands of things there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

#: Things of one owner that get a notice each in a day.
FEW = 3

DAY_S, WEEK_S = 86400.0, 7 * 86400.0

T = TypeVar("T")


@dataclass
class _Owner:
    """What notices there were of one owner's things."""

    day: float  #: when the day began in which `singly` is counted. Seconds, monotonic.
    singly: int = 0
    together_at: float = float("-inf")
    names: frozenset[bytes] = frozenset()  #: of those in the last notice of many


@dataclass(frozen=True)
class NoticeGroup(Generic[T]):
    """What one notice is about."""

    things: Sequence[T]
    together: bool  #: all of an owner's; otherwise one by itself


class NoticeLimits(Generic[T]):
    """Remembers what was reported, and whose it was.

    Args:
        name: tells things of one owner apart.
    """

    def __init__(self, name: Callable[[T], bytes]) -> None:
        self._name = name
        self._owners: dict[int | None, _Owner] = {}

    def parts(self, uid: int | None, things: Sequence[T], fresh: int) -> list[NoticeGroup[T]]:
        """Return the notices there are to be of an owner's things; each is then `told`.

        All at once: of new ones once a day, of the same once a week.

        Args:
            things: all there are now.
            fresh: how many of them nobody was notified of yet.
        """
        known = self._owners.setdefault(uid, _Owner(day=time.monotonic()))
        if len(things) <= FEW and _may_tell(known, fresh):
            return [NoticeGroup([thing], together=False) for thing in things]
        since = time.monotonic() - known.together_at
        if since < (WEEK_S if self._names(things) <= known.names else DAY_S):
            return []
        return [NoticeGroup(things, together=True)]

    def told(self, uid: int | None, part: NoticeGroup[T]) -> None:
        """Note that a notice of so many is on disk."""
        if part.together:
            known = self._owners[uid]
            known.together_at, known.names = time.monotonic(), self._names(part.things)

    def _names(self, things: Sequence[T]) -> frozenset[bytes]:
        return frozenset(map(self._name, things))


def _may_tell(known: _Owner, count: int) -> bool:
    """Tell whether so many more may get a notice each today, and count them."""
    now = time.monotonic()
    if now - known.day >= DAY_S:
        known.day, known.singly = now, 0
    if known.singly + count > FEW:
        return False
    known.singly += count
    return True
