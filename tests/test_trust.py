"""Whose configuration is used, and who else may write it or read its secrets."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dittohead.admin.doctor import exposures
from dittohead.config.loader import load
from dittohead.model.errors import ConfigError
from dittohead.system import trust
from dittohead.system.trust import find

DITTOHEAD = [sys.executable, "-m", "dittohead"]

ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="NEEDS ROOT, FOR TWO UIDS: left out")

#: A user and a group of nobody's.
EVE, GROUP = 60012, 60013

CONFIG = "root: .\npipelines: {a: {match: a, steps: [{checksum: {}}]}}\n"


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of ours that others can come to, unlike pytest's, with a configuration."""
    made = Path(tempfile.mkdtemp(prefix="dittohead-"))
    made.chmod(0o755)
    (made / "config.yaml").write_text(CONFIG)
    (made / "config.yaml").chmod(0o644)
    monkeypatch.chdir(made)
    monkeypatch.delenv("SUDO_UID", raising=False)
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    yield made
    shutil.rmtree(made)


def test_ones_own_is_used(place: Path) -> None:
    """Also in a directory that others may add to, and in one that they cannot come to."""
    assert find(None) == Path("config.yaml")
    place.chmod(0o1777)
    assert find(None) == Path("config.yaml")
    (place / "config.yaml").chmod(0o666)
    place.chmod(0o700)
    assert find(None) == Path("config.yaml")
    place.chmod(0o755)
    with pytest.raises(ConfigError, match="everybody may write to it"):
        find(None)


OTHERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "writable by all": (lambda here: (here / "config.yaml").chmod(0o666), "everybody may write to it"),
    "in a place of all": (lambda here: here.chmod(0o777), "everybody may write to "),
}
OTHERS_OF_ROOT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another's": (lambda here: os.chown(here / "config.yaml", EVE, -1), f"it belongs to {EVE}"),
    "another's, of all": (
        lambda here: (here.chmod(0o1777), os.chown(here / "config.yaml", EVE, -1)),
        f"it belongs to {EVE}",
    ),
    "in another's place": (lambda here: os.chown(here, EVE, -1), f"belongs to {EVE}"),
    "writable by a group": (
        lambda here: (os.chown(here / "config.yaml", -1, GROUP), (here / "config.yaml").chmod(0o664)),
        f"the group {GROUP} may write to it",
    ),
    "in a place of a group": (
        lambda here: (os.chown(here, -1, GROUP), here.chmod(0o2775)),
        f"the group {GROUP} may write to ",
    ),
    "another's link to our own": (
        lambda here: (
            (here / "config.yaml").rename(here / "mine"),
            (here / "config.yaml").symlink_to("mine"),
            os.lchown(here / "config.yaml", EVE, -1),
        ),
        f"the link belongs to {EVE}",
    ),
}


@pytest.mark.parametrize(
    ("change", "why"),
    [pytest.param(*case, id=name) for name, case in OTHERS.items()]
    + [pytest.param(*case, id=name, marks=needs_root) for name, case in OTHERS_OF_ROOT.items()],
)
def test_what_another_may_have_written_is_used_only_when_it_is_named(
    place: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], Any], why: str
) -> None:
    """It is said, and not passed over for the installed one: somebody meant one of the two."""
    installed = place / "installed.yaml"
    installed.write_text(CONFIG)
    monkeypatch.setattr(trust, "DEFAULTS", (Path("config.yaml"), installed))
    change(place)
    with pytest.raises(ConfigError) as error:
        find(None)
    assert why in str(error.value)
    assert str(error.value).startswith(f"{place}/config.yaml: ")
    assert "--config ./config.yaml" in error.value.hint
    assert find(Path("./config.yaml")) == Path("./config.yaml")
    assert load(Path("./config.yaml"), probe=False).root == place


