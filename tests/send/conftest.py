"""A server for the module, and an inbox and a home for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sending import Sender
from tests.support.sshd import Sshd, sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd") / "base") as made:
        yield made


@pytest.fixture
def sender(
    server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Sender:
    for name in ("inbox", "here", "home"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA", "SSH_AUTH_SOCK"):
        monkeypatch.delenv(name, raising=False)
    return Sender(server, tmp_path / "inbox", tmp_path / "here", capsys)
