"""`doctor` on rsync steps: it tries the real thing without writing, and says what a delivery would meet."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.workers.rsync.remote_account import Account
from dittohead.workers.rsync.worker import RsyncOptions, RsyncWorker
from tests.support.sshd import Sshd, sshd

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh") / "d") as running:
        yield running


async def examined(to: str, **more: Any) -> list[tuple[bool, str]]:
    """Return what doctor says of a step, but for rsync's version."""
    filled = to.replace("{study}", "STUDY").replace("{name}", "NAME")
    options = RsyncOptions.model_validate({"to": filled, **more})
    found = [one async for one in RsyncWorker().examine(options, lambda name: "", {"to": to, **more})]
    assert found[0][1].startswith("rsync ")
    return found[1:]


@pytest.mark.parametrize("over_ssh", [False, True])
async def test_what_a_delivery_would_find_is_said_and_nothing_is_written(
    server: Sshd, tmp_path: Path, over_ssh: bool
) -> None:
    """A missing folder is bad where no delivery would make it; the last part of a path is always made."""
    prefix = f"{server.host}:" if over_ssh else ""
    more: dict[str, Any] = {"ssh": server.options} if over_ssh else {}
    there = tmp_path / "there"
    there.mkdir()
    for to, mkpath, good, words in (
        (f"{there}/{{study}}/raw/{{name}}/", False, True, str(there)),
        (f"{there}/new/", False, True, str(there)),
        (f"{there}/no/new/", False, False, f"{there}/no does not exist"),
        (f"{there}/no/{{study}}/{{name}}/", False, False, "or set mkpath: true"),
        (f"{there}/no/{{study}}/{{name}}/", True, True, ""),
    ):
        found = await examined(prefix + to, mkpath=mkpath, **more)
        assert [one for one, _ in found] == [good], (to, found)
        assert words in found[0][1]
    assert list(there.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("rrsync /tmp", "forbids rsync's option -s"),
        ('echo Welcome; exec sh -c \\"$SSH_ORIGINAL_COMMAND\\"', "(Welcome)"),
        ("/usr/sbin/nologin", "the account is closed"),
    ],
)
async def test_an_account_that_lets_ssh_in_and_no_rsync_is_bad(
    server: Sshd, tmp_path: Path, command: str, words: str
) -> None:
    """Where `ssh HOST true` may well succeed."""
    if command.startswith("rrsync") and shutil.which("rrsync") is None:
        pytest.skip("rrsync is not installed")
    allowed = server.base / "authorized_keys"
    before = allowed.read_text()
    allowed.write_text(f'command="{command}" {before}')
    try:
        ((good, said),) = await examined(f"{server.host}:{tmp_path}/", ssh=server.options)
    finally:
        allowed.write_text(before)
    assert not good
    assert words in said
    assert "goes on by itself" not in said


async def test_an_account_that_may_not_write_there_is_not_called_good_first(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run alone does not meet it."""

    async def may_write(account: Account) -> bool:
        return False

    monkeypatch.setattr(Account, "may_write", may_write)
    ((good, said),) = await examined(f"{server.host}:{tmp_path}/{{name}}/", ssh=server.options)
    assert (good, "may not write there" in said) == (False, True)


@pytest.mark.skipif(os.geteuid() != 0, reason="MOUNTING NEEDS ROOT: read-only target left out")
async def test_what_the_services_unit_forbids_comes_with_the_line_that_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the unit everything but its own directories is mounted read-only."""
    disk = tmp_path / "study"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", disk], check=True)
    try:
        ((good, said),) = await examined(f"{disk}/{{study}}/{{name}}/")
        assert (good, "ReadWritePaths" in said) == (False, False)
        monkeypatch.setenv("INVOCATION_ID", "1")
        ((good, said),) = await examined(f"{disk}/{{study}}/{{name}}/")
    finally:
        subprocess.run(["umount", "-l", disk], check=True)
    assert not good
    assert f"ReadWritePaths={disk}," in said
