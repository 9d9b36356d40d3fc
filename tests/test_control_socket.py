"""The way to the daemon's socket, from wherever somebody stands."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from dittohead.system.control_socket import near


@pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT, FOR TWO UIDS: left out")
@pytest.mark.parametrize(("mode", "back"), [(0o700, False), (0o711, True)])
def test_it_is_found_from_a_directory_that_is_closed(
    mode: int, back: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `sudo -u dittohead` typed in a home of mode 0700, or 0711."""
    with tempfile.TemporaryDirectory() as name:  # pytest's own directories are closed to others
        home, state = Path(name) / "home", Path(name) / "state"
        Path(name).chmod(0o755)
        home.mkdir()
        home.chmod(mode)
        state.mkdir()
        state.chmod(0o755)
        (state / "api.sock").touch()
        monkeypatch.chdir(home)
        os.seteuid(60001)
        try:
            with near(state):
                assert os.stat("api.sock").st_size == 0
        finally:
            os.seteuid(0)
        assert Path.cwd() == (home if back else Path("/"))
        monkeypatch.undo()


def test_one_stands_where_one_stood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when something went wrong inside."""
    (tmp_path / "state").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConnectionRefusedError), near(tmp_path / "state"):
        raise ConnectionRefusedError
    assert Path.cwd() == tmp_path
