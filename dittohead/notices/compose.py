"""From what happened to rows for the outbox: the facts as plain data, the words, and whom they are for."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dittohead.config.notice_rules import Rule
from dittohead.config.notice_templates import Wording, plain
from dittohead.model.definition import Failure
from dittohead.model.records import Batch, Job, StepRow
from dittohead.model.states import JobState, Station
from dittohead.model.text import display, host_name, shell_word, utcnow
from dittohead.store.batches import BatchCounts
from dittohead.store.outbox import Gathered, NewNotice
from dittohead.system import log
from dittohead.system.users import Owner, owner

#: Records and pages, stuck jobs, and stale uploads or held arrivals of one owner, that a notice names.
LINKS, STUCK, STALE, HELD = 12, 50, 50, 50

#: A lasting thing is reported again after this long. Seconds.
_DAY_S, _WEEK_S = 86400.0, 7 * 86400.0

#: Of what may last, and how often it is reported.
_ONCE = {"stuck": _DAY_S, "stale": _WEEK_S, "held": _WEEK_S}


@dataclass
class Composer:
    """Makes notices by the rules of one configuration."""

    rules: Sequence[Rule]
    root: Path
    wording: Wording = field(default_factory=Wording)
    addresses: Mapping[str, str] = field(default_factory=dict)  #: by user name or number
    public_url: str = ""  #: where people reach the page; "" where it is not known
    _unknown: set[int] = field(default_factory=set)

    def wants(self, event: str, pipeline: str | None = None) -> bool:
        """Tell whether anybody asks for an event. Cheap: for every folder."""
        return any(rule.wants(event, pipeline) for rule in self.rules)

    def __call__(self, event: str, **given: Any) -> list[NewNotice]:
        """Return what goes into the outbox at an event.

        Blocking where it is about somebody's folder: names may come from the network.

        Args:
            given: of done, failed and recovered: job, steps, receipt, links (use, URI), and failure of the
                last; of batch: outcome (done, failed, cancelled or recovered: who asks for that is told),
                batch, counts, failures, beside; of late_change and damaged: job, count, files; of
                frozen: job, reason; of stuck: jobs, hours; of stale: name, age_seconds, size, uid, uploads;
                of held: arrivals, uid; of paused and full: target, reason; of resumed: target;
                of nearly_full: target, percent, free.
        """
        if event == "stuck":
            return list(self._stuck(**given))
        job: Job | None = given.get("job")
        about: Job | Batch | None = job or given.get("batch")
        asked = given.get("outcome", event) if event == "batch" else event
        wanting = [rule for rule in self.rules if rule.wants(asked, about.pipeline if about else None)]
        if not wanting:
            return []
        uid = about.uid if about else given.get("uid")
        whose = None if uid is None else owner(uid)
        facts = self.facts(event, whose=whose, **given)
        return self._rows(event, facts, wanting, whose, about)

    def facts(self, event: str, *, whose: Owner | None = None, **given: Any) -> dict[str, Any]:
        """Return the facts of an event as JSON values, shaped as `config.notice_templates.samples` has them.

        Args:
            event: such as "failed".
            whose: the person whose folder it is; None where that is not told.
            given: what this event is made of, such as `job` or `target`.
        """
        found = _FACTS[event](self.root, whose, **given)
        for job in (*found.get("jobs", ()), *([found["job"]] if "job" in found else ())):
            job["url"] = f"{self.public_url}/jobs/{job['id']}" if self.public_url else ""
        if "batch" in found:
            address = f"{self.public_url}/batches/{found['batch']['id']}"
            found["batch"]["url"] = address if self.public_url else ""
        facts: dict[str, Any] = plain({"host": host_name(), "root": str(self.root), **found})
        return facts

    def digest(self, found: Gathered) -> NewNotice:
        """Return the one notice that stands for many."""
        facts = self.facts("digest", gathered=found)
        subject, body = self.wording.words("digest", facts)
        return NewNotice(
            rule=found.rule, event="digest", subject=subject, body=body, data=facts, recipient=found.recipient
        )

    def disabled(self, rule: Rule, shown: str, reason: str, waiting: int) -> list[NewNotice]:
        """Return the notices, for those who look after everything, that a receiver gets nothing any more.

        Args:
            rule: the rule whose receiver was disabled; it is sent none of them.
            shown: the receiver, without secrets.
            reason: why it was disabled, in words.
            waiting: how many notices are kept for it.
        """
        facts = self.facts("disabled", rule=rule, shown=shown, reason=reason, waiting=waiting)
        others = [other for other in self.rules if other.for_all and other.key != rule.key]
        return self._rows("disabled", facts, others, None, None)

    def test(self, shown: str) -> tuple[str, str, dict[str, Any]]:
        """Return (subject, body, facts) of a test."""
        facts = self.facts("test", shown=shown)
        return *self.wording.words("test", facts), facts

    def _rows(
        self,
        event: str,
        facts: dict[str, Any],
        wanting: Iterable[Rule],
        whose: Owner | None,
        about: Job | Batch | None,
    ) -> list[NewNotice]:
        job = about if isinstance(about, Job) else None
        found: dict[tuple[str, str], NewNotice] = {}
        words: tuple[str, str] | None = None
        for rule in wanting:
            if not rule.is_for(whose):
                continue
            for recipient in self._recipients(rule, whose):
                words = words or self.wording.words(event, facts)
                # The first rule of a receiver decides; one receiver is told once.
                found.setdefault(
                    (rule.key, recipient),
                    NewNotice(
                        rule=rule.key,
                        event=event,
                        subject=words[0],
                        body=words[1],
                        job=job.id if job else None,
                        pipeline=about.pipeline if about else "",
                        recipient=recipient,
                        data=facts,
                        gather_s=rule.digest if event != "disabled" else None,
                        once_s=_ONCE.get(event),
                        # Programs need each: a webhook gets them all by themselves.
                        of=job.uid if job and rule.webhook is None else None,
                    ),
                )
        return list(found.values())

    def _recipients(self, rule: Rule, whose: Owner | None) -> Iterator[str]:
        """Yield "" for the rule's own receiver, and the uploader's address where it asks for that."""
        if rule.smtp is None or rule.smtp.fixed:
            yield ""
        if not rule.to_uploader or whose is None or rule.smtp is None:
            return
        address = self.address(whose)
        if address and address not in rule.smtp.fixed:
            yield address

    def address(self, whose: Owner) -> str:
        """Return an uploader's address; "" where it is not known, which is said once."""
        found = self.addresses.get(str(whose.uid)) or self.addresses.get(whose.user) or ""
        if not found and whose.uid not in self._unknown:
            self._unknown.add(whose.uid)
            log.get().warning(
                log.NOTIFY_NO_ADDRESS, uid=whose.uid, user=whose.user, hint="Add it to uploaders:"
            )
        return found

    def _stuck(self, *, jobs: Sequence[tuple[Job, float]], hours: float) -> Iterator[NewNotice]:
        """Yield one notice of all jobs that are not over, for each receiver and each uploader asked for.

        Args:
            jobs: each with the seconds since the epoch at which it began.
        """
        owners = {job.uid: owner(job.uid) for job, _ in jobs}
        seen: set[tuple[str, str]] = set()
        for rule in self.rules:
            theirs = [
                (job, since)
                for job, since in jobs
                if rule.wants("stuck", job.pipeline) and rule.is_for(owners[job.uid])
            ]
            parts: dict[str, list[tuple[Job, float]]] = {}
            for job, since in theirs:
                for recipient in self._recipients(rule, owners[job.uid]):
                    parts.setdefault(recipient, []).append((job, since))
            for recipient, part in parts.items():
                if (rule.key, recipient) in seen:
                    continue
                seen.add((rule.key, recipient))
                facts = self.facts("stuck", jobs=part, hours=hours, owners=owners)
                subject, body = self.wording.words("stuck", facts)
                yield NewNotice(
                    rule=rule.key,
                    event="stuck",
                    subject=subject,
                    body=body,
                    recipient=recipient,
                    data=facts,
                    gather_s=None,
                    once_s=_DAY_S,
                )


