"""What every attack needs: a daemon with its batch of folders, and the servers it delivers to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.crash.batch import Batch
from tests.support.receivers import Mailbox, mailbox
from tests.support.s3_server import S3Server
from tests.support.sshd import Sshd, sshd


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("server") / "ssh") as made:
        yield made


@pytest.fixture
def box() -> Iterator[Mailbox]:
    with mailbox() as made:
        yield made


@pytest.fixture
def store() -> Iterator[S3Server]:
    with S3Server() as made:
        yield made


@pytest.fixture
def batch(tmp_path: Path, server: Sshd, box: Mailbox, store: S3Server) -> Iterator[Batch]:
    made = Batch.make(tmp_path / "root", tmp_path / "out", server, box, store, seed=5)
    yield made
    if made.site.process is not None:
        made.kill(group=True)
