"""What tests of notices share: rules, jobs, a clock that is moved, a notifier on a store."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dittohead.config.notice_rules import Rule
from dittohead.model.definition import Failure, JobDefinition
from dittohead.model.records import Job, JobId
from dittohead.model.states import JobState, Station
from dittohead.model.text import display, utcnow
from dittohead.notices.compose import Composer
from dittohead.notices.sender import Notifier
from dittohead.store import Store
from dittohead.store import outbox as outbox_store
from dittohead.store.outbox import NewNotice, StoreOutbox
from dittohead.store.tables import outbox
from tests.support.receivers import Mailbox


class Clock:
    """A clock that tests move."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **amount: float) -> None:
        self.now += timedelta(**amount)


def rule(**fields: Any) -> Rule:
    return Rule.model_validate({"on": ["failed"], **fields})


def mail(box: Mailbox, *on: str, digest: float | None = None, **more: Any) -> Rule:
    smtp = {"host": "127.0.0.1", "port": box.port, "sender": "d@example.org", "to": ["a@example.org"], **more}
    return rule(smtp=smtp, on=on or ["failed"], digest=digest)


def job(folder: bytes = b"lab1-x", **more: Any) -> Job:
    fields: dict[str, Any] = {
        "id": JobId("01J0000000000000000000JOB1"),
        "name": display(folder),
        "folder": folder,
        "station": Station.PROCESSING,
        "dev": 1,
        "ino": 2,
        "uid": 1000,
        "pipeline": "scans",
        "definition": JobDefinition(),
        "values": {},
        "state": JobState.DONE,
        "reason": "",
        "error": None,
        "token": 1,
        "wake_at": None,
        "target": "",
        "files": 1234,
        "size": 56_700_000,
        "claimed_at": utcnow(),
        "finished_at": utcnow(),
        "host": "h",
    }
    return Job(**(fields | more))


def broken(folder: bytes = b"lab1-x", **error: str) -> Job:
    """A job that failed."""
    told = Failure(what="the image is truncated", where="a.tif", hint="Scan it again", step="convert")
    return job(folder, state=JobState.FAILED, error=dataclasses.replace(told, **error))


def words(event: str, root: Path, **given: Any) -> tuple[str, str]:
    """Return (subject, body) of an event in our own words."""
    composer = Composer([], root)
    return composer.wording.words(event, composer.facts(event, **given))


def told_of(root: Path, failed: Job) -> tuple[str, str]:
    return words("failed", root, job=failed, steps=[], receipt=root / "receipts" / "r.json")


def composer(rules: Sequence[Rule], root: Path = Path("/root-of-test"), **more: Any) -> Composer:
    return Composer(rules, root, **more)


def notifier(
    store: Store, rules: Sequence[Rule], secrets: Mapping[str, str] | None = None, **more: Any
) -> Notifier:
    return Notifier(StoreOutbox(store), composer(rules), dict(secrets or {}).__getitem__, **more)


def put(store: Store, to: Rule, subject: str = "Failed: x", body: str = "why") -> None:
    notice = NewNotice(rule=to.key, event="failed", subject=subject, body=body)
    store.run(outbox_store.add, [notice])


def rows(store: Store) -> list[Any]:
    return store.run(lambda c: list(c.execute(sa.select(outbox)).mappings()))


@contextlib.asynccontextmanager
async def running(notifier: Notifier) -> AsyncIterator[None]:
    task = asyncio.create_task(notifier.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
