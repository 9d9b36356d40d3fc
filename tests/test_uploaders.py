"""Whose folders a pipeline takes: a name alone authorises nothing."""

from __future__ import annotations

import getpass
import grp
import os
from pathlib import Path

import pytest

from dittohead.admin.doctor import examine
from dittohead.config.loader import load
from dittohead.folders import manifest
from dittohead.model.errors import ConfigError, ItemError
from dittohead.model.states import JobState
from dittohead.system.threads import Stop
from dittohead.system.users import Owner, is_known, owner
from tests.support.harness import Harness
from tests.support.trees import tree

CONFIG = """
root: .
space: {floor: 0}
pipelines:
  ours:
    match: "ours-.*"
    uploaders: [%s]
    steps: [{script: {name: first}}]
  all:
    match: ".*"
    steps: [{script: {name: first}}]
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT to give files away: left out")


@pytest.fixture(params=["user", "group", "number"])
def mine(request: pytest.FixtureRequest) -> str:
    return {
        "user": getpass.getuser(),
        "group": grp.getgrgid(os.getgid()).gr_name,
        "number": f'"{os.getuid()}"',
    }[request.param]


async def test_a_folder_of_one_who_is_admitted_goes_through(tmp_path: Path, mine: str) -> None:
    """By the owner's name, number, or one of their groups."""
    harness = Harness(tmp_path, CONFIG % mine)
    harness.arrive("ours-x")
    async with harness.running():
        job = await harness.until_over("ours-x")
    assert (job.state, job.pipeline) == (JobState.DONE, "ours")
    harness.store.close()


async def test_a_folder_of_somebody_else_is_refused_and_does_not_fall_through(tmp_path: Path) -> None:
    """It does not end in a pipeline that takes everything; the reason says who would be admitted."""
    harness = Harness(tmp_path, CONFIG % "digitisation, nobody-at-all")
    harness.arrive("ours-x")
    harness.arrive("else-x")
    async with harness.running():
        job = await harness.until_over("ours-x")
        other = await harness.until_over("else-x")
    assert (job.state, other.state) == (JobState.FAILED, JobState.DONE)
    assert harness.worker.ran == [("else-x", "first")]
    text = (tmp_path / "failed/ours-x.reason.txt").read_text()
    assert "may not use the pipeline ours" in text
    assert "digitisation, nobody-at-all" in text
    assert getpass.getuser() in text
    harness.store.close()


def test_owners_are_known_by_their_groups() -> None:
    """As `id` tells them; a number nobody has a name for is its own name."""
    me = owner(os.getuid())
    assert (me.user, me.uid) == (getpass.getuser(), os.getuid())
    assert grp.getgrgid(os.getgid()).gr_name in me.groups
    assert owner(4_000_000_000) == Owner(uid=4_000_000_000, user="4000000000", groups=frozenset())
    assert not owner(4_000_000_000).may_use(["0", "root"])
    assert (is_known("root"), is_known("0"), is_known("no-such-group-at-all")) == (True, True, False)


async def test_doctor_names_groups_that_do_not_exist(tmp_path: Path) -> None:
    """And says where uploads come from one user, who may be anybody."""
    harness = Harness(tmp_path, CONFIG % "no-such-group-at-all")
    found = {f.about: (f.level, f.message) for f in await examine(harness.config, harness.workers, str)}
    assert found["ours, uploaders"][0] == "warning"
    assert "no-such-group-at-all" in found["ours, uploaders"][1]
    assert "cannot tell people apart" in found["uploaders"][1]
    (tmp_path / "inbox").chmod(0o3773)
    assert "uploaders" not in {f.about for f in await examine(harness.config, harness.workers, str)}
    harness.store.close()


def test_a_mistake_in_uploaders_is_named_with_its_line(tmp_path: Path) -> None:
    """A single name instead of a list."""
    path = tmp_path / "config.yaml"
    path.write_text(
        'root: .\npipelines:\n  a:\n    match: x\n    uploaders: staff\n    steps: [{command: {argv: ["true"]}}]\n'
    )
    with pytest.raises(ConfigError, match=r"config.yaml:5:\d+: .*uploaders"):
        load(path)


@needs_root
def test_a_hard_link_to_anothers_file_is_refused(tmp_path: Path) -> None:
    """The daemon may be able to read what the uploader is not; their own links are theirs."""
    (tmp_path / "secret").write_text("s")
    folder = tree(tmp_path / "x", {"a": "1", "sub": {}})
    os.link(folder / "a", folder / "b")
    for path in (folder, folder / "a", folder / "sub"):
        os.chown(path, 60001, 60001)
    assert manifest.take(folder, tmp_path / "m", stop=Stop()).files == 2
    os.link(tmp_path / "secret", folder / "sub" / "c")
    with pytest.raises(ItemError, match="'sub/c' is a hard link to a file of another owner"):
        manifest.take(folder, tmp_path / "m", stop=Stop())
    os.chown(folder, 0, 0)  # what root hands over, root could read
    assert manifest.take(folder, tmp_path / "m", stop=Stop()).files == 3
