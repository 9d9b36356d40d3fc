"""Who may work on a root."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from dittohead.system import lock


def test_a_start_waits_for_a_command_that_holds_the_lock_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`dittohead thaw` without a daemon takes the lock: a daemon started meanwhile used to end with an error."""
    command = contextlib.ExitStack()
    command.enter_context(lock.held(tmp_path))
    monkeypatch.setattr(lock.time, "sleep", lambda _: command.close())
    with lock.held(tmp_path, patience_s=1):
        assert lock.is_held(tmp_path)


def test_a_holder_that_stays_is_named_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(lock.time, "sleep", waited.append)
    said = "another dittohead works on this root"
    with lock.held(tmp_path), pytest.raises(lock.Locked, match=said), lock.held(tmp_path, patience_s=1):
        raise AssertionError
    assert sum(waited) == pytest.approx(1)


@pytest.mark.parametrize("how", ["deleted", "replaced", "a directory", "a link"])
def test_a_lock_whose_file_is_gone_is_taken_again(tmp_path: Path, how: str) -> None:
    """Anyone who deletes it would let a second daemon in."""
    path = tmp_path / "lock"
    with lock.held(tmp_path) as held:
        assert not held.renew()
        path.unlink()
        if how == "replaced":
            path.write_text("")
        elif how == "a directory":
            path.mkdir()
        elif how == "a link":
            path.symlink_to("elsewhere")
        assert held.renew()
        assert path.is_file()
        assert not held.renew()
        with pytest.raises(lock.Locked), lock.held(tmp_path):
            pass
    assert not lock.is_held(tmp_path)


def test_a_lock_that_another_has_taken_meanwhile_is_not_shared(tmp_path: Path) -> None:
    """One of the two has to end."""
    with lock.held(tmp_path) as held:
        (tmp_path / "lock").unlink()
        with lock.held(tmp_path), pytest.raises(lock.Locked):
            held.renew()
