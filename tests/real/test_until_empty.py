"""`dittohead run --until-empty`: a scheduled run that ends by itself, and says how it went."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.daemon import Site
from tests.support.trees import tree

CONFIG = """
root: .
limits: {{jobs: 4}}
pipelines:
  scans:
    match: "(?P<study>[a-z]+)-.*"
    steps: [{step}]
"""

Make = Callable[..., Site]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(step: str = "checksum: {}") -> Site:
        site = Site(tmp_path / "root", CONFIG.format(step=step))
        site.run("init", check=False)
        for station in ("inbox", "processing", "done", "failed"):
            (site.root / station).mkdir(exist_ok=True)
        return site

    return made


def to_the_end(site: Site, *options: str) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return site.run("run", "--until-empty", *options, check=False)


def test_it_ends_when_everything_is_done(make: Make) -> None:
    """Also with nothing to do, and also with what an earlier run left in processing/."""
    site = make()
    assert to_the_end(site).returncode == 0
    for name in ("lab-1", "lab-2"):
        tree(site.root / "inbox" / name, {"a": name})
    tree(site.root / "processing" / "lab-3", {"a": "left"})
    tree(site.root / "inbox" / ".lab-4", {"a": "an upload under way is nobody's business"})
    said = to_the_end(site)
    assert said.returncode == 0, said.stderr
    assert sorted(p.name for p in (site.root / "done").iterdir()) == ["lab-1", "lab-2", "lab-3"]
    assert (site.root / "inbox" / ".lab-4").is_dir()
    assert not (site.root / "state" / "live.json").exists()


def test_a_failure_is_told_by_the_exit_status(make: Make) -> None:
    """Of this run alone: the next one, with nothing to do, ends well."""
    site = make()
    tree(site.root / "inbox" / "lab-1", {"a": "1"})
    tree(site.root / "inbox" / "Nofit", {"a": "1"})
    assert to_the_end(site).returncode == 65
    assert (site.root / "done" / "lab-1").is_dir()
    assert to_the_end(site).returncode == 0


def test_what_only_waits_is_left_for_the_next_run(make: Make) -> None:
    """A step that says "not yet": waited for as long as the patience, and not an hour."""
    site = make('command: {argv: [sh, -c, "exit 75"], wait_exit: [75], poll: 1h}')
    tree(site.root / "inbox" / "lab-1", {"a": "1"})
    said = to_the_end(site, "--patience", "1s")
    assert said.returncode == 75, said.stderr
    assert (site.root / "processing" / "lab-1").is_dir()


def test_a_stop_ends_it_like_any_daemon(make: Make) -> None:
    """SIGTERM is not a failure: the folder stays where it is, and goes on in the next run."""
    site = make('command: {argv: [sleep, "60"]}')
    tree(site.root / "inbox" / "lab-1", {"a": "1"})
    process = subprocess.Popen(
        [*site.program, "--config", str(site.config), "run", "--until-empty"], env=site.env
    )
    try:
        site.until(lambda: (site.root / "processing" / "lab-1").is_dir())
        process.terminate()
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
    assert (site.root / "processing" / "lab-1").is_dir()
