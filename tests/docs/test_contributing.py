"""CONTRIBUTING.md: what it says is typed, laid out and compared as a newcomer would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dittohead.store import schema
from tests.docs.console import session
from tests.docs.pages import TOP, blocks
from tests.docs.shell import Shell
from tests.docs.test_forge import recipe
from tests.docs.test_tutorial import Reader
from tests.support.length import outer_environ
from tests.support.wheel import copy

PAGE = TOP / "CONTRIBUTING.md"
TEXT = PAGE.read_text()


def rows(heading: str) -> list[list[str]]:
    """Return the cells of the tables below a heading."""
    part = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return [
        [cell.strip() for cell in line[1:-1].split(" | ")] for line in part.splitlines() if line[:3] == "| `"
    ]


@pytest.mark.rest
@pytest.mark.service
@pytest.mark.timeout(400)
@pytest.mark.skipif(not (TOP / ".git").exists(), reason="a source distribution cannot be cloned")
def test_a_newcomer_gets_a_working_checkout(tmp_path: Path) -> None:
    """From the clone to tests that run; what the network would bring is there already."""
    reader = Reader(tmp_path / "home")
    try:
        for typed in session(PAGE):
            assert reader.terminal.follow(typed) == 0, typed.command
            if typed.command.startswith("git clone"):
                reader.furnish("test")
    finally:
        reader.close()


def test_each_make_command_is_one_and_does_what_is_said() -> None:
    """The programs of `make check` by name; the other targets by their help."""
    targets = set(re.findall(r"`make ([a-z-]+)", TEXT))
    text = (TOP / "Makefile").read_text()
    for target in targets:
        assert re.search(rf"^{target}:.*##", text, re.MULTILINE), target
    (about,) = (cells[1] for cells in rows("A working checkout") if cells[0] == "`make check`")
    for line in recipe("check"):
        program, *arguments = line.split()
        said = " ".join(
            [Path(program).name, *(one for one in arguments if one not in (".", "--no-logo", "--no-ansi"))]
        )
        assert f"`{said}`" in about, said
    for name in re.findall(r"`(tools/\w+)", TEXT):
        assert os.access(TOP / name, os.X_OK), name


def test_every_directory_of_tests_has_a_row() -> None:
    """And every row a directory."""
    named = {name for cells in rows("The tests") for name in re.findall(r"`(tests/\w+)`", cells[0])}
    there = {f"tests/{path.parent.name}" for path in (TOP / "tests").glob("*/__init__.py")}
    assert named == there


def test_every_mark_is_explained() -> None:
    marks = re.findall(r'^    "(\w+): ', (TOP / "pyproject.toml").read_text(), re.MULTILINE)
    assert marks
    for mark in marks:
        assert f"`{mark}` for those" in TEXT


def test_files_that_it_names_are_there() -> None:
    for name in re.findall(r"`((?:tests|dittohead|docs|tools)/[\w/.]+)`", TEXT):
        assert (TOP / name).exists(), name


@pytest.mark.service
@pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT: mounts file systems")
def test_a_disk_in_memory_is_made_as_it_says(tmp_path: Path) -> None:
    """In a name space of its own: the machine's mounts stay as they are."""
    (block,) = (block for block in blocks(PAGE) if block.language == "sh")
    shell = Shell(tmp_path / "shell")
    (shell.home / ".venv" / "bin").mkdir(parents=True)
    seen = 'test "$TMPDIR" = /mnt/tests && findmnt -no FSTYPE /mnt/tests'
    python = shell.home / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\n{seen}\ncd {TOP} && exec {sys.executable} "$@" -p no:cacheprovider\n')
    python.chmod(0o755)
    script = tmp_path / "script"
    script.write_text(f"set -eu\nmount -t tmpfs tmpfs /mnt\n{block.text}")
    apart = ["unshare", "--mount", "--propagation", "private"]
    if subprocess.run([*apart, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False).returncode:
        pytest.skip("NEEDS MOUNTS: this machine does not let root mount")
    said = subprocess.run(
        [*apart, "bash", str(script)],
        cwd=shell.home,
        env=shell.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    assert said.stdout.startswith("ext4\n")
    assert " passed" in said.stdout


@pytest.mark.rest
@pytest.mark.service
@pytest.mark.timeout(240)
def test_a_migration_as_it_says_is_one(tmp_path: Path) -> None:
    """Carried out in a copy: the tests of the store hold, and fail where a part of it is forgotten."""
    top = copy(tmp_path / "copy", "dittohead/", "tests/", "pyproject.toml")
    store = top / "dittohead" / "store"
    last, number = schema.HEAD, f"{int(schema.HEAD) + 1:04}"
    (block,) = (block.text for block in blocks(PAGE) if block.language == "python")
    (column,) = re.findall(r"^   `(Column\(.*\),)`$", TEXT, re.MULTILINE)
    tables = store / "tables.py"
    before = '    Column("host", Word(), nullable=False),\n'
    assert tables.read_text().count(before) == 1
    tables.write_text(tables.read_text().replace(before, f"{before}    {column}\n"))
    (store / "schema.py").write_text(
        (store / "schema.py").read_text().replace(f'HEAD = "{last}"', f'HEAD = "{number}"')
    )

    def held() -> str:
        said = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_store.py", "-k",
             "sqlite and (migrations or newer) or (newer and refused)"],
            cwd=top, env={**outer_environ(), "PYTHONPATH": str(top)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return said.stdout

    assert "failed" in held(), "a column without its migration is not noticed"
    (store / "migrations" / "versions" / f"{number}_shelf.py").write_text(
        block.replace('"NNNN"', f'"{number}"').replace('"LAST"', f'"{last}"')
    )
    said = held()
    assert re.search(r"[2-9] passed", said), said
    assert "failed" not in said, said
