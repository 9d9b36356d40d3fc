"""Killed at random moments: the client, or the server's session. Never is an incomplete folder renamed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.length import examples
from tests.support.sending import MANIFEST, Sender
from tests.support.trees import read_tree, tree

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(900)]

ROUNDS = examples(50)
#: Between a file's confirmation and the journal's line lies a second at most, and a window is under way.
WINDOW = 4 * (8 << 20)


def sessions(server: int) -> list[int]:
    """Return the processes of a server's sessions."""
    found = []
    todo = [server]
    while todo:
        said = subprocess.run(["pgrep", "-P", str(todo.pop())], capture_output=True, text=True, check=False)
        children = [int(line) for line in said.stdout.split()]
        found += children
        todo += children
    return found


def check(sender: Sender, name: str, content: dict[bytes, bytes]) -> bool:
    """Return whether the folder has its name; it is complete then."""
    place = sender.inbox / name
    if not place.exists():
        return False
    found = read_tree(place)
    listed = found.pop(MANIFEST.encode())
    assert found == content
    assert sum(not line.startswith(b"#") for line in listed.splitlines()) == len(content)
    assert not (sender.inbox / f".{name}").exists()
    return True


@pytest.mark.parametrize("victim", ["client", "session"])
def test_killed_at_any_moment(sender: Sender, victim: str) -> None:
    """Half the rounds each; the next run completes it, and sends little twice."""
    chance = random.Random(victim)
    made = {f"s{n}": os.urandom(chance.randrange(1, 30_000)) for n in range(150)}
    folder = tree(
        sender.here / "lab", {**made, "sub": {"big": os.urandom(24 << 20), "mid": os.urandom(3 << 20)}}
    )
    content = read_tree(folder)
    total = sum(map(len, content.values()))
    begun = time.monotonic()
    assert sender.send("lab") == 0, sender.err
    whole_s = time.monotonic() - begun + 0.5  # and the start of Python
    interrupted = 0
    for number in range(ROUNDS // 2):
        name = f"lab{number}"
        first = sender.process("lab", options=("--name", name, "--json", "--retry-for", "60"))
        with contextlib.suppress(subprocess.TimeoutExpired):
            first.wait(chance.uniform(0.2, whole_s))
        if victim == "client":
            first.kill()
        else:
            for pid in chance.sample(running := sessions(sender.server.process.pid), min(1, len(running))):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        out, _ = first.communicate(timeout=200)
        done = check(sender, name, content)
        if victim == "session":
            # The same run goes on by itself. One that was killed while it logged in may have been refused.
            assert done or first.returncode in (69, 75, 77), out
            if done:
                sent = json.loads(out.splitlines()[-1])["bytes_sent"]
                assert sent <= total + WINDOW
                continue
        interrupted += not done
        confirmed = journaled(sender.inbox / f".{name}", content)
        (said,) = sender.results("lab", options=("--name", name))
        assert said["state"] in ("sent", "already there"), said
        assert check(sender, name, content)
        assert said["bytes_sent"] <= total - confirmed
    assert victim == "session" or interrupted


def journaled(place: Path, content: dict[bytes, bytes]) -> int:
    """Return how many bytes lie there as they are to be: none of them is sent again."""
    if not place.exists():
        return 0
    return sum(
        len(data) for path, data in read_tree(place).items() if content.get(path, b"-").startswith(data)
    )
