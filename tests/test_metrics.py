"""What monitoring is told: by the real daemon, without a name of a folder, fit for the rules and the dashboard."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.engine.metrics import Metrics
from dittohead.model.errors import ItemError, TargetError, TransientError
from tests.support.daemon import site
from tests.support.harness import Harness

TOP = Path(__file__).parent.parent
NOTHING: dict[str, Any] = {"counts": {}, "failed_count": 0, "targets": [], "unsent_notices": 0}


def values(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.service
def test_the_daemon_is_scraped(tmp_path: Path) -> None:
    """Jobs, steps, bytes, the watcher; and no series for a folder."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    config = f"""
        root: .
        http: {{listen: "127.0.0.1:{port}"}}
        space: {{floor: 0}}
        pipelines:
          good:
            match: "good.*"
            steps: [checksum: {{}}, rsync: {{to: "{tmp_path}/out/{{name}}", mkpath: true}}]
          bad: {{match: ".*", steps: [{{command: {{argv: ["false"]}}}}]}}
        """
    with site(tmp_path / "root", config) as here:
        here.start()
        here.drop("good-folder", {"a": "12345"})
        here.drop("bad-folder", {"a": "1"})
        here.until(lambda: sum(job["state"] in ("done", "failed") for job in here.json("list")) == 2)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=")
            text = response.read().decode()
    assert "good-folder" not in text
    assert "bad-folder" not in text
    found = values(text)
    assert found["dittohead_jobs", (("state", "done"),)] == 1
    assert found["dittohead_open_failures", ()] == 1
    assert found["dittohead_jobs_finished_total", (("pipeline", "good"), ("state", "done"))] == 1
    assert found["dittohead_claimed_bytes_total", ()] == 6
    assert found["dittohead_delivered_bytes_total", (("worker", "rsync"),)] == 5
    assert found["dittohead_step_duration_seconds_count", (("worker", "rsync"),)] == 1
    assert found["dittohead_step_faults_total", (("kind", "item"), ("worker", "command"))] == 1
    assert found["dittohead_watcher_mode", (("mode", "inotify"),)] == 1
    assert found["dittohead_root_free_bytes", ()] > 0


async def test_every_kind_of_fault_is_counted(tmp_path: Path) -> None:
    """Item, transient, target, defect: each try once."""
    harness = Harness(tmp_path / "root")
    errors = [TransientError("busy"), TargetError("down"), ItemError("no")]

    async def fail(ctx: StepContext) -> StepResult:
        if errors:
            raise errors.pop(0)
        return Done()

    async def break_(ctx: StepContext) -> StepResult:
        raise ZeroDivisionError

    harness.worker.plays = {"first": fail, "second": break_}
    harness.arrive("x")
    async with harness.running():
        await harness.until(lambda: bool(harness.targets.paused("first")))
        await harness.targets.resume("first")
        await harness.until_over("x")
        await harness.ask("retry", "x")
        await harness.until(lambda: getattr(harness.job("x").error, "kind", "") == "defect")
    found = values(harness.engine.metrics.expose(NOTHING, {}).decode())
    for kind in ("item", "transient", "target", "defect"):
        assert found["dittohead_step_faults_total", (("kind", kind), ("worker", "script"))] == 1, kind
    harness.store.close()


def test_whoever_waits_longest_counts_wherever_it_waits() -> None:
    """In the inbox, or as a job."""
    metrics, now = Metrics(), time.time()
    for overview, live, age in (
        ({}, {}, 0),
        ({"oldest_waiting_at": now - 50}, {"oldest_arrival_at": now - 9}, 50),
        ({}, {"oldest_arrival_at": now - 9}, 9),
    ):
        found = values(metrics.expose({**NOTHING, **overview}, live).decode())
        assert age <= found["dittohead_oldest_waiting_seconds", ()] < age + 5


async def test_a_loop_that_is_held_is_seen() -> None:
    """By how late it is for what was due."""
    metrics = Metrics()
    task = asyncio.create_task(metrics.watch_the_loop())
    await asyncio.sleep(0)

    def count() -> float:
        return values(metrics.expose(NOTHING, {}).decode())["dittohead_loop_lag_seconds_count", ()]

    async with asyncio.timeout(20):
        while count() == 0:
            await asyncio.sleep(0.01)
    task.cancel()


def known() -> set[str]:
    names = set()
    for shown, kind, _ in Metrics().described:
        name = shown.partition("{")[0]
        names |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"} if kind == "histogram" else {name}
    return names


def used(expression: str) -> set[str]:
    return set(re.findall(r"\bdittohead_\w+", expression))


def test_the_alerting_rules_speak_of_metrics_there_are() -> None:
    """Each with what promtool wants: a name, an expression, a duration; and words for who is woken."""
    (group,) = yaml.safe_load((TOP / "monitoring" / "alerts.yaml").read_text())["groups"]
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"])
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"[A-Za-z]+", rule["alert"])
        assert re.fullmatch(r"\d+[smhd]", rule.get("for", "0s"))
        assert rule["annotations"].keys() == {"summary", "description"}
        assert used(rule["expr"]) <= known(), rule["alert"]
        assert rule["expr"].count("(") == rule["expr"].count(")")
        labels = {
            label
            for shown, _, _ in Metrics().described
            for label in re.findall(r"\w+", shown.partition("{")[2])
        }
        assert set(re.findall(r"\$labels\.(\w+)", json.dumps(rule))) <= labels


def test_the_dashboard_draws_metrics_there_are() -> None:
    """Every panel has something to draw, and no two overlap."""
    board = json.loads((TOP / "monitoring" / "grafana.json").read_text())
    places = set()
    for panel in board["panels"]:
        expressions = [target["expr"] for target in panel["targets"]]
        assert expressions
        for expression in expressions:
            assert used(expression)
            assert used(expression) <= known(), expression
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & places
        assert at["x"] + at["w"] <= 24
        places |= cells
