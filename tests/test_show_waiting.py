"""What waits in the inbox is shown whole by its name, and by what matters first in a list."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from dittohead.cli import main
from dittohead.cli.lines import ListLine, show
from dittohead.engine import waiting_room
from dittohead.engine.live_status import Live
from dittohead.engine.settling import SettlingWait, Why
from dittohead.model.held import Held, HeldKind
from dittohead.model.records import Arrival
from tests.support.harness import Harness

OPEN = Held(
    reason="a program on this machine has it open for writing: a/b.txt",
    kind=HeldKind.WRITTEN,
    cure="Let it finish, or end it",
    command="sudo fuser -v /srv/inbox/x/a/b.txt",
    since=time.time() - 7200,
)

Ask = Callable[..., Result]


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    made = Harness(tmp_path)
    (tmp_path / "config.yaml").write_text("root: .\npipelines: {a: {match: '.*', steps: [{checksum: {}}]}}\n")
    return made


def ask(harness: Harness, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--config", str(harness.root / "config.yaml"), *arguments])


def runs(harness: Harness, monkeypatch: pytest.MonkeyPatch, held: dict[str, Held], **more: Any) -> None:
    """Have a daemon run, by what it leaves for readers."""
    monkeypatch.setattr("dittohead.system.lock.is_held", lambda state: True)
    live = Live(harness.stations.state / "live.json")
    live.tell({name.encode(): why for name, why in held.items()})
    live.facts = more
    live.write()


def test_a_folder_that_waits_is_shown_with_its_whole_reason(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Since when, what to do, and the command, uncut."""
    harness.arrive("x")
    runs(harness, monkeypatch, {"x": OPEN})
    said = ask(harness, "show", "x")
    assert said.exit_code == 0, said.output
    for part in ("waits in the inbox", OPEN.reason, OPEN.cure, f"\n  {OPEN.command}\n", "2 h"):
        assert part in said.stdout
    fields = json.loads(ask(harness, "show", "x", "--json").stdout)
    assert (fields["name"], fields["station"], fields["command"]) == ("x", "inbox", OPEN.command)
    listed = ask(harness, "status").stdout
    assert "dittohead show x" in listed


def test_what_needs_attention_is_shown_by_its_name_too(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a file outside of any folder, which is never held."""
    stray = {
        "name": "a b.tif",
        "reason": "this is a file",
        "cure": "Move it",
        "command": "sudo mv",
        "since": 1,
    }
    runs(harness, monkeypatch, {}, overdue=[{**stray, "kind": "stray", "owner": "ann"}])
    said = ask(harness, "show", "a b.tif")
    assert said.exit_code == 0, said.output
    assert "this is a file" in said.stdout
    assert "sudo mv" in said.stdout


def test_a_folder_of_which_nobody_says_why_is_shown_all_the_same(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its turn has not come; or nobody runs who would take it."""
    harness.arrive("x")
    said = ask(harness, "show", "x")
    assert said.exit_code == 0, said.output
    assert "no daemon runs" in said.stdout
    assert re.search(r"dittohead --config \S+ run\n", said.stdout)
    runs(harness, monkeypatch, {})
    assert "its turn has not come" in ask(harness, "show", "x").stdout
    assert ask(harness, "show", "y").exit_code == 66
    assert "no job" in ask(harness, "show", "y").output


async def test_a_second_folder_of_a_name_is_shown_with_the_job_of_the_first(
    harness: Harness, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.arrive("x")
    async with harness.running():
        await harness.until_over("x")
    harness.arrive("x")
    runs(harness, monkeypatch, {"x": OPEN})
    said = ask(harness, "show", "x").stdout
    assert "waits in the inbox" in said
    assert OPEN.command in said
    assert "done" in said
    assert json.loads(ask(harness, "show", "x", "--json").stdout)["state"] == "done"


@pytest.mark.parametrize("why", Why)
def test_at_80_columns_the_moment_is_seen(why: Why) -> None:
    """However long the folder's name is."""
    now = time.time()
    held = waiting_room._waits(SettlingWait(seconds=90, need_s=90, in_place=True, grew=True, why=why), now)
    held = replace(held, arrival=Arrival(folder=b"x", dev=1, ino=1, uid=0, seen_at=now))
    to = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    show([ListLine(state="held", name="a-long-name-" * 9, clause=held.text)], to, indent=2)
    assert isinstance(to.file, io.StringIO)
    assert f"{held.due.removesuffix(' for 1 min 30 s')}" in to.file.getvalue()


@pytest.mark.parametrize(
    "command",
    [
        "retry",
        "rerun",
        "cancel",
        "poke",
        "thaw",
        "freeze --reason x",
        "dismiss --reason x",
        "retry --batch",
        "show",
        "verify",
        "logs",
    ],
)
def test_each_command_on_what_does_not_exist_ends_alike(harness: Harness, command: str) -> None:
    """As there is no such job, not as what cannot be done now."""
    said = ask(harness, *command.split(), "nothere")
    assert (said.exit_code, 'there is no job "nothere"' in said.output.replace("batch", "job")) == (66, True)
