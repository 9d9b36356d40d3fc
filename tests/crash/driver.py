"""Kill the daemon, its children or both, at fault points and at random, and check after each death."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from dittohead.system.fail_points import POINTS
from tests.crash.batch import Batch

#: Folders on their way at any time.
_AHEAD = 6

#: After so many deaths it lives in peace for once: what has met many of them is not tried at once.
_PEACE = 20

_WAYS = ("point", "point", "point", "moment", "moment", "group", "child")


def endure(batch: Batch, *, kills: int, folders: int, say: Callable[[str], None] = lambda line: None) -> str:
    """Kill `kills` times while `folders` folders (and reruns of them) pass; return a summary."""
    ways: Counter[str] = Counter()
    for _ in range(min(_AHEAD, folders)):
        (batch.site.root / "inbox").mkdir(exist_ok=True)
        batch.drop()
    while sum(ways.values()) < kills:
        ways[_one(batch)] += 1
        batch.check_now()
        while batch.unfinished() < _AHEAD:
            if len(batch.dropped) < folders:
                batch.drop()
            elif not batch.rerun():
                break
        if sum(ways.values()) % _PEACE == 0:
            batch.live_in_peace(300)
            batch.kill(group=False)
            say(f"{sum(ways.values())} deaths, {len(batch.dropped)} folders, {batch.reruns} reruns")
    while len(batch.dropped) < folders:
        batch.drop()
    batch.to_the_end(600)
    said = ", ".join(f"{count} by {way}" for way, count in sorted(ways.items()))
    return (
        f"{sum(ways.values())} deaths ({said}); {len(batch.dropped)} folders, "
        f"{len(batch.dropped) + batch.reruns} jobs, "
        f"{len(batch.mailbox.mails)} notices; no violation"
    )


def _one(batch: Batch) -> str:
    """Let the daemon live once and die once; return the way it died."""
    way = batch.chance.choice(_WAYS)
    if way == "point":
        point, number = batch.chance.choice(POINTS), batch.chance.choice([1, 1, 2, 3, 5, 8])
        how = batch.chance.choice(["kill", "group"])
        batch.start(f"{point}:{number}:{how}")
        if not batch.live(2.5):  # it does not come to that point so often
            batch.kill(group=False)
        return f"point {point}"
    batch.start()
    if way == "child":
        end = time.monotonic() + 2.5
        while time.monotonic() < end and not batch.kill_a_child():
            batch.live(0.01)
        batch.live(batch.chance.uniform(0, 0.3))
    else:
        batch.live(batch.chance.uniform(0.4, 1.6))
    batch.kill(group=way == "group")
    return way