# -- facts -----------------------------------------------------------------------------------

_Links = Sequence[tuple[str, str]]


def _user(whose: Owner | None) -> str:
    return whose.user if whose else ""


def _job(job: Job, whose: Owner | None) -> dict[str, Any]:
    return {
        "id": job.id,
        "name": job.name,
        "pipeline": job.pipeline,
        "state": job.state.value,
        "files": job.files,
        "bytes": job.size,
        "uid": job.uid,
        "uploader": _user(whose),
        "claimed_at": job.claimed_at,
        "finished_at": job.finished_at or utcnow(),
    }


def _late_change(
    root: Path, whose: Owner | None, *, job: Job, count: int, files: Sequence[str]
) -> dict[str, Any]:
    return {
        "job": _job(job, whose),
        "count": count,
        "files": list(files),
        "more": count - len(files),
        "again": f"dittohead rerun {job.id}",
    }


def _damaged(
    root: Path, whose: Owner | None, *, job: Job, count: int, files: Sequence[str]
) -> dict[str, Any]:
    return {
        "job": _job(job, whose),
        "count": count,
        "files": list(files),
        "more": count - len(files),
        "verify": f"dittohead verify {job.id}",
    }


def _frozen(root: Path, whose: Owner | None, *, job: Job, reason: str) -> dict[str, Any]:
    return {
        "job": _job(job, whose),
        "reason": reason,
        "thaw": f"dittohead thaw {job.id}",
        "cancel": f"dittohead cancel {job.id}",
    }


