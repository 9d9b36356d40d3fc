"""The page on keeping, typed: copies are checked by the schedule, folders go by the rule, and by two persons."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks
from tests.docs.shell import Shell
from tests.support.daemon import Site, site
from tests.support.ports import free_port

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

PEOPLE = {"alice": "alice-0123456789-abcdefghij", "bob": "bob-0123456789-abcdefghijkl"}


def config(base: Path, *, port: int = 0, soon: bool) -> str:
    """Return what the page says to write, with shorter times, and where people are known with them."""
    schedule, pipeline = (block.text for block in blocks(DOCS / "keeping.md") if block.language == "yaml")
    text = f"root: .\n{schedule}{pipeline}".replace("/archive/", f"{base}/archive/")
    if soon:
        text = text.replace("90d", "1s").replace("30d", "1s")
    people = f'http: {{listen: "127.0.0.1:{port}", tokens: people}}\n' if port else ""
    return text + people


def typed(command: str) -> str:
    """Return a command of the page."""
    found = [block.text for block in blocks(DOCS / "keeping.md") if block.language == "sh"]
    return next(text for text in found if text.startswith(f"dittohead {command}"))


def test_a_folder_goes_by_the_rule_and_its_copies_are_checked(tmp_path: Path) -> None:
    with site(tmp_path / "root", config(tmp_path, soon=True)) as here:
        here.start()
        here.drop("lab1-run42", {"a": "one"})
        here.until(lambda: (tmp_path / "archive" / "lab1-run42" / "a").exists())
        here.until(lambda: here.json("show", "lab1-run42")["custody"]["removed_at"])
        assert not (here.root / "done" / "lab1-run42").exists()
        assert (tmp_path / "archive" / "lab1-run42" / "a").read_text() == "one"
        here.until(lambda: here.json("show", "lab1-run42")["custody"]["fixity"] == "good")
        assert "good" not in here.run("verify", "lab1-run42").stderr
        (tmp_path / "archive" / "lab1-run42" / "a").write_text("two")
        here.until(lambda: "not as delivered lab1-run42" in here.run("status").stdout)
        assert here.json_failing("verify", "lab1-run42")["problems"]
        assert here.stop() == 0


def test_a_folder_goes_by_hand_when_another_person_approves(tmp_path: Path) -> None:
    port = free_port()
    root = tmp_path / "root"
    (root / "credentials").mkdir(parents=True)
    lines = [f"operator {name} {token}" for name, token in PEOPLE.items()]
    (root / "credentials" / "people").write_text("\n".join(lines) + "\n")
    with site(root, config(tmp_path, port=port, soon=False)) as here:
        shell = Shell(tmp_path / "shell", here.config)
        here.start()
        here.drop("lab1-run42", {"a": "one"})
        folder = here.root / "done" / "lab1-run42"
        here.until(folder.exists)
        here.until(lambda: here.json("show", "lab1-run42")["state"] == "done")
        assert "another person has to approve it" in shell.run(typed("delete")).stdout
        assert "asked to delete it: it was delivered twice" in here.run("status").stdout
        said = shell.run(typed("approve"), check=False)
        assert said.returncode != 0
        assert "another person has to approve it" in said.stdout
        assert folder.is_dir()
        assert "is removed" in _asked(here, port, "bob", "approve")
        here.until(lambda: not folder.exists())
        here.until(lambda: here.json("show", "lab1-run42")["custody"]["removed_at"])
        why = here.json("show", "lab1-run42")["custody"]["removed_why"]
        assert why.endswith("approved by bob (token): it was delivered twice")
        assert here.stop() == 0


def _asked(here: Site, port: int, who: str, action: str) -> str:
    headers = {"Authorization": f"Bearer {PEOPLE[who]}", "Content-Type": "application/json"}
    url = f"http://127.0.0.1:{port}/api/v1/jobs/lab1-run42/{action}"
    with urllib.request.urlopen(urllib.request.Request(url, b"{}", headers), timeout=60) as answer:
        return str(json.loads(answer.read())["message"])
