"""The pages on workers and sources of one's own: their examples are installed by pip as they stand, and typed."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest

import dittohead
from tests.docs.console import Terminal, Typed, session
from tests.docs.pages import DOCS, blocks
from tests.docs.shell import Shell
from tests.support.daemon import site
from tests.support.settled import at_once
from tests.support.trees import tree

pytestmark = [pytest.mark.rest, pytest.mark.service, pytest.mark.timeout(240)]

WORKER, SOURCE = DOCS / "write-a-worker.md", DOCS / "write-a-source.md"


@dataclass
class Bench:
    """A reader's directory, with the files of a page in it and the programs that it types."""

    shell: Shell
    here: Path
    root: Path
    config: Path
    places: dict[str, str]  #: directories of the page, and what they are here

    def said(self, text: str) -> str:
        """Return what a page says with the places that there are here."""
        for there, place in self.places.items():
            text = text.replace(there, place)
        return text

    def type(self, page: Path) -> dict[str, int]:
        """Type the page's session; return the exit statuses."""
        terminal = Terminal(self.shell.env, self.here)
        try:
            return {
                typed.command: terminal.follow(
                    Typed(typed.block, self.said(typed.command), [self.said(line) for line in typed.shown])
                )
                for typed in session(page)
            }
        finally:
            terminal.close()

    def install(self, name: str) -> None:
        """Install the example as the page does."""
        self.shell.run(
            f"cd {shlex.quote(str(self.here))} && .venv/bin/python -m pip install --quiet ./{name}"
        )


def bench(page: Path, base: Path, **places: str) -> Bench:
    """Lay out what a page shows; `places` are directories of the page by what they are called here."""
    here, root, target = base / "here", base / "root", base / "site"
    by_kind = {block.language: block.text for block in blocks(page)}
    project = tomllib.loads(by_kind["toml"])
    (module,) = project["tool"]["setuptools"]["py-modules"]
    package = here / project["project"]["name"].removeprefix("dittohead-")
    tree(package, {"pyproject.toml": by_kind["toml"], f"{module}.py": by_kind["python"]})
    shell = Shell(base / "shell", base / "config.yaml")
    made = Bench(shell, here, root, base / "config.yaml", {"/srv/dittohead": str(root), **places})
    root.mkdir()
    made.config.write_text(at_once(made.said(by_kind["yaml"])) + "space: {floor: 0}\n")
    for station in ("inbox", "processing", "done", "failed"):
        (root / station).mkdir()
    shell.env["PYTHONPATH"] = str(target)
    # The reader's own Python, and no network: what a package needs to be built is installed.
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index", "--no-deps"]
    shell.program(
        "python",
        f'[ "$1 $2 $3" = "-m pip install" ] || exit 64\nshift 3\n'
        f'exec {shlex.join(pip)} --no-build-isolation --no-warn-script-location --target {shlex.quote(str(target))} "$@"',
    )
    (here / ".venv").mkdir()
    (here / ".venv" / "bin").symlink_to(shell.bin)
    return made


def test_the_worker_does_what_the_page_shows(tmp_path: Path) -> None:
    """From an empty directory to the list at its target."""
    lists = tmp_path / "lists"
    made = bench(WORKER, tmp_path, **{"/study/lists": str(lists)})
    tree(made.here / "lab1-scans", {"p1.tif": "one", "p2.tif": "two"})
    assert set(made.type(WORKER).values()) == {0}
    assert [path.name for path in (lists / "lab1-scans").iterdir()] == ["inventory.csv"]


def test_the_workers_error_is_the_pages(tmp_path: Path) -> None:
    """A folder of one file fails in the words of the example, with what helps."""
    made = bench(WORKER, tmp_path, **{"/study/lists": str(tmp_path / "lists")})
    made.install("inventory")
    tree(made.root / "inbox" / "lab1-short", {"p1.tif": "one"})
    said = made.shell.run("dittohead run --until-empty", check=False).stdout
    reason = (made.root / "failed" / "lab1-short.reason.txt").read_text()
    assert "1 files are too few; 2 are required" in reason, said
    assert "move the folder to inbox/ again" in " ".join(reason.split())


