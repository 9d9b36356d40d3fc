"""Commands that are given paths say what is wrong with one, on one line, and end without a traceback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dittohead.cli import main
from dittohead.model.errors import DittoheadError
from tests.support.trees import tree

CONFIG = """
root: .
pipelines: {all: {match: "(?s).+", steps: [{checksum: {}}]}}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with one of each thing that a path may lead to, where commands are typed."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    tree(tmp_path, {"file": "x", "empty": {"sub": {}}, "inbox": {}, "state": {}, "text": b"\xff"})
    tree(tmp_path, {os.fsdecode(b"odd\xff"): {"a": "1"}, "two\nlines": {"s": {}}})
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "loop").symlink_to("loop")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def typed(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


PATHS = (
    "nonexist",
    "empty",
    "fifo",
    "file/x",
    "loop",
    "n" * 300,
    os.fsdecode(b"no\xff"),
    "two\nlines",
    "text",
)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "command",
    [
        ("drop",),
        ("plan",),
        ("list", "--holds"),
        ("replace", "lab1-x", "s.txt", "--with"),
        ("show", "--files"),
        ("init", "--config"),
    ],
    ids=" ".join,
)
def test_no_path_ends_a_command_with_a_traceback(here: Path, command: tuple[str, ...], path: str) -> None:
    """Whatever lies there, or does not."""
    ended = typed(*command, path)
    assert isinstance(ended.exception, SystemExit | None), ended.exception
    assert len([line for line in ended.stderr.splitlines() if line.startswith("error:")]) <= 1


@pytest.mark.parametrize("path", ["nonexist", "empty", "file/x", "loop", "n" * 300, "text"])
@pytest.mark.parametrize("command", ["check", "status", "doctor", "reload", "rebuild", "notify list"])
def test_no_configuration_ends_a_command_with_a_traceback(here: Path, command: str, path: str) -> None:
    """It says which file it is, and why it cannot be read."""
    ended = typed("--config", path, *command.split())
    assert ended.exit_code == os.EX_CONFIG
    assert ended.stderr.startswith(f"error: {path}: the configuration ")
    assert ("dittohead init" in ended.stderr) == (path == "nonexist")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("nonexist", "No such file or directory"),
        ("empty", "this is not a regular file"),
        ("fifo", "this is not a regular file"),
        ("file/x", "Not a directory"),
    ],
)
def test_a_new_file_that_cannot_be_read_is_named(here: Path, path: str, why: str) -> None:
    """Before anything is asked of the daemon."""
    ended = typed("replace", "lab1-x", "s.txt", "--with", path)
    assert (ended.exit_code, ended.stdout) == (os.EX_NOINPUT, "")
    assert ended.stderr == f"error: {path}: the new file cannot be read ({why})\n"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("empty", "empty: the folder holds no files"),
        ("two\nlines", "two\\nlines: the folder holds no files"),
        ("fifo", "fifo: this is neither a directory nor a plain file"),
        ("link", "link: this is a link. Give what it stands for: "),
        (os.fsdecode(b"odd\xff"), "odd%FF: the folder's name is not UTF-8 text. Give another with --name"),
    ],
)
def test_what_is_bound_to_fail_is_not_dropped(here: Path, path: str, said: str) -> None:
    """And the reason is that of the thing itself, on one line."""
    ended = typed("drop", path)
    assert ended.exit_code == os.EX_UNAVAILABLE
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert os.listdir(here / "inbox") == []


def test_a_folder_is_dropped_under_a_name_that_is_text(here: Path) -> None:
    """As the refusal says."""
    ended = typed("drop", os.fsdecode(b"odd\xff"), "--name", "odd")
    assert ended.exit_code == 0, ended.stderr
    assert os.listdir(here / "inbox") == ["odd"]


@pytest.mark.parametrize(
    ("path", "said"),
    [("file", "file: "), ("file/x", "file/x: Not a directory"), (os.fsdecode(b"z\xff"), "is not UTF-8 text")],
)
def test_init_says_where_it_cannot_write(here: Path, path: str, said: str) -> None:
    """A file in the way, a name that a configuration cannot hold."""
    ended = typed("init", path)
    assert ended.exit_code in (os.EX_NOINPUT, os.EX_DATAERR)
    assert said in ended.stderr


def test_the_place_of_an_error_breaks_no_line() -> None:
    """Whatever a name holds."""
    assert str(DittoheadError("no", where="a\nb\r\x85\u2028c")) == "a\\nb\\r\\x85\\u2028c: no"
