"""Options, schedules, messages and tokens: what is understood, and what is said about the rest."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dittohead import Fetch, Look, Source, SourceOptions, Upstream
from dittohead.config.json_schema import json_schema
from dittohead.config.loader import SourceSetting, load
from dittohead.config.registry import Sources, default
from dittohead.contract.source import folder_fault, path_fault
from dittohead.intake import Intake
from dittohead.model.errors import ConfigError
from dittohead.sources.s3 import S3Options
from dittohead.toolkit.s3 import events as s3_events
from dittohead.toolkit.s3.events import UnreadableEvent, read_message, read_token
from tests.support.harness import Harness

GOOD = """\
root: .
pipelines: {all: {match: ".*", steps: [checksum: {}]}}
sources:
  masters:
    s3: {bucket: masters, every: 5m}
"""


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("s3:", "s4:", 'config.yaml:5:5: there is no kind of source "s4". There are grin, s3'),
        ("bucket:", "buckt:", 'config.yaml:5:10: unknown key "buckt". Did you mean "bucket"?'),
        ("masters:", "4x:", 'config.yaml:4:3: "4x" is not a name for a source. Use letters, digits'),
        ("every: 5m", "schedule: 5m", 'config.yaml:5:37: "schedule": "5m" is not a schedule'),
        (
            "every: 5m",
            'schedule: "30 5 * * *", timezone: Nowhere',
            '"timezone": there is no time zone "Nowhere"',
        ),
        ("every: 5m", 'every: 5m, schedule: "30 5 * * *"', "every and schedule exclude each other"),
        ("every: 5m", "timezone: UTC", "timezone goes with schedule"),
        ("every: 5m", 'group: "(x"', '"group": this is not a regular expression'),
        ("every: 5m", 'folder: "{set}"', "there is no placeholder {set}; group has folder, path"),
        ("every: 5m", "tokens: {when_done: move}", "when_done: move and move_to belong together"),
        ("every: 5m", "tokens: {prefix: t/, when_done: move, move_to: t/done/}", "must not lie below prefix"),
        ("every: 5m", "queue: {}", 'the key "url" is missing'),
        ("{bucket: masters, every: 5m}", "{bucket: m}\n    s5: {}", "a source is one key, its kind"),
    ],
)
def test_mistakes_are_named_with_their_line(tmp_path: Path, before: str, after: str, said: str) -> None:
    """As for pipelines."""
    (tmp_path / "config.yaml").write_text(GOOD.replace(before, after, 1))
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "config.yaml")
    assert said in str(caught.value)


def test_the_schema_knows_sources() -> None:
    import jsonschema

    schema = json_schema(default())
    config: dict[str, Any] = {
        "root": ".",
        "pipelines": {"a": {"match": ".*", "steps": [{"checksum": {}}]}},
        "sources": {"m": {"s3": {"bucket": "b", "list": True, "queue": {"url": "https://q/1/q"}}}},
    }
    jsonschema.validate(config, schema)
    config["sources"]["m"]["s3"]["buckt"] = 1
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(config, schema)


@pytest.mark.parametrize(
    ("timezone", "expected"), [("America/New_York", "2026-03-08T09:30"), ("UTC", "2026-03-08T05:30")]
)
def test_a_schedule_is_of_its_time_zone(timezone: str, expected: str) -> None:
    """On the day on which summer time begins there."""
    options = S3Options.model_validate({"bucket": "b", "schedule": "30 5 * * *", "timezone": timezone})
    last = datetime(2026, 3, 8, 0, 0, tzinfo=UTC).timestamp()
    assert datetime.fromtimestamp(options.due(last), UTC).isoformat().startswith(expected)
    assert options.due(None) == 0.0


def test_the_machines_own_time_zone_is_the_default() -> None:
    options = S3Options.model_validate({"bucket": "b", "schedule": "30 5 * * *"})
    assert datetime.fromtimestamp(options.due(0.0)).astimezone().strftime("%H:%M") == "05:30"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "5",
        "{}",
        '{"Records": []}',
        '{"Records": {}}',
        '{"Records": [5]}',
        '{"Records": [{"eventName": "ObjectCreated:Put"}]}',
        '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": ""}}}]}',
        '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "%ff"}}}]}',
        '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "\\ud800"}}}]}',
        '{"Records": [{"eventName": "ObjectCreated:Put", "s3": {"bucket": {"name": "b"}, "object": {"key": "%00"}}}]}',
        '{"Type": "Notification", "Message": "no JSON"}',
        '{"Type": "Notification", "Message": 5}',
        '{"detail-type": "Object Created", "source": "other"}',
        '{"detail-type": "Object Created", "source": "aws.s3", "detail": 5}',
    ],
)
def test_a_message_that_is_not_understood_is_unreadable(text: str) -> None:
    """Never an exception of another kind, and never taken for nothing."""
    with pytest.raises(UnreadableEvent):
        read_message(text)


def test_removals_ask_for_nothing() -> None:
    record = {"eventName": "ObjectRemoved:Delete", "s3": {"bucket": {"name": "b"}, "object": {"key": "x"}}}
    assert read_message(json.dumps({"Records": [record]})) == []
    created = record | {"eventName": "s3:ObjectCreated:CompleteMultipartUpload"}
    assert (
        read_message(json.dumps({"Records": [record, created, created]}))
        == [s3_events.Created(bucket="b", key="x")] * 2
    )


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[]", b'{"path": "a/"}', b'{"key": ""}', b'{"key": 5}', b'{"key": "\\ud800"}']
)
def test_a_token_that_is_not_understood_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableEvent):
        read_token(data)


@pytest.mark.parametrize("name", ["", ".x", "a/b", "a\nb", "x" * 255, "\ud800" * 100])
def test_names_the_inbox_would_not_take(name: str) -> None:
    assert folder_fault(name)
    assert not folder_fault("x" * 254)


@pytest.mark.parametrize(
    "path", ["", "/a", "a/", "a//b", "a/../b", "./a", "a\0b", "x" * 256, "a/" * 300 + "b"]
)
def test_paths_that_would_lead_elsewhere(path: str) -> None:
    assert path_fault(path)
    assert not path_fault("a/b c/.d/..e")


@given(st.text(max_size=300) | st.lists(st.sampled_from(["..", ".", "", "a", "b\n", "~"])).map("/".join))
def test_whatever_the_key_no_path_leads_out_of_its_folder(path: str) -> None:
    if not path_fault(path):
        parts = os.path.normpath("/root/inbox/.set/" + path).split("/")
        assert parts == ["", "root", "inbox", ".set", *path.split("/")]


class Broken(Upstream):
    """Raises what nobody expects."""

    async def look(self, ctx: Look) -> None:
        raise RuntimeError("a defect")

    async def fetch(self, ctx: Fetch) -> None:
        raise RuntimeError("another")


class BrokenSource(Source[SourceOptions]):
    name = "broken"
    Options = SourceOptions

    @asynccontextmanager
    async def open(self, options: SourceOptions, secret: Callable[[str], str]) -> AsyncIterator[Upstream]:
        yield Broken()


async def test_a_defect_of_a_source_ends_nothing_and_is_said(tmp_path: Path) -> None:
    """It is tried again, as a fault of the remote system is."""
    harness = Harness(tmp_path / "root")
    known = Sources([])
    known.add(BrokenSource())
    intake = Intake(harness.store, harness.stations, harness.claimer, known, {}.__getitem__)
    intake.configure([SourceSetting(name="b", kind="broken", options=SourceOptions())])
    task = asyncio.create_task(intake.run())
    async with harness.running():
        await harness.until(lambda: intake.shown()["b"]["state"] == "failing")
        assert intake.shown()["b"]["error"] == "RuntimeError: a defect"
        harness.arrive("x")
        harness.offer()
        await harness.until_over("x")
    intake.configure([])  # taken out by a reload
    await harness.until(lambda: not [t for t in asyncio.all_tasks() if t.get_name().startswith("source:b")])
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    harness.store.close()


TOP = Path(__file__).parents[2]


def test_the_sample_in_config_yaml_loads(tmp_path: Path) -> None:
    """With its comment signs taken away."""
    text = (TOP / "config.yaml").read_text()
    sample = re.search(r"^# sources:\n(#.*\n)+", text, re.MULTILINE)
    assert sample is not None
    (tmp_path / "config.yaml").write_text(
        "root: .\npipelines: {all: {match: '.*', steps: [checksum: {}]}}\n"
        + re.sub("^# ", "", sample[0], flags=re.MULTILINE)
    )
    (setting,) = load(tmp_path / "config.yaml").sources
    assert (setting.name, setting.kind, setting.options.timezone) == ("masters", "s3", "Europe/Berlin")