def test_a_wrong_option_is_told_with_its_place(tmp_path: Path) -> None:
    """What a subclass of Options says reaches the reader of config.yaml."""
    made = bench(WORKER, tmp_path, **{"least: 2": "last: 2"})
    made.install("inventory")
    said = made.shell.run("dittohead check", check=False)
    assert said.returncode == 78
    assert re.search(r"config\.yaml:6:\d+.*last", said.stdout), said.stdout


def test_the_source_does_what_the_page_shows(tmp_path: Path) -> None:
    """Two files of a shelf become two folders, once; one that is changed comes again alone."""
    shelf = tmp_path / "shelf"
    tree(shelf, {"atlas.pdf": "maps", "herbal.pdf": "plants", "below": {"x.pdf": "not looked at"}})
    made = bench(SOURCE, tmp_path, **{"/mnt/shelf": str(shelf)})
    assert set(made.type(SOURCE).values()) == {0}
    assert sorted(path.name for path in (made.root / "done").iterdir()) == ["atlas", "herbal"]
    (shelf / "atlas.pdf").write_text("newer maps")
    made.shell.run("dittohead run --until-empty")
    jobs = json.loads(made.shell.run("dittohead list --json").stdout)
    assert sorted(job["name"] for job in jobs) == ["atlas", "atlas", "herbal"]
    assert {path.read_text() for path in (made.root / "done").rglob("atlas.pdf")} == {"maps", "newer maps"}


def test_a_shelf_that_is_away_fails_nothing(tmp_path: Path) -> None:
    """The example's error is of a place outside: it is said, and looked at again."""
    made = bench(SOURCE, tmp_path, **{"/mnt/shelf": str(tmp_path / "away")})
    made.install("shelf")
    with site(made.root, made.config.read_text()) as here:
        here.env |= {"PYTHONPATH": made.shell.env["PYTHONPATH"]}
        here.start()
        said = here.until(lambda: "not there" in (text := here.run("source", "list").stdout) and text)
    assert "the shelf is not there" in said
    assert "Is it mounted?" in said


@pytest.mark.parametrize("page", [WORKER, SOURCE], ids=lambda page: page.stem)
def test_an_example_is_short(page: Path) -> None:
    """Under 60 lines in all: pyproject.toml and the module."""
    shown = {block.language: block.text for block in blocks(page) if block.language in ("toml", "python")}
    assert sum(len([line for line in text.splitlines() if line.strip()]) for text in shown.values()) < 60


@pytest.mark.parametrize(
    ("page", "kinds"),
    [
        (WORKER, ("Worker", "StepContext", "Done", "Wait", "TransientError", "TargetError", "ItemError")),
        (SOURCE, ("Source", "Upstream", "Look", "Fetch", "Sighting")),
    ],
    ids=["worker", "source"],
)
def test_every_member_that_one_may_need_is_spoken_of(page: Path, kinds: tuple[str, ...]) -> None:
    """Methods of the contract, all of them; the reference has each argument."""
    text = page.read_text()
    for kind in kinds:
        made = getattr(dittohead, kind)
        names = [name for name, value in vars(made).items() if callable(value) and name[0] != "_"]
        for name in names:
            assert re.search(rf"\b{name}\b", text), f"{kind}.{name} is not spoken of on {page.name}"


def test_what_the_pages_speak_of_is_there() -> None:
    """`ctx.NAME` and what is imported: members of the contract."""
    members = {
        name
        for kind in (dittohead.StepContext, dittohead.Look, dittohead.Fetch)
        for name in (*vars(kind), *kind.__annotations__)
    } | {name for kind in (dittohead.UndoContext, dittohead.VerifyContext) for name in kind.__annotations__}
    for page in (WORKER, SOURCE):
        said = set(re.findall(r"\bctx\.(\w+)", page.read_text()))
        assert said - members == set(), page.name
