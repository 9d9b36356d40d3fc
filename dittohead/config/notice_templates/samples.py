"""A notice's facts, by event: their shape, and what templates are tried with when they are checked."""

from __future__ import annotations

from typing import Any

_SITE: dict[str, Any] = {"host": "ingest", "root": "/srv/dittohead"}

_JOB: dict[str, Any] = {
    "id": "01J0000000000000000000JOB1",
    "name": "lab1-scans",
    "pipeline": "scans",
    "state": "done",
    "files": 1234,
    "bytes": 56_700_000,
    "uid": 1001,
    "uploader": "alice",
    "claimed_at": "2026-01-02T03:04:05.000Z",
    "finished_at": "2026-01-02T03:09:05.000Z",
    "url": "https://ingest.example.org/jobs/01J0000000000000000000JOB1",
}

_DONE: dict[str, Any] = {
    **_SITE,
    "job": _JOB,
    "delivered": 1234,
    "steps": [{"name": "originals", "worker": "rsync", "detail": "1,234 files", "files": 1234}],
    "links": [{"use": "record", "uri": "https://archives.example.org/9"}],
    "more_links": 3,
    "receipt": "/srv/dittohead/receipts/lab1-scans.01J0000000000000000000JOB1.json",
}

_UPLOAD: dict[str, Any] = {
    "name": ".lab1-scans",
    "inbox": "/srv/dittohead/inbox",
    "hours": 30.5,
    "bytes": 56_700_000,
    "uid": 1001,
    "uploader": "alice",
    "look": "ls -laR /srv/dittohead/inbox/.lab1-scans",
    "hand_over": "mv -nT /srv/dittohead/inbox/.lab1-scans /srv/dittohead/inbox/lab1-scans",
}

_ARRIVAL: dict[str, Any] = {
    "name": "lab1-scans",
    "inbox": "/srv/dittohead/inbox",
    "kind": "immovable",
    "seconds": 5400,
    "reason": "lab1-scans: the daemon may not move this folder: mode 0755, owner alice",
    "cure": "Moving a directory needs write access to it",
    "command": "sudo chmod -R g+rwX /srv/dittohead/inbox/lab1-scans",
    "uid": 1001,
    "uploader": "alice",
}

_FAILED: dict[str, Any] = {
    **_DONE,
    "job": {**_JOB, "state": "failed"},
    "error": {
        "what": "the image is truncated",
        "where": "a.tif",
        "hint": "Scan it again",
        "step": "convert",
    },
    "retry": "dittohead retry 01J0000000000000000000JOB1",
    "again": "mv /srv/dittohead/failed/lab1-scans /srv/dittohead/inbox/",
}

#: The facts of each event, as templates and webhooks get them.
SAMPLES: dict[str, dict[str, Any]] = {
    "done": _DONE,
    "recovered": {
        **_DONE,
        "failure": {
            "job": "01J0000000000000000000JOB0",
            "at": "2026-01-01T03:04:05.000Z",
            "reason": "the image is truncated",
        },
    },
    "failed": _FAILED,
    "cancelled": _FAILED,
    "batch": {
        **_SITE,
        "batch": {
            "id": "01J0000000000000000000BAT1",
            "name": "letters",
            "pipeline": "collections",
            "uid": 1001,
            "uploader": "alice",
            "claimed_at": "2026-01-02T03:04:05.000Z",
            "url": "https://ingest.example.org/batches/01J0000000000000000000BAT1",
        },
        "outcome": "failed",
        "count": 50,
        "done": 47,
        "failed": 2,
        "settled": 1,
        "jobs": [{**_JOB, "name": "letters/0012", "state": "failed", "reason": "a.tif: it is truncated"}],
        "more": 1,
        "beside": ["README.txt", "list.csv", ".0013 (a directory)"],
        "more_beside": 1,
        "retry": "dittohead retry --batch 01J0000000000000000000BAT1",
        "again": "mv /srv/dittohead/failed/letters /srv/dittohead/inbox/",
        "list": "dittohead list --batch 01J0000000000000000000BAT1",
    },
    "late_change": {
        **_SITE,
        "job": _JOB,
        "count": 3,
        "files": ["b.tif: added", "a.tif: changed"],
        "more": 1,
        "again": "dittohead rerun 01J0000000000000000000JOB1",
    },
    "damaged": {
        **_SITE,
        "job": _JOB,
        "count": 3,
        "files": ["file:///study/lab1/a.tif: differs from the receipt", "s3://iiif/b.tif: is missing"],
        "more": 1,
        "verify": "dittohead verify 01J0000000000000000000JOB1",
    },
    "frozen": {
        **_SITE,
        "job": _JOB,
        "reason": "the policy holds 2 files: a.wad: PUID UNKNOWN (ask the producer); b.wad: the same",
        "thaw": "dittohead thaw 01J0000000000000000000JOB1",
        "cancel": "dittohead cancel 01J0000000000000000000JOB1",
    },
    "stuck": {
        **_SITE,
        "count": 3,
        "hours": 24.0,
        "jobs": [
            {
                "id": "01J0000000000000000000JOB1",
                "name": "lab1-scans",
                "pipeline": "scans",
                "state": "paused",
                "uid": 1001,
                "uploader": "alice",
                "reason": "the host refuses connections",
                "since": "2026-01-02T03:04:05.000Z",
                "hours": 30.5,
                "do": "dittohead poke 01J0000000000000000000JOB1",
                "url": "https://ingest.example.org/jobs/01J0000000000000000000JOB1",
            }
        ],
        "more": 2,
    },
    "stale": {**_SITE, "upload": _UPLOAD, "uploads": [_UPLOAD], "count": 3, "more": 2},
    "held": {**_SITE, "arrival": _ARRIVAL, "arrivals": [_ARRIVAL], "count": 3, "more": 2},
    "paused": {**_SITE, "target": "images@web", "reason": "the host refuses connections"},
    "resumed": {**_SITE, "target": "images@web"},
    "nearly_full": {**_SITE, "target": "/study/lab1", "percent": 91.6, "free": 12_300_000_000},
    "full": {
        **_SITE,
        "target": "/study/lab1",
        "reason": "No space left on device",
        "is_root": True,
    },
    "digest": {
        **_SITE,
        "count": 3,
        "since": "2026-01-02T03:04:05.000Z",
        "kinds": [{"event": "done", "count": 2}, {"event": "failed", "count": 1}],
        "pipelines": [{"name": "scans", "kinds": [{"event": "done", "count": 2}]}],
        "uploaders": [{"name": "alice", "count": 3}],
        "notices": [
            {
                "id": "01J00000000000000000NOTICE",
                "event": "failed",
                "at": "2026-01-02T03:04:05.000Z",
                "subject": "Failed: lab1-scans",
                "job": "01J0000000000000000000JOB1",
                "pipeline": "scans",
                "reason": "the image is truncated",
            }
        ],
        "more": 1,
    },
    "disabled": {
        **_SITE,
        "receiver": "chat",
        "kind": "webhook",
        "reason": "the receiver answered 410: it accepts no more",
        "waiting": 2,
        "test": "dittohead notify test chat",
        "enable": "dittohead notify enable chat",
    },
    "test": {**_SITE, "receiver": "chat"},
}


def bare(facts: Any) -> Any:
    """Return facts of the same shape that say nothing: empty texts and lists, zeros."""
    if isinstance(facts, dict):
        return {key: bare(value) for key, value in facts.items()}
    return type(facts)()
