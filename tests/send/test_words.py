"""What needs no server: names of three systems, targets, manifests, lines of progress."""

from __future__ import annotations

import ast
import io
import re
import tomllib
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

import dittohead_send
import pytest
from dittohead_send import cli, follow, manifest, names
from dittohead_send.errors import SendError
from dittohead_send.progress import Progress
from dittohead_send.target import parse
from hypothesis import given
from hypothesis import strategies as st

import dittohead
from dittohead.engine.folder_activity import PARTIAL
from dittohead.folders import names as daemon_names
from dittohead.system import files, ignored_names
from tests.support.wheel import TOP

HOME = Path(dittohead_send.__file__).parent


@pytest.mark.parametrize(
    ("given_", "flavour", "name"),
    [
        ("lab1", PurePosixPath, "lab1"),
        ("/data/lab1/", PurePosixPath, "lab1"),
        ("lab\\1", PurePosixPath, "lab\\1"),
        ("..", PurePosixPath, ""),
        ("/", PurePosixPath, ""),
        ("C:\\scans\\lab1", PureWindowsPath, "lab1"),
        ("C:\\scans\\lab1\\", PureWindowsPath, "lab1"),
        ('C:\\scans\\lab1"', PureWindowsPath, "lab1"),  # "C:\scans\lab1\" in cmd.exe
        (".\\lab1/", PureWindowsPath, "lab1"),
        ("\\\\server\\share\\lab1", PureWindowsPath, "lab1"),
        ("D:\\", PureWindowsPath, ""),
        ("\\\\server\\share", PureWindowsPath, ""),
    ],
)
def test_the_name_of_a_folder(given_: str, flavour: type[PurePath], name: str) -> None:
    assert names.of_folder(given_, flavour) == name


@pytest.mark.parametrize(
    ("path", "long"),
    [
        ("C:\\scans\\lab1", "\\\\?\\C:\\scans\\lab1"),
        ("C:/scans/../lab1", "\\\\?\\C:\\lab1"),
        ("\\\\server\\share\\lab1", "\\\\?\\UNC\\server\\share\\lab1"),
        ("\\\\?\\C:\\CON", "\\\\?\\C:\\CON"),
        ("C:\\" + "x\\" * 200, "\\\\?\\C:\\" + "x\\" * 199 + "x"),
    ],
)
def test_paths_of_windows_have_no_limit(path: str, long: str) -> None:
    assert names.long_path(path) == long


def test_names_that_the_daemon_refuses_are_those_of_the_daemon() -> None:
    """They stand in both distributions, as neither imports the other."""
    assert names.NAME_MOST == daemon_names.MOST
    assert (names.PATH_MOST, names.DEPTH_MOST) == (files.MAX_PATH, files.MAX_DEPTH - 1)
    plain = [name for name in ignored_names.NAMES if not name.startswith(".")]
    for name in plain:
        with pytest.raises(SendError, match="never takes"):
            names.checked(name.upper())
    for name in ("a/b", "a\\b", "a\nb", "", ".a", "x" * 255):
        with pytest.raises(SendError):
            names.checked(name)
    assert names.checked("Käfer 2026") == "Käfer 2026"


@pytest.mark.parametrize("pattern", [one for one in PARTIAL if re.fullmatch(r"[\x20-\x7e]+", one)])
def test_names_of_unfinished_files_are_those_of_the_daemon(pattern: str) -> None:
    if "*" not in pattern and not pattern.startswith("."):
        pytest.skip("stands for a date")
    example = pattern.replace("[0-9a-f]", "7").replace("XXXXXX", "aB3dE9").replace("*", "x")
    assert names.unfinished(example), example
    assert not names.unfinished("plate-1.csv")


@pytest.mark.parametrize(
    ("text", "user", "host", "path"),
    [
        ("alice@ingest.example.org:", "alice", "ingest.example.org", ""),
        ("ingest:inbox/a b", "", "ingest", "inbox/a b"),
        ("alice@[::1]:/srv/x", "alice", "::1", "/srv/x"),
        ("a.b@h:~/inbox", "a.b", "h", "inbox"),
        ("h1:~", "", "h1", ""),
    ],
)
def test_targets(text: str, user: str, host: str, path: str) -> None:
    found = parse(text)
    assert (found.user, found.host, found.path) == (user, host, path)


