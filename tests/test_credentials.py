"""Credentials: none, one that may not be read, and one that cannot be read just now are three things."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.admin.tokens import AccessTokens
from dittohead.config.loader import load
from dittohead.folders.stations import Stations
from dittohead.model.errors import ConfigError, ItemError, StoreError, TransientError
from dittohead.notices.outcome import NotSent, credential
from dittohead.store import connect
from dittohead.system.credentials import Credentials, UnreadableCredential
from tests.support.web_harness import OPERATOR, TOKENS

#: Of a disk, a server or the system: the next try may find it well.
PASSING = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.EINTR, errno.ETIMEDOUT]


@pytest.fixture
def secret(tmp_path: Path) -> Credentials:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "people").write_text(TOKENS)
    return Credentials(tmp_path / "config.yaml")


@pytest.fixture
def no_descriptor() -> Iterator[None]:
    """Let this process open no file but those it has already."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(fd) for fd in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, before[1]))
    filling = []
    try:
        while True:
            try:
                filling.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        for fd in filling:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def failing(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def fail(path: Path) -> bytes:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)


def test_one_is_read_also_when_there_is_no_descriptor_left(secret: Credentials, no_descriptor: None) -> None:
    """One is kept for that, again and again."""
    with pytest.raises(OSError, match="Too many open files"):
        os.open(os.devnull, os.O_RDONLY)
    for _ in range(3):
        assert secret("people") == TOKENS.rstrip("\n")


@pytest.mark.parametrize("number", PASSING, ids=errno.errorcode.get)
def test_a_passing_fault_is_no_mistake_of_anybodys(
    secret: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A step is tried again, a notice is sent later, the store is said to be out of reach; nobody is signed out."""
    text = "root: .\nstore: postgresql://a@127.0.0.1/b\nstore_credential: people\n"
    (tmp_path / "config.yaml").write_text(text + "pipelines: {a: {match: a, steps: [{checksum: {}}]}}\n")
    config = load(tmp_path / "config.yaml", probe=False)
    tokens = AccessTokens(lambda: secret("people"))
    assert tokens.refresh() == []
    failing(monkeypatch, number)
    for read in (secret, secret.needed):
        with pytest.raises(TransientError, match=os.strerror(number)):
            read("people")
    with pytest.raises(NotSent) as not_sent:
        credential(secret, "people")
    assert not not_sent.value.receivers_fault
    with pytest.raises(StoreError):
        connect.open_store(config, Stations(tmp_path))
    assert len(tokens.refresh()) == 1
    assert tokens.find(OPERATOR) is not None
    monkeypatch.undo()
    assert tokens.refresh() == []
    (tmp_path / "credentials" / "people").unlink()
    assert len(tokens.refresh()) == 1
    assert tokens.find(OPERATOR) is None
    with pytest.raises(ConfigError, match="there is no credential"):
        connect.open_store(config, Stations(tmp_path))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP])
def test_one_that_may_not_be_read_is_named_with_its_path(
    secret: Credentials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """It is not said that there is none, and it opens nothing."""
    tokens = AccessTokens(lambda: secret("people"))
    tokens.refresh()
    failing(monkeypatch, number)
    with pytest.raises(UnreadableCredential):
        secret("people")
    with pytest.raises(ItemError) as error:
        secret.needed("people")
    for said in (str(error.value), *tokens.refresh()):
        assert f"{tmp_path}/credentials/people cannot be read: {os.strerror(number)}" in said
    assert tokens.find(OPERATOR) is None


def test_one_that_is_no_text_is_of_no_use_and_not_shown(secret: Credentials, tmp_path: Path) -> None:
    """Bytes of a key, say."""
    (tmp_path / "credentials" / "people").write_bytes(b"\xffsecret")
    with pytest.raises(ItemError, match="holds no text in UTF-8") as error:
        secret.needed("people")
    assert "secret" not in str(error.value)
    with pytest.raises(NotSent, match="cannot be used"):
        credential(secret, "people")
