"""checksum and command."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
import select
import shlex
import signal
import subprocess
import sys
from asyncio.base_subprocess import BaseSubprocessTransport
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dittohead.contract.worker import Done, Made, StepResult, Wait
from dittohead.model.errors import ItemError, TargetError, TransientError
from dittohead.system.process import MARK, environment, sweep
from dittohead.workers.checksum.worker import ChecksumOptions, ChecksumWorker
from dittohead.workers.command.worker import CommandOptions, CommandWorker
from tests.support.context import LoneContext, source_of
from tests.support.trees import read_tree, tree


async def test_sha256sum_accepts_the_list(tmp_path: Path) -> None:
    """GNU coreutils itself checks it, names with newlines, backslashes and bytes included."""
    names: list[str | bytes] = ["a", "new\nline", "back\\slash", "cr\rx", b"bad\xff", "-dash", " space "]
    root = tree(tmp_path / "x", {**dict.fromkeys(names, b"data"), "sub": {"b": os.urandom(10_000)}, "e": {}})
    ctx = LoneContext(tmp_path, root)
    await ChecksumWorker().run(ctx, ChecksumOptions())
    listed = ctx.work / "manifest-sha256.txt"
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", listed], cwd=root, check=True)
    assert len(listed.read_bytes().splitlines()) == 8
    before = listed.read_bytes()
    ctx.again()
    await ChecksumWorker().run(ctx, ChecksumOptions())
    assert listed.read_bytes() == before


async def test_checksum_finds_what_is_no_longer_as_claimed(tmp_path: Path) -> None:
    """The list would otherwise vouch for damaged files."""
    root = tree(tmp_path / "x", {"a": "1", "b": "2"})
    source = source_of(root)
    (root / "b").write_text("3")
    made = Made(
        name="s", worker="w", source="", root=root, outputs=lambda: iter(()), locations=lambda: iter(())
    )
    for given, at_fault in ((source, ["b"]), (replace(source, made=made), [])):
        with pytest.raises(ItemError, match="b: this file is not what it was at the claim") as caught:
            await ChecksumWorker().run(LoneContext(tmp_path, root, source=given), ChecksumOptions())
        assert list(caught.value.files) == at_fault  # what another step made is not in the folder


class Rig:
    """Runs shell lines as a command step."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.payload = tree(base / "payload", {"a": "1"})
        self.ctx = LoneContext(base, self.payload, secrets={"token": "S3CRETVALUE", "short": "x"})

    async def run(self, script: str, **options: Any) -> StepResult:
        given = CommandOptions.model_validate({"argv": ["sh", "-c", script], **options})
        return await CommandWorker().run(self.ctx, given)


@pytest.fixture
def sleep() -> str:
    """A command that no other test, nor another run of this one on the same machine, gives."""
    return f"sleep {os.getpid()}.{next(_numbers)}"


def runs(command: str) -> bool:
    """Tell whether a program of this command line runs."""
    return subprocess.run(["pgrep", "-f", re.escape(command)], check=False).returncode == 0


_numbers = itertools.count(100)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_what_a_program_leaves_in_work_is_its_output(rig: Rig) -> None:
    """Recorded with digests; its words go to the step's log."""
    await rig.run('mkdir sub; cp "$DITTOHEAD_PAYLOAD/a" sub/b; echo said; echo complained >&2')
    assert [(o.path, o.size) for o in rig.ctx.outputs] == [(b"sub/b", 1)]
    assert sorted(rig.ctx.log_file().read_text().split()) == ["complained", "said"]