def _done(
    root: Path,
    whose: Owner | None,
    *,
    job: Job,
    steps: Sequence[StepRow],
    receipt: Path,
    links: _Links = (),
) -> dict[str, Any]:
    return {
        "job": _job(job, whose),
        "delivered": sum(_copies(step) for step in steps),
        "steps": [
            {
                "name": step.name,
                "worker": step.worker,
                "detail": step.result.detail,
                "files": _copies(step),
            }
            for step in steps
        ],
        "links": [{"use": use, "uri": uri} for use, uri in links[:LINKS]],
        "more_links": max(len(links) - LINKS, 0),
        "receipt": str(receipt),
    }


def _copies(step: StepRow) -> int:
    """Return how many copies of files a step has delivered; records and pages are none."""
    return step.result.copies


def _recovered(root: Path, whose: Owner | None, *, failure: dict[str, Any], **given: Any) -> dict[str, Any]:
    return {**_done(root, whose, **given), "failure": failure}


def _failed(root: Path, whose: Owner | None, *, job: Job, **given: Any) -> dict[str, Any]:
    error = job.error or Failure(what=job.reason)
    return {
        **_done(root, whose, job=job, **given),
        "error": {"what": error.what, "where": error.where, "hint": error.hint, "step": error.step},
        "retry": "" if job.definition.refusal is not None else f"dittohead retry {job.id}",
        "again": _from_the_first_step(root, job),
    }


def _from_the_first_step(root: Path, job: Job) -> str:
    """Return the command that runs a failed folder again, before it lies in failed/."""
    folder = os.path.join(os.fsencode(root), Station.FAILED.value.encode(), job.folder)
    # An earlier failure of that name lies there, and this one gets a name nobody knows yet.
    if os.path.lexists(folder):
        return f"dittohead rerun {job.id}"
    return f"mv {shell_word(folder)} {shell_word(os.fsencode(root / Station.INBOX.value))}/"


#: What lies beside a collection's folders, of which so many are named.
_BESIDE = 20


def _batch(
    root: Path,
    whose: Owner | None,
    *,
    outcome: str,
    batch: Batch,
    counts: BatchCounts,
    failures: Sequence[Job],
    beside: Sequence[str] = (),
) -> dict[str, Any]:
    folder = os.path.join(os.fsencode(root), Station.FAILED.value.encode(), batch.folder)
    return {
        "batch": {
            "id": batch.id,
            "name": batch.name,
            "pipeline": batch.pipeline,
            "uid": batch.uid,
            "uploader": _user(whose),
            "claimed_at": batch.claimed_at,
        },
        "outcome": outcome,
        "count": counts.total,
        "done": counts.done,
        "failed": counts.failed,
        "settled": counts.settled,
        "jobs": [{**_job(job, whose), "reason": job.reason} for job in failures],
        "more": counts.failed - len(failures),
        "beside": list(beside[:_BESIDE]),
        "more_beside": max(len(beside) - _BESIDE, 0),
        "retry": f"dittohead retry --batch {batch.id}" if counts.failed else "",
        "again": f"mv {shell_word(folder)} {shell_word(os.fsencode(root / Station.INBOX.value))}/",
        "list": f"dittohead list --batch {batch.id}",
    }


def _stuck(
    root: Path,
    whose: Owner | None,
    *,
    jobs: Sequence[tuple[Job, float]],
    hours: float,
    owners: Mapping[int, Owner],
) -> dict[str, Any]:
    now = utcnow()
    return {
        "count": len(jobs),
        "hours": hours,
        "jobs": [
            {
                "id": job.id,
                "name": job.name,
                "pipeline": job.pipeline,
                "state": job.state.value,
                "uid": job.uid,
                "uploader": _user(owners.get(job.uid)),
                "reason": job.reason,
                "since": datetime.fromtimestamp(since, UTC),
                "hours": round((now.timestamp() - since) / 3600, 1),
                "do": _TO_DO[job.state].format(job.id),
            }
            for job, since in jobs[:STUCK]
        ],
        "more": max(len(jobs) - STUCK, 0),
    }


_TO_DO = {
    JobState.FROZEN: "dittohead thaw {0}",
    JobState.PAUSED: "fix what it waits for; to try it now: dittohead poke {0}",
    JobState.WAITING: "dittohead show {0}; to try it now: dittohead poke {0}",
    JobState.RUNNING: "dittohead logs {0} -f",
}


