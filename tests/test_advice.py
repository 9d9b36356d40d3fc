"""What is printed to be typed next fits whoever reads it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dittohead.cli import advice
from dittohead.owners import owner


def test_a_place_of_the_daemons_user_is_entered_as_that_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole command is repeated, so that it can be typed as it stands."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 1, 1)
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/dittohead", "show", "lab1 x"])
    said = advice.denied(PermissionError(13, "denied", str(state / "dittohead.sqlite3")))
    assert said.endswith(f"Type: sudo -u {owner(1).user} dittohead show 'lab1 x'")


def test_a_place_of_ones_own_or_of_root_is_another_trouble(tmp_path: Path) -> None:
    """Such as a command typed in a directory that the daemon's user may not enter."""
    said = advice.denied(PermissionError(13, "denied", os.fsencode(tmp_path / "x")))
    assert "sudo" not in said
    assert said.endswith("go elsewhere first: cd /")


@pytest.mark.parametrize(
    ("booted", "unit", "config", "command"),
    [
        (True, True, "installed", "sudo systemctl start dittohead"),
        (True, True, "other", "dittohead run"),
        (True, False, "installed", "dittohead run"),
        (False, True, "installed", "dittohead run"),
    ],
)
def test_a_daemon_is_started_the_way_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, booted: bool, unit: bool, config: str, command: str
) -> None:
    """`dittohead run` beside an installed service would keep that from starting."""
    for name, there in (("booted", booted), ("units", unit)):
        (tmp_path / name).mkdir() if there else None
    if unit:
        (tmp_path / "units" / "dittohead.service").touch()
    monkeypatch.setattr(advice, "_BOOTED", tmp_path / "booted")
    monkeypatch.setattr(advice, "_UNITS", (tmp_path / "units",))
    monkeypatch.setattr(advice, "_INSTALLED", tmp_path / "installed")
    assert advice.start(tmp_path / config) == command
