"""What commands do themselves where no daemon answers: as its user, under the root's lock."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dittohead.admin.verify import verify_job
from dittohead.cli import advice
from dittohead.cli.base import NO_PERMISSION, TEMPORARY
from dittohead.cli.open_config import load_config, reading
from dittohead.cli.terminal import fail
from dittohead.config import registry
from dittohead.config.loader import Config
from dittohead.folders.replacement import Replacements
from dittohead.folders.stations import Stations
from dittohead.model.errors import DittoheadError
from dittohead.model.records import RequestAnswer
from dittohead.model.shown import ShownReport
from dittohead.model.states import JobState
from dittohead.store import Store, queries
from dittohead.store import requests as request_store
from dittohead.system import files, lock
from dittohead.system.credentials import Credentials
from dittohead.system.users import owner

#: How long a command waits for the daemon's answer.
_ANSWER_S = 30.0


def carried_out(action: str, jobs: tuple[str, ...], args: dict[str, Any]) -> Iterator[RequestAnswer]:
    """Carry an action out while no daemon runs; yield the answer for each job.

    Args:
        action: such as "retry" or "freeze".
        jobs: ids or folder names, as they were typed.
        args: the action's own arguments, as JSON.

    Raises: StoreError: there is no store yet, or it cannot be read.
    """
    config = load_config()
    with reading(config) as (store, stations):
        for job in jobs:
            yield _by_row(config, store, stations, action, job, args)


def _by_row(
    config: Config, store: Store, stations: Stations, action: str, job: str, args: dict[str, Any]
) -> RequestAnswer:
    """Leave a row for a daemon that is just starting, or for this process; return the answer."""
    number = store.run(request_store.add, action, job, args, getpass.getuser())
    if not lock.is_held(stations.state):
        must_be_its_user(stations.state)
        from dittohead.daemon import answer_requests  # takes longer to import than all else of a command

        with contextlib.suppress(lock.Locked):  # a daemon has just started, and will carry it out
            answer_requests(config)
    return _wait_for_answer(store, number)


def must_be_its_user(state: Path) -> None:
    """Without a daemon this command writes instead of it, and must not leave files it cannot read."""
    holder = state.stat().st_uid
    if holder != os.geteuid():
        name = owner(holder).user
        fail(
            "no daemon runs; it will answer when it starts. Or do this as its user: " + advice.as_user(name),
            NO_PERMISSION,
        )


def _wait_for_answer(store: Any, number: int) -> RequestAnswer:
    end = time.monotonic() + _ANSWER_S
    while time.monotonic() < end:
        answer: RequestAnswer | None = store.run(request_store.answer_to, number)
        if answer is not None:
            return answer
        time.sleep(0.05)
    fail("the daemon has not answered yet; it will carry this out: dittohead status", TEMPORARY)


def verified(job: str) -> ShownReport:
    """Compare a job's receipt with everything; return the report. Raises: NoSuchJob."""
    config = load_config()
    with reading(config) as (store, stations):
        found = store.run(queries.resolve, job, (JobState.DONE,))
        secret = Credentials(config.path).needed
        return asyncio.run(verify_job(found, store, stations, registry.default(), secret)).as_dict()


def offered(root: Path, job: str, path: str, encoding: str, new: Path, digest: str) -> tuple[str, str]:
    """Let a new file wait that is to stand in for one of a failed folder; return (its id, the job's).

    Args:
        digest: its SHA-256, in hex.
    """
    stations = Stations(root)
    if lock.is_held(stations.state):
        fail("the daemon does not answer; try again in a moment: dittohead status", TEMPORARY)
    must_be_its_user(stations.state)
    replacements = Replacements(stations)
    with reading(load_config()) as (store, _):
        found = store.run(queries.resolve, job, (JobState.FAILED,))
    if found.state is not JobState.FAILED:
        raise DittoheadError(f"{found.name} has not failed ({found.state})")
    offer = replacements.expect(found, path, encoding, getpass.getuser())
    with replacements.receiving(offer) as file, open(new, "rb") as source:
        shutil.copyfileobj(source, file, files.BLOCK)
    return replacements.received(offer, digest).id, found.id
