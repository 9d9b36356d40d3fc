"""Orders, names and lists, without a server."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from dittohead.workers.archivesspace import intent_log, records
from dittohead.workers.archivesspace.description import plain
from dittohead.workers.archivesspace.diff import positions, with_access, with_masters
from dittohead.workers.archivesspace.intent_log import RecordIntentLog


@pytest.mark.parametrize(
    ("there", "wanted", "then"),
    [
        ("", "abc", "abc"),
        ("abc", "abc", "abc"),
        ("b", "abc", "abc"),
        ("ac", "abcd", "abcd"),
        ("xby", "abc", "xabcy"),
        ("xy", "abc", "xyabc"),
        ("ca", "abc", "cab"),
        ("aXc", "abbdc".replace("bb", "b"), "abdXc"),
        ("dXg", "abcdefghi", "abcdefXghi"),
    ],
)
def test_where_missing_components_go(there: str, wanted: str, then: str) -> None:
    """As the server would place them, one after the other."""
    order = list(there)
    for id_, position in positions(list(there), list(wanted), set(there)).items():
        order.append(id_)
        if position is not None:
            order.remove(id_)
            order.insert(min(position, len(order)), id_)
    assert "".join(order) == then


def test_the_pages_end_up_in_order_whatever_is_there() -> None:
    """Any part of them, with others' anywhere between; and what others have put in an order stays in it."""
    chance = random.Random(11)
    for shuffled in (False, True) * 300:
        wanted = [f"p{n}" for n in range(chance.randint(1, 12))]
        there = [id_ for id_ in wanted if chance.random() < 0.5]
        for other in ["x", "y"][: chance.randint(0, 2)]:
            there.insert(chance.randint(0, len(there)), other)
        if shuffled:
            chance.shuffle(there)
        order = list(there)
        for id_, position in positions(there, wanted, set(there)).items():
            order.insert(len(order) if position is None else position, id_)
        assert sorted(order) == sorted({*wanted, *there})
        assert [id_ for id_ in order if id_ in there] == there
        assert shuffled or [id_ for id_ in order if id_ in wanted] == wanted


def version(uri: str, **more: Any) -> dict[str, Any]:
    return {"file_uri": uri, "publish": True, "is_representative": False, **more}


def test_access_versions_keep_their_place_and_others_theirs() -> None:
    """Once merged, they merge to the same."""
    new = [version("t", is_representative=True), version("p"), version("m")]
    for old, ours, then in (
        ([], set(), "tpm"),
        ([version("x")], set(), "tpmx"),
        ([version("x"), version("q"), version("y")], {"q"}, "xtpmy"),
        ([version("p"), version("x"), version("p")], set(), "tpmxp"),
    ):
        merged = with_access(old, new, ours)
        assert merged is not None
        assert "".join(one["file_uri"] for one in merged) == then
        assert with_access(merged, new, ours) is None
        assert sum(one["is_representative"] for one in merged) == 1
    theirs = [version("x", is_representative=True)]
    merged = with_access(theirs, new, ())
    assert merged is not None
    assert [one["is_representative"] for one in merged] == [False, False, False, True]
    assert with_access(merged, new, ()) is None


def test_masters_are_brought_up_in_place() -> None:
    """What is not known in a dry run is not taken for a difference."""
    old = [version("a"), version("s3://1", publish=False, checksum="1", file_size_bytes=5)]
    same = {"file_uri": "s3://1", "publish": False}
    assert with_masters(old, [same]) is None
    changed = with_masters(old, [same | {"checksum": "2"}])
    assert changed is not None
    assert [one.get("checksum") for one in changed] == [None, "2"]
    assert changed[1]["file_size_bytes"] == 5


def test_what_counts_in_a_record() -> None:
    """Not what the server makes of it, nor what is empty; but everything that people put in."""
    sent = records.component("c", "l", [version("a")])
    held = sent | {"lock_version": 7, "uri": "/x", "notes": [], "position": 3, "suppressed": False}
    held["file_versions"] = [version("a", identifier="9", caption=None)]
    assert records.content(held) == records.content(sent)
    assert records.content(held | {"notes": [{"content": ["x"]}]}) != records.content(sent)
    assert records.content(held | {"publish": True}) != records.content(sent)


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("H<sub>2</sub>O", "H2O"),
        ("<p>One.</p><p>Two &amp; <title render='italic'>three</title>.</p>", "One. Two & three."),
        ("a < b and c > d", "a < b and c > d"),
        ("x<lb/>y\n z", "x y z"),
        (None, ""),
    ],
)
def test_markup_is_taken_out(text: str | None, then: str) -> None:
    assert plain(text) == then


def test_the_ledger_survives_a_half_line_and_leaves_out_what_was_refused(tmp_path: Path) -> None:
    path = tmp_path / "state" / "ledger" / "1.s.jsonl"
    head = {
        "worker": "archivesspace",
        "job": "1",
        "step": "s",
        "url": "u",
        "repository": 2,
        "objects": ["X", "Y"],
    }
    notes = RecordIntentLog(path, head)
    notes.note(do="change", uri="/a", n=1)
    notes.note(do="change", uri="/b", n=2)
    notes.note(do="void", uri="/a")
    notes.close()
    with open(path, "ab") as file:
        file.write(b'{"do": "cha')
    notes = RecordIntentLog(path, head)
    notes.note(do="change", uri="/a", n=3, of="X", access=["p"])
    notes.close()
    assert [line["n"] for line in intent_log.read(path)] == [2, 3]
    (path.parent / "2.other.jsonl").write_text(
        json.dumps({"worker": "islandora"}) + "\n" + json.dumps({"do": "x"}) + "\n"
    )
    (path.parent / "3.rot.jsonl").write_bytes(b"\xff\n")
    later = head | {"job": "9", "step": "t", "objects": ["Y", "Z"]}
    assert [line["n"] for line in intent_log.of_other_jobs(path, later)] == [2, 3]
    assert list(intent_log.of_other_jobs(path, later | {"repository": 3})) == []
    assert list(intent_log.of_other_jobs(path, later | {"objects": ["Z"]})) == []
    assert intent_log.read(tmp_path / "none") == []
