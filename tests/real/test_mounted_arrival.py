"""A file system mounted on or in an arrival: that one is held, whatever its server says; others go on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.daemon import site
from tests.support.fuse import hung_mount
from tests.support.trees import tree

pytestmark = pytest.mark.service

CONFIG = """
root: .
space: {floor: 0}
watch: {settle: 0, interval: 500ms}
pipelines: {all: {match: ".*", steps: [checksum: {}]}}
"""


def test_a_mount_on_an_arrival_holds_that_one_alone(tmp_path: Path) -> None:
    """It hangs, then its server is gone; before the start and after; on it and inside it; then it is unmounted."""
    with site(tmp_path / "root", CONFIG) as here:
        inbox = here.root / "inbox"
        (inbox / "early").mkdir(parents=True)
        (inbox / "deep" / "sub").mkdir(parents=True)
        tree(inbox / "late", {"a.part": b"held by its mark, until something is mounted on it"})
        with hung_mount(inbox / "early") as early, hung_mount(inbox / "deep" / "sub") as deep:
            here.start()
            here.drop("one", {"a": b"1"})
            here.until(lambda: (here.root / "done/one").exists())
            with hung_mount(inbox / "late"):
                here.drop("two", {"a": b"2"})
                here.until(lambda: (here.root / "done/two").exists())
                held = {name: here.held(name) for name in ("early", "deep", "late")}
                assert all("another file system is mounted in it" in why for why in held.values()), held
                assert str(inbox / "deep/sub") in held["deep"]
                early.leave()  # now every access fails at once
                deep.leave()
                here.drop("three", {"a": b"3"})
                here.until(lambda: (here.root / "done/three").exists())
                assert here.stop() == 0
                here.start()
                here.drop("four", {"a": b"4"})
                here.until(lambda: (here.root / "done/four").exists())
        here.until(lambda: (here.root / "failed/early").exists())  # it is empty
        assert sorted(os.listdir(here.root / "done")) == ["four", "one", "three", "two"]
        assert here.events("claim.failed") == []