@needs_root
def test_root_by_sudo_uses_what_belongs_to_the_user_who_called_it(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And to nobody else."""
    for path in (place, place / "config.yaml"):
        os.chown(path, EVE, EVE)
    for given in ("", "x", str(EVE + 1)):
        monkeypatch.setenv("SUDO_UID", given)
        with pytest.raises(ConfigError):
            find(None)
    monkeypatch.setenv("SUDO_UID", str(EVE))
    assert find(None) == Path("config.yaml")


@needs_root
@pytest.mark.parametrize("command", [["doctor"], ["run"], ["drop", "x"]])
def test_no_command_does_anything_by_it(place: Path, command: list[str]) -> None:
    """Root in a folder that somebody uploaded: nothing is made there, nothing is run."""
    os.chown(place, EVE, EVE)
    os.chown(place / "config.yaml", EVE, EVE)
    said = subprocess.run([*DITTOHEAD, *command], cwd=place, capture_output=True, text=True, check=False)
    assert said.returncode == os.EX_CONFIG, said.stderr
    assert f"belongs to {EVE}" in said.stderr
    assert os.listdir(place) == ["config.yaml"]


@needs_root
def test_a_directory_that_is_closed_to_us_holds_none(place: Path) -> None:
    """As with `sudo -u dittohead` in a home directory: the installed one is searched for."""
    place.chmod(0o700)
    code = "import os; from dittohead.system.trust import find; os.setuid(60012); find(None)"
    said = subprocess.run(
        [DITTOHEAD[0], "-c", code], cwd=place, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )  # fmt: skip
    assert "PermissionError" not in said.stderr
    assert said.returncode == 0 or "there is no configuration" in said.stderr, said.stderr


# -- what check and doctor say -------------------------------------------------------------------


def said(place: Path) -> dict[str, str]:
    config = load(place / "config.yaml", probe=False)
    return {found.about: found.message for found in exposures(config)}


def test_nothing_is_said_of_what_is_closed(place: Path) -> None:
    """Also where only a directory above keeps others out."""
    (place / "credentials").mkdir(0o700)
    (place / "credentials" / "people").write_text("")
    (place / "credentials" / "people").chmod(0o666)
    assert said(place) == {}
    (place / "credentials").chmod(0o755)
    (place / "credentials" / "people").chmod(0o600)
    assert said(place) == {}


def test_what_others_may_write_or_read_is_named_with_what_to_do(place: Path) -> None:
    """The file, the directories above it, the secrets and what it names; each command does what it says."""
    text = CONFIG.replace("checksum: {}", f"command: {{argv: [/bin/sh, {place}/in/script, /dev/null]}}")
    (place / "config.yaml").write_text(f"{text}templates: words\nuploaders_file: mails.yaml\n")
    for name in ("in", "words", "credentials"):
        (place / name).mkdir()
    for name in ("in/script", "words/failed.txt", "credentials/people", "credentials/key"):
        (place / name).write_text("word")
        (place / name).chmod(0o600)
    (place / "mails.yaml").write_text("{}")
    open_ = ["", "config.yaml", "credentials", "in/script", "words", "words/failed.txt", "mails.yaml"]
    for name in open_:
        (place / name).chmod(0o777 if (place / name).is_dir() else 0o666)
    (place / "credentials" / "people").chmod(0o644)
    found = said(place)
    assert found.keys() == {str(place / name) for name in (*open_, "credentials/people")}
    for message in found.values():
        subprocess.run(message.partition(": ")[2], shell=True, check=True)
    assert said(place) == {}


@needs_root
def test_another_owner_of_a_directory_above_is_named(place: Path) -> None:
    """Who owns it may put another file in the place of ours."""
    (place / "in").mkdir()
    (place / "config.yaml").rename(place / "in" / "config.yaml")
    os.chown(place, EVE, -1)
    assert said(place / "in") == {str(place): f"it belongs to {EVE}, who may put another config.yaml there"}


def test_check_and_doctor_say_it(place: Path) -> None:
    """A warning of the one, something bad for the other; check stays good: the file has no mistake."""
    (place / "config.yaml").chmod(0o666)
    to = ["--config", "./config.yaml"]
    good = subprocess.run([*DITTOHEAD, *to, "check"], cwd=place, capture_output=True, text=True, check=True)
    words = f"{place}/config.yaml: everybody may write to it: chmod go-w {place}/config.yaml"
    assert good.stderr == f"warning: {words}\n"
    bad = subprocess.run(
        [*DITTOHEAD, *to, "doctor", "--json"], cwd=place, capture_output=True, text=True, check=False
    )
    assert bad.returncode == os.EX_DATAERR
    about = {one["about"]: one["level"] for one in json.loads(bad.stdout)}
    assert about[f"{place}/config.yaml"] == "bad"
    assert trust.DEFAULTS[1] == trust.INSTALLED
