"""What people and programs are shown of a job and of the sources: by the store, and by files beside it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from dittohead.config import registry
from dittohead.config.loader import SourceSetting
from dittohead.config.notice_rules import Rule
from dittohead.config.notice_rules import shown as rule_shown
from dittohead.contract.catalogue import SWITCH, CatalogueEntry
from dittohead.folders import receipt
from dittohead.folders.job_files import JobFiles
from dittohead.folders.stations import Stations
from dittohead.model.errors import Unreadable
from dittohead.model.records import Job
from dittohead.model.shown import (
    DisabledReceiver,
    EntryHistory,
    RunningSource,
    ShownChange,
    ShownEntry,
    ShownPanel,
    ShownReceiver,
    ShownRequest,
    ShownSource,
    WholeJob,
)
from dittohead.model.text import rfc3339
from dittohead.store import Connection, custody, history, queries
from dittohead.store import catalogue as catalogue_store
from dittohead.store import items as item_store
from dittohead.store import jobs as job_store
from dittohead.store import requests as request_store

#: Lines of an entry's history that are shown; the latest.
_CHANGES = 200

#: Requests shown with a job; the latest.
_REQUESTS = 50


def job(connection: Connection, stations: Stations, found: Job) -> WholeJob:
    """Return everything about one job but its files: also where it lies, and who asked for what."""
    path = receipt.path_of(stations.receipts, found)
    asked = request_store.listing(connection, job=found.id, limit=_REQUESTS)
    return {
        **queries.detail(connection, found),
        "custody": custody.get(connection, found.id).as_dict(),
        "taken_up_by": history.taken_up_by(connection, found),
        "folder_path": str(stations.folder(found.station, found.folder)),
        "receipt": str(path) if path.exists() else None,
        "links": [{"use": use, "uri": uri} for use, uri in links(connection, stations, found.id)],
        "locations": [
            {"uri": uri, "files": count, "verified_by": how}
            for uri, count, how in places(connection, stations, found.id)
        ],
        "requests": [request(row) for row in asked],
    }


def places(connection: Connection, stations: Stations, job_id: str) -> list[tuple[str, int, str]]:
    """Return (directory's URI, files, how they were verified) for each place a job delivered to."""
    found_job = job_store.get(connection, job_id)
    files = JobFiles(stations, found_job)
    found = []
    for step in job_store.steps_of(connection, job_id):
        if not step.result.locations:
            continue
        with contextlib.suppress(Unreadable, OSError):  # the rest is shown all the same
            copies = (place for place in receipt.read_locations(files.locations(step.name)) if not place.use)
            location = next(copies, None)
            if location is not None:
                place = location.uri.rsplit("/", location.path.count(b"/") + 1)[0] + "/"
                ways = Counter([location.verified_by])
                ways.update(copy.verified_by for copy in copies)
                found += [(place, count, how) for how, count in ways.items()]
    return found


def links(connection: Connection, stations: Stations, job_id: str) -> list[tuple[str, str]]:
    """Return (use, URI) of each record, page, thumbnail and manifest that a job has made."""
    files = JobFiles(stations, job_store.get(connection, job_id))
    return files.links(job_store.steps_of(connection, job_id))


def request(row: request_store.RequestRow) -> ShownRequest:
    """Return what somebody asked for, and what became of it; `ok` is null while it is not answered."""
    return {
        "id": row.id,
        "action": row.action,
        "of": row.job,
        "args": row.args,
        "who": row.who,
        "at": rfc3339(row.at),
        "ok": None if row.answer is None else row.answer.ok,
        "message": "" if row.answer is None else row.answer.message,
    }


def sources(
    connection: Connection, settings: Sequence[SourceSetting], now: Mapping[str, RunningSource]
) -> list[ShownSource]:
    """Return each source: what it does, when it last looked, its items by state, why it holds back.

    Args:
        now: what is true only now, by source (see engine/live_status.py).
    """
    return [_source(connection, setting, now.get(setting.name)) for setting in settings]


def _source(connection: Connection, setting: SourceSetting, now: RunningSource | None) -> ShownSource:
    rounds = item_store.rounds(connection, setting.name)
    due = setting.options.due(rounds.looked_at)
    idle: RunningSource = {"state": "not running", "error": rounds.error, "held": "", "waiting": {}}
    return {
        "name": setting.name,
        "kind": setting.kind,
        **(now or idle),
        **queries.source(connection, setting.name),
        "next_at": rfc3339(datetime.fromtimestamp(due, UTC)) if due else None,
        "panels": panels(connection, setting),
        "paused": paused(connection, setting.name),
    }


def panels(connection: Connection, setting: SourceSetting) -> list[ShownPanel]:
    """Return what a source shows of its catalogue, made from the counts that are kept."""
    name = setting.name
    counts = {
        kind: catalogue_store.counts(connection, name, kind)
        for kind in catalogue_store.kinds(connection, name)
    }
    found = registry.sources().get(setting.kind).panels(setting.options, counts)
    return [
        {"title": one.title, "rows": [{"label": label, "value": value} for label, value in one.rows]}
        for one in found
    ]


def paused(connection: Connection, name: str) -> dict[str, str]:
    """Return what of a source is paused, each with the reason."""
    found = catalogue_store.page(connection, name, SWITCH, state="paused")
    return {entry.key: entry.reason for entry in found}


def entries(
    connection: Connection, setting: SourceSetting, *, state: str, stage: str | None, after: str, limit: int
) -> list[ShownEntry]:
    """Return entries of a source's catalogue as JSON objects, by key.

    Args:
        setting: the source, as config.yaml has it.
        state: only entries in this state; "" for all.
        stage: only entries in this stage; "" for those without one, None for all.
        after: a key; only entries behind it. "" begins at the first.
        limit: how many at most.
    """
    kind = registry.sources().get(setting.kind).shows
    found = catalogue_store.page(
        connection, setting.name, kind, state=state, stage=stage, after=after, limit=limit
    )
    return [_entry(one) for one in found]


def entry(connection: Connection, setting: SourceSetting, key: str) -> EntryHistory | None:
    """Return one entry with what became of it, the latest first; None where it is not known."""
    kind = registry.sources().get(setting.kind).shows
    found = catalogue_store.get(connection, setting.name, kind, [key]).get(key)
    if found is None:
        return None
    changes = catalogue_store.history(connection, setting.name, kind, key, _CHANGES)
    history: list[ShownChange] = [
        {
            "at": _at(one.at),
            "state": one.state,
            "stage": one.stage,
            "reason": one.reason,
            "by": one.by,
        }
        for one in changes
    ]
    return {**_entry(found), "history": history}


def _entry(found: CatalogueEntry) -> ShownEntry:
    return {
        "key": found.key,
        "state": found.state,
        "stage": found.stage,
        "reason": found.reason,
        "priority": found.priority,
        "attributes": found.attributes,
        "first_at": _at(found.first_at),
        "changed_at": _at(found.changed_at),
    }


def _at(moment: float) -> str:
    return rfc3339(datetime.fromtimestamp(moment, UTC)) or ""


def receivers(disabled: Sequence[DisabledReceiver], rules: Sequence[Rule]) -> list[ShownReceiver]:
    """Return receivers that get no notices any more, each with what it is called: `to`."""
    names = {rule.key: rule_shown(rule) for rule in rules}
    return [{**one, "to": names.get(one["rule"], "a rule that is gone")} for one in disabled]
