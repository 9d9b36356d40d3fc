"""What is printed to be typed next fits anyone who reads it."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from dittohead.cli import advice, main
from dittohead.system import control_socket, service_units
from dittohead.system.control_socket import OWN_SOCKET, near
from dittohead.system.users import owner


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state/ of a root that is another user's."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    state = tmp_path / "state"
    state.mkdir()
    os.chown(state, 1, 1)
    monkeypatch.setattr("sys.argv", ["/usr/local/bin/dittohead", "show", "lab1 x"])
    monkeypatch.setattr(os, "geteuid", lambda: 2)
    return state


def _denied(place: Path) -> tuple[str, bool]:
    return advice.denied(PermissionError(13, "denied", str(place)))


def test_a_place_of_the_daemons_user_is_entered_as_that_user(state: Path) -> None:
    """The whole command is repeated, so that it can be typed as it stands."""
    os.rename(state, elsewhere := state.parent / "elsewhere")
    said, unasked = _denied(elsewhere / "x")
    assert said.endswith(f"Type: sudo -u {owner(1).user} dittohead show 'lab1 x'")
    assert not unasked


@pytest.mark.parametrize("left", ["nothing", "a socket nobody listens on", "a file"])
def test_who_cannot_ask_for_want_of_a_daemon_is_told_so(state: Path, left: str) -> None:
    """Not that they may not read its store: where one runs, they need not."""
    if left == "a socket nobody listens on":
        with socket.socket(socket.AF_UNIX) as bound, near(state):
            bound.bind(OWN_SOCKET)
    elif left == "a file":
        (state / OWN_SOCKET).touch()
    said, unasked = _denied(state / "dittohead.sqlite3")
    me, holder = owner(2).user, owner(1).user
    assert said == (
        f"{state.parent}: the daemon is not running (or does not answer), and {me} may not read its store. "
        f"Ask the person who administers this machine: sudo -u {holder} dittohead run"
    )
    assert unasked
    said, unasked = advice.unasked(state, None)
    assert "(or does not answer). Ask the person who" in said
    assert unasked


def test_who_is_no_operator_is_told_so(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing of a daemon that does not run: they cannot know."""

    def closed(_: Path) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(control_socket, "connect", closed)
    for said, unasked in (_denied(state / "lock"), advice.unasked(state, None)):
        assert "ask the daemon (operators may: docs/rights.md)" in said
        assert said.endswith(f"can type: sudo -u {owner(1).user} dittohead show 'lab1 x'")
        assert not unasked


def test_what_the_daemon_is_not_asked_for_is_said_to_be_so(state: Path) -> None:
    """Such as undo, which reads the store itself."""
    with socket.socket(socket.AF_UNIX) as bound:
        with near(state):
            bound.bind(OWN_SOCKET)
        bound.listen()
        said, unasked = _denied(state / "dittohead.sqlite3")
    assert "may not read the store, and this command reads it itself" in said
    assert not unasked


def test_a_place_of_ones_own_or_of_root_is_another_trouble(tmp_path: Path) -> None:
    """Such as a command typed in a directory that the daemon's user may not enter."""
    said, _ = advice.denied(PermissionError(13, "denied", os.fsencode(tmp_path / "x")))
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
    monkeypatch.setattr(advice, "INSTALLED", tmp_path / "installed")
    assert advice.start(tmp_path / config) == command


@pytest.mark.parametrize("told", [b"inactive\n", b"failed\n", b"active\n", b"activating\n", b""])
def test_an_uploader_who_may_not_ask_the_daemon_hears_from_systemd_that_it_is_stopped(
    state: Path, monkeypatch: pytest.MonkeyPatch, told: bytes
) -> None:
    """Who drops a folder then knows that it waits; where it cannot be known nothing is said."""
    units = state.parent / "units"
    units.mkdir()
    config = state.parent / "config.yaml"
    (units / "scans.service").write_text(f"[Service]\nExecStart=/opt/dittohead run --config {config}\n")
    program = state.parent / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\n[ \"$*\" = 'is-active scans.service' ] && printf '{told.decode()}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(service_units, "PLACES", (units,))
    monkeypatch.setattr(advice, "_BOOTED", state.parent)

    def closed(_: Path) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(control_socket, "connect", closed)
    said = advice.untaken(state, config)
    if told in (b"inactive\n", b"failed\n"):
        assert "not running" in said
        assert (
            "What was handed over waits in the inbox. Ask the person who administers this machine: sudo"
            in said
        )
    else:
        assert said == ""
    program.unlink()
    assert advice.untaken(state, config) == ""


def test_what_is_to_be_typed_next_is_for_the_same_configuration(tmp_path: Path) -> None:
    """Where one was named; else another would be read."""
    config = tmp_path / "my config.yaml"
    runner = CliRunner()
    assert runner.invoke(main, ["--config", str(config), "init", str(tmp_path / "root")]).exit_code == 0
    said = runner.invoke(main, ["--config", str(config), "list"]).output
    assert f"dittohead --config '{config}' run" in said
    (tmp_path / "lab1-x").mkdir()
    (tmp_path / "lab1-x" / "a").write_text("1")
    dropped = runner.invoke(main, ["drop", "--config", str(config), str(tmp_path / "lab1-x")])
    assert dropped.exit_code == 0
    assert "the daemon is not running (or does not answer). What was handed over waits in the inbox." in (
        dropped.output
    )
    assert f"Start it: dittohead --config '{config}' run" in dropped.output
