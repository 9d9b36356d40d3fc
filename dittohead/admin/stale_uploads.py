"""Notices of abandoned uploads: at most a few for each owner.

Anybody who may write into the inbox can make thousands of them: of one owner a few get a
notice each in a day, and more than that get one notice that counts them.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from dittohead.admin.notice_limits import FEW, NoticeGroup, NoticeLimits
from dittohead.engine.engine import Engine
from dittohead.model.shown import ShownUpload
from dittohead.model.states import Station
from dittohead.model.text import display
from dittohead.store import outbox as outbox_store
from dittohead.store.outbox import NewNotice
from dittohead.system import log
from dittohead.watcher import stale_uploads

#: That `status` and the page name.
SHOWN = 50


@dataclass(frozen=True)
class StaleUpload:
    """One that nobody goes on with."""

    folder: bytes
    age_s: float
    size: int
    uid: int

    @property
    def name(self) -> str:
        """Its name, for people."""
        return display(self.folder)


class StaleUploads:
    """Those there are now."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: frozenset[bytes] = frozenset()
        self._sparing = NoticeLimits[StaleUpload](lambda upload: upload.folder)
        self.shown: list[ShownUpload] = []  #: `SHOWN` at most
        self.count = 0

    async def round(self, uploads: Sequence[bytes], older_than_s: float) -> None:
        """Look at dotted folders, and report those that nobody has written to for this long."""
        found = [
            StaleUpload(name, age_s, size, uid)
            async for name, age_s, size in stale_uploads(self._engine.stations, uploads, older_than_s)
            if (uid := await asyncio.to_thread(self._uid, name)) is not None
        ]
        found.sort(key=lambda upload: -upload.age_s)
        self.count = len(found)
        self.shown = [_shown(upload) for upload in found[:SHOWN]]
        by_owner = sorted(found, key=lambda upload: upload.uid)
        for uid, theirs in itertools.groupby(by_owner, key=lambda upload: upload.uid):
            await self._owners_round(uid, list(theirs))
        self._known = frozenset(upload.folder for upload in found)

    def _uid(self, folder: bytes) -> int | None:
        try:
            return self._engine.stations.identity(Station.INBOX, folder).st_uid
        except OSError:  # renamed or taken away meanwhile
            return None

    async def _owners_round(self, uid: int, uploads: list[StaleUpload]) -> None:
        fresh = [upload for upload in uploads if upload.folder not in self._known]
        for upload in fresh[:FEW]:
            log.get().warning(
                log.WATCH_STALE, upload=upload.name, age_seconds=round(upload.age_s), bytes=upload.size
            )
        if len(fresh) > FEW:
            log.get().warning(log.WATCH_STALE, uid=uid, more=len(fresh) - FEW)
        if not self._engine.wants("stale", None):
            return
        for part in self._sparing.parts(uid, uploads, len(fresh)):
            await self._put(part)
            self._sparing.told(uid, part)

    async def _put(self, part: NoticeGroup[StaleUpload]) -> None:
        uploads, first = part.things, part.things[0]
        names = "\0".join([str(first.uid), *sorted(upload.name for upload in uploads)])
        about = _key(names if part.together else first.name)

        def compose() -> list[NewNotice]:
            given = {"name": first.name, "age_seconds": first.age_s, "size": first.size, "uid": first.uid}
            listed = [(upload.folder, upload.age_s, upload.size) for upload in uploads]
            return self._engine.compose("stale", **given, uploads=listed)

        notices = await asyncio.to_thread(compose)
        if notices:
            await self._engine.store.write(outbox_store.add, notices, about=about)
            self._engine.wake_notifier()


def _shown(upload: StaleUpload) -> ShownUpload:
    return {"name": upload.name, "age_seconds": round(upload.age_s), "bytes": upload.size}


def _key(text: str) -> str:
    """Return what stands for uploads in the outbox's column for a job: 26 characters at most."""
    return "u" + hashlib.sha256(text.encode()).hexdigest()[:25]
