"""What a monitoring system asks for, as Prometheus' text; counted as it happens, the rest read at a scrape.

Names follow prometheus.io/docs/practices/naming: base units, `_total` for counters. No label holds a job, a
folder or a file: the number of series does not grow with the work.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics import MetricWrapperBase

from dittohead.model.held import HeldKind
from dittohead.model.shown import LiveStatus, StoreTotals
from dittohead.model.states import JobState

CONTENT_TYPE = CONTENT_TYPE_LATEST

#: A step may take a moment or a day. Seconds.
_STEP_S = (0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400, 86400)

#: How late the loop may be for what was due. Seconds.
_LAG_S = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

#: The loop is asked whether it is late this often.
_LAG_EVERY_S = 0.5

_MODES = ("inotify", "polling")

#: How the copies of a job that is done stand; `overdue` and `never` count among the others, too.
FIXITY = ("good", "wrong", "unknown", "never", "overdue")

_RECEIVERS = ("mail", "webhook", "apprise")

_Kind = TypeVar("_Kind", bound=MetricWrapperBase)


class Metrics:
    """The counters and gauges of one daemon."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry(auto_describe=True)
        #: (name with its labels, kind, meaning) of each, for the docs
        self.described: list[tuple[str, str, str]] = []
        add = self._add
        self._build = add(Info, "build", "The version that runs")
        self.jobs = add(Gauge, "jobs", "Jobs in a state", "state")
        failures = "Failed jobs whose folder no later job has taken up"
        self.open_failures = add(Gauge, "open_failures", failures)
        self.inbox = add(Gauge, "inbox_folders", "Folders in the inbox, not yet claimed")
        held = "Folders that stay in the inbox for a reason"
        self.held = add(Gauge, "arrivals_held", held, "kind")
        strays = "What lies in the inbox and is not a folder; it is not taken"
        self.strays = add(Gauge, "inbox_strays", strays)
        oldest = "Age of the folder or job that has waited longest for its turn; 0 when none waits"
        self.oldest = add(Gauge, "oldest_waiting_seconds", oldest)
        self.finished = add(Counter, "jobs_finished_total", "Ended jobs", "pipeline", "state")
        self.claimed_bytes = add(Counter, "claimed_bytes_total", "Bytes of the folders taken over")
        delivered = "Bytes delivered and verified"
        self.delivered_bytes = add(Counter, "delivered_bytes_total", delivered, "worker")
        done = "Duration of steps that were done"
        self.steps = add(Histogram, "step_duration_seconds", done, "worker", buckets=_STEP_S)
        faults = "Tries that did not succeed; kind is item, transient, target or defect"
        self.faults = add(Counter, "step_faults_total", faults, "worker", "kind")
        self.paused = add(Gauge, "target_paused", "1 while a target is paused", "target")
        free = "Free bytes of a target's file system, as a delivery last saw it"
        self.target_free = add(Gauge, "target_free_bytes", free, "target")
        self.free = add(Gauge, "root_free_bytes", "Free bytes of the root's file system")
        scanned = "When the inbox was last looked at, seconds since the epoch"
        self.scanned = add(Gauge, "last_scan_timestamp_seconds", scanned)
        self.mode = add(Gauge, "watcher_mode", "1 for the mode in use", "mode")
        self.unsent = add(Gauge, "notices_unsent", "Notices that wait to be sent")
        sent = "Notices that a receiver has taken; kind is mail, webhook or apprise"
        self.notices_sent = add(Counter, "notices_sent_total", sent, "kind")
        self.notices_failed = add(
            Counter, "notices_failed_total", "Tries of notices that were not taken", "kind"
        )
        given_up = "Notices that are not tried any more; kind is none where their rule is gone"
        self.notices_given_up = add(Counter, "notices_given_up_total", given_up, "kind")
        disabled = "Receivers of notices that are disabled: they get nothing until somebody enables them"
        self.disabled = add(Gauge, "receivers_disabled", disabled)
        fixity = "Jobs that are done, by how their copies stand: good, wrong, unknown, never checked, overdue"
        self.fixity = add(Gauge, "fixity_jobs", fixity, "state")
        self.source_ok = add(Gauge, "source_ok", "0 while a source's last round has failed", "source")
        late = "How late the daemon's loop is for what is due"
        self.lag = add(Histogram, "loop_lag_seconds", late, buckets=_LAG_S)
        for state in JobState:
            self.jobs.labels(state.value)
        for receiver in _RECEIVERS:
            for counter in (self.notices_sent, self.notices_failed, self.notices_given_up):
                counter.labels(receiver)
        for mode in _MODES:
            self.mode.labels(mode)

    def _add(self, kind: type[_Kind], name: str, meaning: str, *labels: str, **more: Any) -> _Kind:
        suffix = "_info" if kind is Info else ""
        shown = f"dittohead_{name}{suffix}" + (f"{{{', '.join(labels)}}}" if labels else "")
        self.described.append((shown, kind.__name__.lower(), meaning))
        return kind(f"dittohead_{name}", meaning, labels, registry=self._registry, **more)

    def expose(self, overview: StoreTotals, live: LiveStatus) -> bytes:
        """Return all of it as text.

        Args:
            overview: what the store knows (see `queries.overview`), with "oldest_waiting_at".
            live: what is true only now (see `live.Live.snapshot`).
        """
        self._build.info({"version": str(live.get("version", ""))})
        for state, count in overview["counts"].items():
            self.jobs.labels(state).set(count)
        self.open_failures.set(overview["failed_count"])
        self.unsent.set(overview["unsent_notices"])
        self.disabled.set(overview.get("disabled_receivers", 0))
        moments = [overview.get("oldest_waiting_at"), live.get("oldest_arrival_at")]
        known = [moment for moment in moments if moment]
        self.oldest.set(max(time.time() - min(known), 0.0) if known else 0.0)
        self.inbox.set(live.get("backlog", 0))
        for kind in HeldKind:
            self.held.labels(kind.value).set(live.get("held_kinds", {}).get(kind.value, 0))
        self.strays.set(live.get("stray_count", 0))
        self.free.set(live.get("free_bytes", 0))
        watcher = live.get("watcher", {})
        self.scanned.set(watcher.get("last_scan_at", 0))
        for mode in _MODES:
            self.mode.labels(mode).set(watcher.get("mode") == mode)
        for target in overview["targets"]:
            self.paused.labels(target["name"]).set(target["paused"])
        fixity: Mapping[str, Any] = live.get("fixity") or {}
        for name in FIXITY:
            self.fixity.labels(name).set(fixity.get(name, 0))
        for name, fields in live.get("sources", {}).items():
            self.source_ok.labels(name).set(not fields["error"])
        return generate_latest(self._registry)

    async def watch_the_loop(self) -> None:
        """Measure how late the loop is, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _LAG_EVERY_S
            await asyncio.sleep(_LAG_EVERY_S)
            self.lag.observe(max(loop.time() - due, 0.0))