def _stale(
    root: Path,
    whose: Owner | None,
    *,
    name: str,
    age_seconds: float,
    size: int,
    uid: int = -1,
    uploads: Sequence[tuple[bytes, float, int]] = (),
) -> dict[str, Any]:
    """Args: uploads: all of the owner's, by (folder, age in seconds, bytes); only the first without it."""
    uploads = uploads or [(os.fsencode(name), age_seconds, size)]
    listed = [_upload(root, whose, uid, *one) for one in uploads[:STALE]]
    return {
        "upload": listed[0],
        "uploads": listed,
        "count": len(uploads),
        "more": max(len(uploads) - STALE, 0),
    }


def _upload(
    root: Path, whose: Owner | None, uid: int, folder: bytes, age_s: float, size: int
) -> dict[str, Any]:
    inbox = os.path.join(os.fsencode(root), Station.INBOX.value.encode())
    path, ready = os.path.join(inbox, folder), os.path.join(inbox, folder.lstrip(b"."))
    is_taken = ready == os.path.join(inbox, b"") or os.path.lexists(ready)
    return {
        "name": display(folder),
        "inbox": str(root / Station.INBOX.value),
        "hours": round(age_s / 3600, 1),
        "bytes": size,
        "uid": uid,
        "uploader": _user(whose),
        "look": f"ls -laR {shell_word(path)}",
        # Not into a folder of that name, should one come meanwhile.
        "hand_over": "" if is_taken else f"mv -nT {shell_word(path)} {shell_word(ready)}",
    }


def _held(
    root: Path, whose: Owner | None, *, arrivals: Sequence[Mapping[str, Any]], uid: int | None = None
) -> dict[str, Any]:
    """Args: arrivals: all of the owner's, by name, kind, seconds, reason, cure and command."""
    more = {"inbox": str(root / Station.INBOX.value), "uid": uid, "uploader": _user(whose)}
    listed = [{**one, **more} for one in arrivals[:HELD]]
    return {
        "arrival": listed[0],
        "arrivals": listed,
        "count": len(arrivals),
        "more": max(len(arrivals) - HELD, 0),
    }


def _as_given(root: Path, whose: Owner | None, **given: Any) -> dict[str, Any]:
    return given


def _full(root: Path, whose: Owner | None, *, target: str, reason: str, is_root: bool) -> dict[str, Any]:
    return {"target": target, "reason": reason, "is_root": is_root}


def _digest(root: Path, whose: Owner | None, *, gathered: Gathered) -> dict[str, Any]:
    kinds: dict[str, int] = {}
    pipelines: dict[str, list[dict[str, Any]]] = {}
    for pipeline, event, count in gathered.counts:
        kinds[event] = kinds.get(event, 0) + count
        pipelines.setdefault(pipeline, []).append({"event": event, "count": count})
    total = sum(kinds.values())
    named = Counter(notice.data.get("job", {}).get("uploader", "") for notice in gathered.notices)
    owners = gathered.owners or named.most_common()
    return {
        "count": total,
        "since": gathered.since,
        "kinds": [{"event": event, "count": kinds[event]} for event in sorted(kinds)],
        "pipelines": [{"name": name, "kinds": found} for name, found in pipelines.items()],
        "notices": [
            {
                "id": notice.id,
                "event": notice.event,
                "at": notice.created_at,
                "subject": notice.subject,
                "job": notice.data.get("job", {}).get("id", ""),
                "pipeline": notice.data.get("job", {}).get("pipeline", ""),
                "reason": notice.data.get("error", {}).get("what", ""),
            }
            for notice in gathered.notices
        ],
        "uploaders": [{"name": name, "count": count} for name, count in owners],
        "more": total - len(gathered.notices),
    }


def _disabled(
    root: Path, whose: Owner | None, *, rule: Rule, shown: str, reason: str, waiting: int
) -> dict[str, Any]:
    called = shell_word(os.fsencode(rule.name)) if rule.name else rule.key
    return {
        "receiver": shown,
        "kind": rule.kind,
        "reason": reason,
        "waiting": waiting,
        "test": f"dittohead notify test {called}",
        "enable": f"dittohead notify enable {called}",
    }


def _test(root: Path, whose: Owner | None, *, shown: str) -> dict[str, Any]:
    return {"receiver": shown}


_FACTS: dict[str, Callable[..., dict[str, Any]]] = {
    "done": _done,
    "failed": _failed,
    "cancelled": _failed,
    "recovered": _recovered,
    "batch": _batch,
    "late_change": _late_change,
    "damaged": _damaged,
    "frozen": _frozen,
    "stuck": _stuck,
    "stale": _stale,
    "held": _held,
    "paused": _as_given,
    "resumed": _as_given,
    "nearly_full": _as_given,
    "full": _full,
    "digest": _digest,
    "disabled": _disabled,
    "test": _test,
}
