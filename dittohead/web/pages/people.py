"""Who has brought folders: a person through the page, a source, or a user of this system."""

from __future__ import annotations

import functools
from collections.abc import Collection, Mapping

from dittohead.model.records import Job
from dittohead.store import Connection
from dittohead.store import drops as drop_store
from dittohead.store import requests as request_store
from dittohead.system.users import owner


def uploaders(connection: Connection, jobs: Collection[Job]) -> Mapping[str, str]:
    """Return who has brought the folders of jobs, by the jobs' ids. Blocking: users may be looked up afar."""
    people = request_store.dropped(connection, jobs)
    sources = drop_store.sources_of(connection, jobs)
    return {
        job.id: people.get(job.id) or (f"source {sources[job.id]}" if job.id in sources else _user(job.uid))
        for job in jobs
    }


@functools.lru_cache(maxsize=256)
def _user(uid: int) -> str:
    return owner(uid).user