async def test_exit_statuses_decide_what_happens_next(rig: Rig) -> None:
    """Done, failed, not yet, try again, target down."""
    assert await rig.run("echo fine") == Done(detail="fine")
    assert await rig.run("exit 3", expect=[0, 3]) == Done()
    with pytest.raises(ItemError, match=r"sh ended with exit status 3: no scanner"):
        await rig.run("echo no scanner; exit 3")
    with pytest.raises(ItemError, match=r"exit status 3: cannot read reel 3; on stdout: reel 2 of 3\. See"):
        await rig.run("echo cannot read reel 3 >&2; echo reel 2 of 3; exit 3")
    with pytest.raises(ItemError, match=r"exit status 3: cannot read reel 3\. See"):
        await rig.run("echo cannot read reel 3 >&2; exit 3")
    waiting = await rig.run("echo warned >&2; echo queued at the remote system; exit 75", poll="5m")
    assert isinstance(waiting, Wait)
    assert (waiting.reason, waiting.seconds) == ("queued at the remote system", 300)
    with pytest.raises(TransientError):
        await rig.run("exit 4", retry_exit=[4])
    with pytest.raises(TargetError, match="tape"):
        await rig.run("exit 5", target_exit=[5], target="tape")


async def test_a_repeated_try_begins_afresh_but_a_repeated_question_does_not(rig: Rig) -> None:
    """A killed try's remains would be taken for results; a ticket must still be there."""
    (rig.ctx.work / "remains").write_text("x")
    result = await rig.run("echo T1 > ticket; exit 75")
    assert isinstance(result, Wait)
    rig.ctx.saved = result.state
    assert read_tree(rig.ctx.work) == {b"ticket": b"T1\n"}
    await rig.run("test -e ticket")
    rig.ctx.saved = {"asked_at": 1.0}
    with pytest.raises(ItemError, match="no answer came within the time given"):
        await rig.run("exit 75")


async def test_a_program_that_takes_too_long_is_ended_with_all_it_started(rig: Rig, sleep: str) -> None:
    """Its grandchildren too."""
    with pytest.raises(ItemError, match="took longer than 0.3 s"):
        await rig.run(f"{sleep} & {sleep}", timeout="300ms")
    assert not runs(sleep)


