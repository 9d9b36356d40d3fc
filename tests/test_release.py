"""A release: what is committed, as a source distribution and a wheel; refused while something is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import dittohead
from tests.support.wheel import TOP, copy, tracked

pytestmark = pytest.mark.service

ENTRY = re.compile(r"^## (\S+) - (\d{4}-\d\d-\d\d)$", re.MULTILINE)


class Checkout:
    """A copy of the sources with a history of its own, ready to be released."""

    def __init__(self, base: Path) -> None:
        self.top = copy(base / "checkout")
        self.changes = self.top / "CHANGELOG.md"
        version = dittohead.__version__
        self.changes.write_text(f"# Changelog\n\n## Unreleased\n\n## {version} - 2026-01-31\n\n- all\n")
        self.git("init", "-q", "-b", "main")
        self.commit()

    def git(self, *arguments: str) -> str:
        identity = ["-c", "user.name=somebody", "-c", "user.email=somebody@example.org"]
        said = subprocess.run(
            ["git", *identity, *arguments], cwd=self.top, check=True, capture_output=True, text=True
        )
        return said.stdout

    def commit(self) -> None:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", "all")

    def release(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, TOP / "tools" / "release"],
            env={**os.environ, "RELEASE_OF": str(self.top)},
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


@pytest.mark.rest
def test_it_is_what_is_committed_and_the_same_again(checkout: Checkout) -> None:
    """Litter in the checkout is in neither; the wheel is built from the source distribution, with man pages."""
    (checkout.top / "build" / "lib" / "dittohead").mkdir(parents=True)
    (checkout.top / "build" / "lib" / "dittohead" / "old.py").touch()
    said = checkout.release()
    assert said.returncode == 0, said.stderr
    version = dittohead.__version__
    wheel = checkout.top / "dist" / f"dittohead-{version}-py3-none-any.whl"
    sdist = checkout.top / "dist" / f"dittohead-{version}.tar.gz"
    names = zipfile.ZipFile(wheel).namelist()
    assert {name for name in names if name.startswith("dittohead/")} == {
        name for name in tracked() if name.startswith("dittohead/")
    }
    assert any(name.endswith("man1/dittohead.1") for name in names)
    with tarfile.open(sdist) as file:
        held = {member.name.partition("/")[2] for member in file.getmembers() if member.isfile()}
    assert held >= set(tracked())
    client = checkout.top / "dist" / f"dittohead_send-{version}-py3-none-any.whl"
    names = zipfile.ZipFile(client).namelist()
    assert {f"send/{name}" for name in names if name.startswith("dittohead_send/")} == {
        name for name in tracked() if name.startswith("send/dittohead_send/")
    }
    assert (checkout.top / "dist" / f"dittohead_send-{version}.tar.gz").exists()
    first = wheel.read_bytes(), client.read_bytes()
    assert checkout.release().returncode == 0
    assert (wheel.read_bytes(), client.read_bytes()) == first
    assert f"git tag --annotate v{version}" in said.stdout


def test_what_is_not_ready_is_refused_with_all_reasons(checkout: Checkout) -> None:
    """Nothing is built."""
    checkout.changes.write_text("# Changelog\n\n## Unreleased\n\n- more\n\n## 0.0.1 - 2026-01-31\n\n- all\n")
    said = checkout.release()
    assert said.returncode == 1
    for words in ("not committed", 'stand under "Unreleased"', f'"## {dittohead.__version__} - YYYY-MM-DD"'):
        assert words in said.stderr
    assert not (checkout.top / "dist").exists()


def test_the_client_is_released_as_the_same_version(checkout: Checkout) -> None:
    """Otherwise one of the two would not change its files."""
    init = checkout.top / "send/dittohead_send/__init__.py"
    init.write_text(init.read_text().replace(dittohead.__version__, "0.0.1"))
    checkout.commit()
    assert f"the version is to be {dittohead.__version__}" in checkout.release().stderr


def test_a_version_is_released_once(checkout: Checkout) -> None:
    """Two files of one name that differ are never published."""
    checkout.git("tag", f"v{dittohead.__version__}")
    assert "is released already" in checkout.release().stderr


def test_the_changelog_has_a_dated_entry_for_this_version() -> None:
    """Below "Unreleased", the latest first; of earlier ones none is newer."""
    text = (TOP / "CHANGELOG.md").read_text()
    entries = ENTRY.findall(text)
    assert entries[0][0] == dittohead.__version__
    assert [date for _, date in entries] == sorted((date for _, date in entries), reverse=True)
    assert text.index("## Unreleased") < text.index(f"## {entries[0][0]}")


def test_an_entry_of_the_changelog_has_each_kind_of_change_once() -> None:
    """A merge that keeps the lines of both sides brings back what was shortened."""
    for entry in re.split(r"^## ", (TOP / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]:
        kinds = re.findall(r"^### (\w+)$", entry, re.MULTILINE)
        assert len(kinds) == len(set(kinds)), entry.splitlines()[0]
        assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