@pytest.mark.parametrize("text", ["inbox", "C:\\scans", "alice@host", "a b:x", ""])
def test_what_is_no_target_is_said(text: str) -> None:
    """Also the second of two folders, where the target was forgotten."""
    with pytest.raises(SendError, match="user@host:"):
        parse(text)


@given(
    st.dictionaries(
        st.binary(min_size=1).filter(lambda b: b"\0" not in b), st.from_regex(r"\A[0-9a-f]{64}\Z")
    )
)
def test_a_manifest_reads_as_it_was_written(digests: dict[bytes, str]) -> None:
    """Names of any bytes."""
    identity = manifest.Identity(origin="a" * 64, content="b" * 64)
    data = manifest.text(manifest.header(identity, ["x\ny"][:0]), digests)
    read = manifest.read(data)
    assert read.digests == digests
    assert read.identity == identity


@given(st.binary())
def test_no_bytes_break_the_reader(data: bytes) -> None:
    manifest.read(data)


def test_a_torn_line_counts_for_nothing() -> None:
    line = manifest.line("a" * 64, b"sub/x.tif")
    read = manifest.read(line[:40] + b"\n" + manifest.point(7, "b" * 64, b"y\n")[:-1] + b"\n" + line)
    assert read.digests == {b"sub/x.tif": "a" * 64}
    assert read.points == {b"y\n": {7: "b" * 64}}


def test_progress_fits_80_columns_and_is_plain_in_a_log() -> None:
    clock = [0.0]
    out = io.StringIO()
    shown = Progress(out, now=lambda: clock[0])
    shown.begin("n" * 200, 5_000_000, 7 << 40)
    for _ in range(400):
        clock[0] += 1
        shown.add(1 << 30, sent=True)
        assert len(shown.text()) < 80
    lines = out.getvalue().splitlines()
    assert 10 < len(lines) < 20
    assert "\r" not in out.getvalue()
    assert "/s, " in lines[-1]
    assert lines[-1].endswith("left")


def test_nothing_is_shown_when_quiet() -> None:
    shown = Progress(None)
    shown.begin("x", 1, 1)
    shown.add(1, sent=True)
    shown.clear()
    shown.tell("x")


@pytest.mark.parametrize(
    ("url", "token"), [("ftp://x", None), ("daemon", None), ("http://ingest.example.org:8140", "secret")]
)
def test_a_token_never_goes_over_the_network_in_the_clear(
    url: str, token: str | None, tmp_path: Path
) -> None:
    with pytest.raises(SendError) as found:
        follow.Api(url, token)
    assert "secret" not in str(found.value)


@pytest.mark.parametrize(
    "arguments",
    [["x"], ["x", "h1:", "--jobs", "11"], ["x", "h1:", "--port", "0"], ["a", "b", "h1:", "--name", "c"],
     ["x", "h1:", "--retry-for", "-1"], ["x", "h1:", "--token-file", "t"], ["x", "nothing"],
     ["x", "h1:", "--follow", "http://localhost", "--token-file", "/no/such"]],
)  # fmt: skip
def test_wrong_usage_leaves_with_64(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(arguments)
    assert left.value.code == 64
    assert capsys.readouterr().err


def test_nothing_of_dittohead_is_imported() -> None:
    """On the uploader's machine there is only this distribution, and asyncssh."""
    imported = set()
    for path in HOME.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
    assert "dittohead" not in imported
    assert {"asyncssh", "dittohead_send"} <= imported


def test_both_distributions_have_one_version_and_licence() -> None:
    project = tomllib.loads((TOP / "send/pyproject.toml").read_text())["project"]
    assert dittohead_send.__version__ == dittohead.__version__
    assert (TOP / "send/LICENSE").read_bytes() == (TOP / "LICENSE").read_bytes()
    assert [line.split(">")[0] for line in project["dependencies"]] == ["asyncssh[bcrypt]"]


def test_every_option_and_exit_code_is_in_the_docs() -> None:
    page = (TOP / "docs/send.md").read_text()
    options = {
        one for action in cli.parser()._actions for one in action.option_strings if one.startswith("--")
    }
    assert {one for one in options - {"--help", "--version"} if f"`{one}" not in page} == set()
    for code in (0, 64, 65, 66, 69, 73, 74, 75, 76, 77, 130):
        assert f"| {code} |" in page
