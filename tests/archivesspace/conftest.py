"""A furnished ArchivesSpace, and no long waits between tries."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.support.archivesspace import ArchivesSpace
from tests.support.archivesspace_job import furnish


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dittohead.archivesspace.client.PAUSE_S", 0.001)


@pytest.fixture
async def site() -> AsyncIterator[ArchivesSpace]:
    async with ArchivesSpace().serving() as server:
        furnish(server)
        server.public = {
            "/public/t.jpg": b"thumbnail",
            "/public/node/45": b"page",
            "/public/manifest.json": b"{}",
        }
        yield server


def shown(site: ArchivesSpace) -> list[tuple[str, str]]:
    """Return what an access step has published, in an order that is not the wanted one."""
    named = (("manifest", "manifest.json"), ("page", "node/45"), ("thumbnail", "t.jpg"))
    return [(use, f"{site.url}/public/{path}") for use, path in named]