async def test_cancelling_a_program_that_is_just_being_started_ends_it_too(
    rig: Rig, sleep: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs already, and has started others, while asyncio still connects its pipes."""
    connect = BaseSubprocessTransport._connect_pipes

    async def cancelled_meanwhile(self: Any, waiter: Any) -> None:
        while not (rig.ctx.work / "there").exists():
            await asyncio.sleep(0.01)
        task.cancel()
        await connect(self, waiter)

    monkeypatch.setattr(BaseSubprocessTransport, "_connect_pipes", cancelled_meanwhile)
    task = asyncio.create_task(rig.run(f"{sleep} & touch there; {sleep}"))
    async with asyncio.timeout(30):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert not runs(sleep)


#: A program that takes long to end: a quarter of a gigabyte is given back first.
SLOW = "import os, sys, time; held = b'x' * (256 << 20); open(sys.argv[1], 'w').close(); time.sleep(1000)"


@pytest.mark.parametrize("how", ["cancelled", "over"])
async def test_what_it_started_has_ended_too_and_not_only_been_killed(rig: Rig, how: str) -> None:
    """A killed process ends the write or the rename it is in first: nothing else may begin before that."""
    slow = shlex.join([sys.executable, "-c", SLOW, "held"])
    rest = {"cancelled": "wait", "over": "while ! test -e held; do :; done"}[how]
    watched: list[int] = []
    task = asyncio.create_task(rig.run(f"{slow} & echo $! > slow; {rest}"))
    async with asyncio.timeout(60):
        while not (rig.ctx.work / "held").exists():
            await asyncio.sleep(0.01)
        watched.append(os.pidfd_open(int((rig.ctx.work / "slow").read_text())))
        if how == "cancelled":
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    waiting = select.poll()
    waiting.register(watched[0], select.POLLIN)
    assert waiting.poll(0), "it has not ended yet"
    os.close(watched[0])


def test_a_sweep_ends_with_those_it_killed(tmp_path: Path) -> None:
    """What a killed daemon left running ends before anything is begun again."""
    held = tmp_path / "held"
    argv = [sys.executable, "-c", SLOW, held]
    with subprocess.Popen(argv, env={**os.environ, MARK: str(tmp_path)}, cwd=tmp_path) as process:
        while not held.exists():
            assert process.poll() is None
        assert sweep(tmp_path) == [process.pid]
        assert process.poll() == -signal.SIGKILL


async def test_cancelling_ends_it_with_all_it_started(rig: Rig, sleep: str) -> None:
    """Also one that ignores SIGTERM."""
    task = asyncio.create_task(rig.run(f"trap '' TERM; touch there; {sleep} & while :; do {sleep}; done"))
    async with asyncio.timeout(20):
        while not (rig.ctx.work / "there").exists():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not runs(sleep)


async def test_secrets_reach_the_program_and_nothing_else(rig: Rig) -> None:
    """Masked in the log, in the error, across pieces of output; never among the arguments."""
    script = 'printf "%s" "S3CRET"; sleep 0.05; echo VALUE; echo "$TOKEN $TOKEN" >&2; echo "<$TOKEN>"; exit 9'
    with pytest.raises(ItemError) as caught:
        await rig.run(script, secrets={"TOKEN": "token"})
    everything = str(caught.value) + rig.ctx.log_file().read_text()
    assert "S3CRETVALUE" not in everything
    assert "<***>" in str(caught.value)
    assert "***" in rig.ctx.log_file().read_text()


PEM = "-----BEGIN KEY-----\nLINEONEsecret1111111\nLINETWOsecret1111111\n-----END KEY-----"


@pytest.mark.parametrize(
    "script",
    [
        'printf "%0295d%s\\n" 0 "$TOKEN"',
        'printf "%0290d%s\\n" 0 "$TOKEN" >&2',
        'echo "$KEY" | sed -n 3p',
        'echo "$KEY"',
        'echo "$KEY" | tr "\\n" " "',
        'printf "%70000s%s%65530s" x "$TOKEN" y',
    ],
)
async def test_no_part_of_a_secret_is_shown_however_it_is_printed(rig: Rig, script: str) -> None:
    """Cut to what a reason holds, one line of several, at the end of what is kept: in no reason, no log."""
    rig.ctx.secrets["key"] = PEM
    with pytest.raises(ItemError) as caught:
        await rig.run(f"{script}; exit 3", secrets={"TOKEN": "token", "KEY": "key"})
    everything = str(caught.value) + rig.ctx.log_file().read_text()
    assert "***" in rig.ctx.log_file().read_text()
    for part in ("S3C", "VALUE", "LINETWO", "LINEONE", "1111111"):
        assert part not in everything


async def test_a_log_that_cannot_be_written_fails_no_step(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a program prints is for people; whether the disk is full its results will say."""
    monkeypatch.setattr(type(rig.ctx), "log_file", lambda self: Path("/dev/full"))
    await rig.run("head -c 300000 /dev/zero; echo 1 > made")
    assert [output.path for output in rig.ctx.outputs] == [b"made"]


async def test_a_program_gets_what_it_needs_of_the_environment_and_what_is_named(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon's own holds keys that are not a program's business."""
    for name in ("AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "MY_TOKEN", "SSH_AUTH_SOCK", "http_proxy", "LC_TIME"):
        monkeypatch.setenv(name, f"value of {name}")
    rig.ctx.env = environment(rig.base)
    await rig.run("env | sort > made", inherit=["http_proxy", "NOT_THERE"], env={"A": "b"})
    made = dict(line.split("=", 1) for line in (rig.ctx.work / "made").read_text().splitlines())
    assert (made["http_proxy"], made["A"], made["LC_ALL"]) == ("value of http_proxy", "b", "C")
    assert made["LC_TIME"] == "value of LC_TIME"
    assert made["PATH"] == os.environ["PATH"]
    assert not made.keys() & {"AWS_SECRET_ACCESS_KEY", "PGPASSWORD", "MY_TOKEN", "SSH_AUTH_SOCK", "NOT_THERE"}


async def test_much_output_without_a_newline_does_no_harm(rig: Rig) -> None:
    """More than any buffer, in one line."""
    await rig.run("head -c 3000000 /dev/zero | tr '\\0' x")
    assert rig.ctx.log_file().stat().st_size == 3_000_000


async def test_a_grandchild_that_keeps_the_pipe_open_does_not_hold_the_step(rig: Rig, sleep: str) -> None:
    """A daemon started carelessly by the program."""
    async with asyncio.timeout(30):
        await rig.run(f"{sleep} & echo done")
    assert not runs(sleep)
