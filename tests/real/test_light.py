"""Commands that ask the running daemon import nothing that they do not use: people and scripts wait for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Site, site

pytestmark = pytest.mark.service

CONFIG = """
root: .
space: {floor: 0}
pipelines: {all: {match: ".*", steps: [{command: {name: print, argv: [echo, word]}}]}}
"""

#: What only the daemon, and those who do its work, need.
HEAVY = {
    "aiobotocore", "aiohttp", "alembic", "asyncio", "botocore", "jinja2", "numpy", "prometheus_client", "pydantic",
    "pyvips", "regex", "sqlalchemy", "structlog", "watchfiles", "dittohead.config.loader", "dittohead.store",
}  # fmt: skip

#: What is not needed either where nothing is asked.
UNASKED = HEAVY | {"rich", "yaml", "http.client", "dittohead.model.records"}

#: The program, which tells at its end what it has imported.
TELLING = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
from dittohead.cli import main
main(prog_name="dittohead")
"""


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with site(tmp_path_factory.mktemp("light"), CONFIG) as made:
        made.start()
        made.drop("x", {"a": "1"})
        made.drop("empty", {})
        made.until(lambda: (made.root / "done" / "x").exists() and (made.root / "failed" / "empty").exists())
        yield made


def run(where: Path, *arguments: str, **more: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the program; return what it said, and all that it imported."""
    said = subprocess.run(
        [sys.executable, "-c", TELLING, *arguments],
        cwd=where, capture_output=True, text=True, check=False, env={**os.environ, **more},
    )  # fmt: skip
    return said, set(json.loads(said.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "command",
    [
        "status", "status --json", "list", "list --json --state done", "batches", "show x", "show x --json",
        "show --files x", "logs x", "source list", "verify x", "poke x", "thaw x", "cancel x", "freeze x --reason y",
        "dismiss x", "rename x y", "retry --failed --dry-run", "retry empty", "rerun x", "reload",
    ],
)  # fmt: skip
def test_what_the_daemon_is_asked_for_needs_nothing_of_the_daemons(here: Site, command: str) -> None:
    """SQLAlchemy and pydantic alone took half a second of each."""
    said, imported = run(here.root, "--config", str(here.config), *command.split())
    assert said.returncode in (os.EX_OK, os.EX_UNAVAILABLE), said.stderr
    assert imported & HEAVY == set()


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["-h"], ["nonsense"]], ids=" ".join)
def test_what_asks_nobody_needs_nothing_at_all(tmp_path: Path, arguments: list[str]) -> None:
    """The list of commands imports none of them."""
    said, imported = run(tmp_path, *arguments)
    assert said.returncode in (os.EX_OK, os.EX_USAGE), said.stderr
    assert imported & UNASKED == set()
    assert {name for name in imported if name.startswith("dittohead.cli.")} == {"dittohead.cli.base"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("words", "found"), [("st", "status"), ("", "verify"), ("--ver", "--version"), ("list --o", "--open")]
)
def test_completion_imports_the_command_it_completes_and_no_other(
    here: Site, shell: str, words: str, found: str
) -> None:
    """It runs at each press of a key."""
    count = len(words.split())
    asked = {"COMP_WORDS": f"dittohead {words}", "COMP_CWORD": words.split()[-1:][0] if words else ""}
    if shell != "fish":
        asked["COMP_CWORD"] = str(max(count, 1))
    said, imported = run(here.root, _DITTOHEAD_COMPLETE=f"{shell}_complete", **asked)
    assert found in said.stdout.replace(",", " ").split()
    assert imported & HEAVY == set()


def test_importing_the_package_imports_nothing_of_it() -> None:
    """Its names are imported when they are used: `dittohead.__version__` needs none."""
    code = "import dittohead, sys; print([name for name in sys.modules if name.startswith('dittohead.')])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_a_configuration_that_the_daemon_has_not_taken_is_checked(here: Site) -> None:
    """A mistake in it is said; when it is fixed and reloaded, nothing more needs to be checked."""
    good = here.config.read_text()
    try:
        here.config.write_text(good + "nmae: x\n")
        said, imported = run(here.root, "--config", str(here.config), "list")
        assert "warning: " in said.stderr
        assert 'unknown key "nmae"' in said.stderr
        assert "dittohead.config.loader" in imported
        here.config.write_text(good + "# longer\n")
        said, imported = run(here.root, "--config", str(here.config), "list")
        assert "warning: " not in said.stderr
        assert "dittohead.config.loader" in imported
        here.run("reload")
        assert run(here.root, "--config", str(here.config), "list")[1] & HEAVY == set()
    finally:
        here.config.write_text(good)
        here.run("reload")
