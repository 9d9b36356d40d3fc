"""The man pages: one for each command, sound for man and mandoc, and put where man looks."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dittohead.cli import main
from dittohead.config.registry import default, sources
from dittohead.config.settings import Settings
from tests.docs.pages import TOP


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All pages."""
    directory = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, TOP / "tools" / "manpages", directory], check=True)
    return directory


def commands(name: str = "dittohead", command: click.Command = main) -> Iterator[tuple[str, click.Command]]:
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for inner in command.list_commands(context):
            below = command.get_command(context, inner)
            assert below is not None
            yield from commands(f"{name}-{inner}", below)


def shown(page: Path) -> str:
    """Return a page as man shows it. What it complains of fails."""
    said = subprocess.run(
        ["man", "--warnings", "-E", "UTF-8", "-l", page],
        env={**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "200", "MAN_KEEP_FORMATTING": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stderr == "", page.name
    return " ".join(re.sub(r".\x08", "", said.stdout).replace("\u2010", "-").split())


def test_every_command_has_a_page_that_says_its_options(made: Path) -> None:
    """And no page is of none."""
    known = dict(commands())
    assert {path.name for path in (made / "man1").iterdir()} == {f"{name}.1" for name in known}
    for name, command in known.items():
        text = (made / "man1" / f"{name}.1").read_text().replace("\\-", "-")
        for parameter in command.params:
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert all(option in text for option in parameter.opts), (name, parameter.opts)


def test_man_shows_every_page_without_a_complaint(made: Path) -> None:
    """With every key of the configuration and every step, and no leftovers of roff or Markdown."""
    texts = {path.name: shown(path) for path in sorted(made.glob("man*/*"))}
    for name, text in texts.items():
        assert "\\f" not in text, name
        assert "`" not in text, name
    config = texts["dittohead-config.5"]
    assert all(f" {name} " in config for name in Settings.model_fields)
    assert all(f" {name.upper()} " in texts["dittohead-steps.5"] for name in default().names())
    assert all(f" {name.upper()} " in texts["dittohead-sources.5"] for name in sources().names())


def test_mandoc_finds_nothing_wrong(made: Path) -> None:
    """The other formatter there is."""
    for path in sorted(made.glob("man*/*")):
        said = subprocess.run(
            ["mandoc", "-T", "lint", "-W", "error", path], capture_output=True, text=True, check=False
        )
        assert said.stdout == "", path.name


def test_what_a_page_names_below_see_also_is_there(made: Path) -> None:
    """No page leads to one that is not."""
    there = {path.name for path in made.glob("man*/*")}
    for path in made.glob("man*/*"):
        for name, section in re.findall(r"^\.BR (\S+) \((\d)\)", path.read_text(), re.MULTILINE):
            assert f"{name.replace(chr(92) + '-', '-')}.{section}" in there


def test_the_installer_puts_them_where_man_looks(made: Path, tmp_path: Path) -> None:
    """Gzipped, as Debian's are."""
    subprocess.run(
        [TOP / "tools" / "install", "--files-only", "--root", tmp_path],
        env={**os.environ, "PYTHON": sys.executable},
        capture_output=True,
        check=True,
    )
    for path in made.glob("man*/*"):
        installed = tmp_path / "usr/local/share/man" / path.parent.name / f"{path.name}.gz"
        assert gzip.decompress(installed.read_bytes()) == path.read_bytes()
