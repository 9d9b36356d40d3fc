"""Templates: a site's own words, refused where they are wrong, passed over where they fail, forging nothing."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest

from dittohead.config import notice_templates
from dittohead.config.loader import load
from dittohead.config.notice_templates import BadTemplate, Wording
from dittohead.config.notice_templates.samples import SAMPLES
from dittohead.model.errors import ConfigError
from dittohead.model.records import Batch
from dittohead.model.states import JobState
from dittohead.store.batches import BatchCounts
from dittohead.store.outbox import Gathered, Notice
from dittohead.system.users import owner
from tests.support.notices import broken, composer, job, rule

CONFIG = "root: .\ntemplates: words\npipelines: {all: {match: '.*', steps: [{checksum: {}}]}}\n"


def site(tmp_path: Path, **templates: str) -> Path:
    (tmp_path / "words").mkdir()
    for event, text in templates.items():
        (tmp_path / "words" / f"{event}.txt").write_text(text)
    (tmp_path / "config.yaml").write_text(CONFIG)
    return tmp_path / "config.yaml"


def test_a_sites_words_are_used_for_the_events_it_has_them_for(tmp_path: Path) -> None:
    """The others keep ours."""
    config = load(
        site(tmp_path, failed="Schade: {{ job.name }}\n{{ error.what }} ({{ job.bytes | size }})\n")
    )
    makes = composer([rule(url="json://h", on=["failed", "done"])], wording=config.wording)
    (notice,) = makes("failed", job=broken(), steps=[], receipt="r")
    assert (notice.subject, notice.body) == ("Schade: lab1-x", "the image is truncated (54.1 MiB)")
    (notice,) = makes("done", job=job(), steps=[], receipt="r")
    assert notice.subject == "Done: lab1-x"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("x\n{% if job %}\nno end\n", 3, "this is not a template: Unexpected end of template"),
        ("x\n\n{{ nmae }}\n", 3, "there is no variable nmae in a notice of failed"),
        ("x\n{{ job.nmae }}\n", 2, "there is no variable job.nmae in a notice of failed"),
        ("x\n{% for s in steps %}\n{{ s.nmae }}\n{% endfor %}", 3, "it cannot be filled in"),
        ("x\n{{ job.name | shout }}\n", 2, "No filter named 'shout'"),
        ("{% if false %}{{ error.why }}{% endif %}x\n", 1, "there is no variable error.why"),
        ("\n\n", 1, "its first line is the subject"),
        ("x\n{% include '/etc/passwd' %}\n", 2, "it cannot be filled in"),
        ("x\n{{ job.__class__.__mro__ }}\n", 2, "it cannot be filled in"),
        ("x\n{{ links[0].uri }}\n", 2, "it cannot be filled in"),
    ],
)
def test_check_names_file_and_line_of_what_is_wrong(tmp_path: Path, text: str, line: int, said: str) -> None:
    """At the start, not when somebody is to be told that a folder has failed."""
    path = site(tmp_path, failed=text)
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert f"{tmp_path}/words/failed.txt:{line}: " in str(raised.value)
    assert said in str(raised.value)


def test_a_template_for_no_event_and_a_directory_that_is_not_there_are_named(tmp_path: Path) -> None:
    """With what was meant."""
    path = site(tmp_path, fialed="x")
    with pytest.raises(ConfigError, match=r'fialed.txt: "fialed" is not an event: did you mean "failed.txt"'):
        load(path)
    path.write_text(CONFIG.replace("words", "nowhere"))
    with pytest.raises(ConfigError, match="nowhere: there is no such directory of templates"):
        load(path)


def test_one_that_fails_at_last_is_passed_over_for_ours_and_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """People are told all the same."""
    text = "x\n{{ 1 // (job.files - 7) }}\n"
    words = Wording({"failed": (Path("failed.txt"), text)})
    notice_templates.check("failed", text)
    facts = composer([]).facts("failed", job=job(state=JobState.FAILED, files=7), steps=[], receipt="r")
    assert words.words("failed", facts)[0] == "Failed: lab1-x"
    assert "notify.template_failed" in capsys.readouterr().out


def test_no_template_forges_a_header_or_writes_to_a_terminal(tmp_path: Path) -> None:
    """Whatever it makes of a name."""
    text = "A\rB\x1b[2J{{ job.name | replace('_', '\r') }}\nbody \x1b[31m{{ job.name }}\n"
    words = Wording({"failed": (Path("failed.txt"), text)})
    facts = composer([]).facts("failed", job=broken(b"a_b\nBcc: evil@example.org"), steps=[], receipt="r")
    subject, body = words.words("failed", facts)
    assert subject.isprintable()
    assert len(subject.splitlines()) == 1
    # A carriage return ends a line for Jinja: what follows it is body, where no header can be.
    assert subject == "A"
    assert all(line.isprintable() for line in body.split("\n"))
    assert body.endswith("\nbody \\x1b[31ma_b\\nBcc: evil@example.org")


@pytest.mark.parametrize("event", notice_templates.EVENTS)
def test_our_own_words_are_made_by_the_same_mechanism(event: str) -> None:
    """Each is a file that passes the same check."""
    from importlib.resources import files

    notice_templates.check(
        event, files("dittohead.config.notice_templates").joinpath(f"{event}.txt").read_text(), event
    )


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return "number" if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value)


def test_facts_have_the_shape_that_templates_are_checked_against() -> None:
    """Else a template that passes the check would fail when it is needed."""
    from tests.notices.test_words import STEPS

    now, me = datetime.datetime.now(datetime.UTC), owner(1000)
    end = {"job": broken(), "steps": STEPS, "receipt": Path("r"), "links": [("record", "https://x")]}
    member = Notice(
        id="N",
        rule="r",
        event="failed",
        job="J",
        subject="s",
        body="b",
        created_at=now,
        attempts=0,
        data=composer([]).facts("failed", **end),
    )
    gathered = Gathered(rule="r", recipient="", counts=[("scans", "done", 2)], notices=[member], since=now)
    given: dict[str, dict[str, Any]] = {
        "done": end,
        "failed": end,
        "cancelled": end,
        "recovered": {**end, "failure": {"job": "J", "at": now, "reason": "r"}},
        "stuck": {"jobs": [(job(state=JobState.PAUSED), 5.0)], "hours": 24.0, "owners": {1000: me}},
        "batch": {
            "outcome": "failed",
            "batch": Batch(
                id="B",
                name="c",
                folder=b"c",
                dev=1,
                ino=2,
                uid=1000,
                pipeline="p",
                claimed_at=now,
                whole=True,
                told="",
            ),
            "counts": BatchCounts(done=1, failed=2),
            "failures": [job(state=JobState.FAILED)],
            "beside": ["list.csv"],
        },
        "late_change": {"job": job(), "count": 21, "files": ["b: added", "a: changed"]},
        "damaged": {"job": job(), "count": 21, "files": ["s3://b/a: is missing", "s3://b/b: differs"]},
        "frozen": {"job": job(), "reason": "is this right?"},
        "stale": {"name": ".x", "age_seconds": 7200.0, "size": 5, "uid": 1000},
        "held": {
            "uid": 1000,
            "arrivals": [
                {"name": "x", "kind": "stray", "seconds": 5, "reason": "r", "cure": "c", "command": "ls"}
            ],
        },
        "paused": {"target": "h", "reason": "down"},
        "resumed": {"target": "h"},
        "nearly_full": {"target": "h", "percent": 91.5, "free": 5},
        "full": {"target": "h", "reason": "no room", "is_root": False},
        "digest": {"gathered": gathered},
        "disabled": {"rule": rule(url="json://h"), "shown": "s", "reason": "r", "waiting": 2},
        "test": {"shown": "s"},
    }
    assert given.keys() == SAMPLES.keys()
    for event, facts in given.items():
        found = composer([]).facts(event, whose=me, **facts)
        assert shape(found) == shape(SAMPLES[event]), event


def test_a_bad_template_is_an_error_with_a_line() -> None:
    """For those who check one by themselves."""
    with pytest.raises(BadTemplate) as raised:
        notice_templates.check("done", "x\n{{ y }}")
    assert raised.value.line == 2


def test_notices_of_jobs_lead_to_their_pages_where_the_page_is_known() -> None:
    """In every notice of a job, and of each that is stuck; else nothing is said about it."""
    there = "https://ingest.example.org"
    for url, said in ((there, True), ("", False)):
        made = composer([], public_url=url)
        for event in ("done", "failed", "cancelled", "recovered", "stuck"):
            one = job(state=JobState.FROZEN) if event == "stuck" else broken()
            given: dict[str, Any] = {"job": one, "steps": [], "receipt": "r"}
            if event == "recovered":
                given["failure"] = {"job": "J", "at": one.claimed_at, "reason": "x"}
            if event == "stuck":
                given = {"jobs": [(one, 0.0)], "hours": 24.0, "owners": {}}
            facts = made.facts(event, **given)
            _, body = made.wording.words(event, facts)
            assert (f"Page: {there}/jobs/{one.id}" in body) is said, body
            assert ("Page:" in body) is said
