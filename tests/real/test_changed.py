"""A changed recipe, as an admin meets it: what would be made otherwise, and making it so."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Site, site
from tests.support.images import encode, pixels

pytestmark = pytest.mark.service

CONFIG = """
root: .
space: {floor: 0}
pipelines:
  scans:
    match: "scans-.*"
    steps:
      - convert: {quality: 85}
  others:
    match: ".*"
    steps:
      - checksum: {}
"""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path / "root", CONFIG) as made:
        made.start()
        yield made
        assert made.stop() == 0


def done(here: Site, count: int) -> None:
    here.until(lambda: sum(job["state"] == "done" for job in here.json("list")) >= count)


def test_a_changed_recipe_selects_what_it_changes_and_the_rest_is_reused(here: Site) -> None:
    for n in (1, 2):
        here.drop(f"scans-{n}", {"a.png": encode(pixels(60, 40, seed=n), "PNG")})
    here.drop("others-1", {"a": b"1"})
    done(here, 3)
    nothing = here.json("rerun", "--pipeline", "scans", "--changed", "--dry-run")
    assert (nothing["done"], nothing["selected"]) == (2, [])

    here.configure(CONFIG.replace("quality: 85", "quality: 60"))
    early = here.run("rerun", "--pipeline", "scans", "--changed", check=False)
    assert early.returncode == 69
    assert "was changed since the daemon read it. First: systemctl reload dittohead" in early.stderr
    assert here.process is not None
    here.process.send_signal(signal.SIGHUP)
    here.until(lambda: here.events("config.loaded"))
    told = here.run("rerun", "--pipeline", "scans", "--changed", "--dry-run").stdout
    assert "2 of 2 folders that scans has done would be done otherwise now" in told
    assert "2  convert: quality 85 -> 60" in " ".join(told.split("\n"))
    assert len(here.json("list")) == 3  # so far it was only said

    here.run("rerun", "--pipeline", "scans", "--changed")
    done(here, 5)
    again = here.json("rerun", "--pipeline", "scans", "--changed", "--dry-run")
    assert (again["done"], again["selected"]) == (2, [])
    for receipt in here.receipts("scans-"):
        assert not any("reused_from" in output["detail"] for output in receipt["outputs"])

    here.run("rerun", "scans-1")
    done(here, 6)
    job = here.json("show", "scans-1")
    assert job["all_steps"][0]["detail"].startswith("1 images, 1 of them from job ")
    assert here.run("verify", "scans-1").returncode == 0


def test_what_does_not_go_together_is_said(here: Site) -> None:
    for arguments, said in (
        ((), "name jobs, or give --pipeline NAME --changed"),
        (("--changed",), "--changed goes with --pipeline"),
        (("--pipeline", "scans"), "go with --changed"),
        (("x", "--pipeline", "scans", "--changed"), "with no JOB"),
        (("--pipeline", "none", "--changed"), "there is no pipeline none; there are: scans, others"),
    ):
        answer = here.run("rerun", *arguments, check=False)
        assert answer.returncode != 0
        assert said in " ".join(answer.stderr.split()), answer.stderr
