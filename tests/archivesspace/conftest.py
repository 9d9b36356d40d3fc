"""A furnished ArchivesSpace, and no long waits between tries."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.archivesspace import ArchivesSpace
from tests.support.archivesspace_job import AO, NAME, furnish


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dittohead.workers.archivesspace.client.PAUSE_S", 0.001)


@pytest.fixture
async def site() -> AsyncIterator[ArchivesSpace]:
    async with ArchivesSpace().serving() as server:
        furnish(server)
        server.coming()
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


R = "/repositories/2"


def the(site: ArchivesSpace, id_: str = NAME) -> dict[str, Any]:
    """Return the one digital object of an id, as staff see it."""
    [uri] = [uri for uri, one in site.records.items() if one.get("digital_object_id") == id_]
    return site.shown(uri)


def pages(site: ArchivesSpace, id_: str = NAME) -> list[dict[str, Any]]:
    return [site.shown(uri) for uri in site.trees.get((the(site, id_)["uri"], ""), [])]


def object_there(site: ArchivesSpace, id_: str = NAME, *, to: tuple[str, ...] = (AO,), **fields: Any) -> str:
    """Put a digital object in as staff would, linked to archival objects."""
    site._next += 1
    uri = site.add(
        f"{R}/digital_objects/{site._next}", digital_object_id=id_, title="theirs", publish=False, **fields
    )
    for archival in to:
        old = site.records[archival]
        one = {"instance_type": "digital_object", "digital_object": {"ref": uri}}
        site.save(archival, "archival_object", {**old, "instances": [*old["instances"], one]}, "staff")
    return uri
