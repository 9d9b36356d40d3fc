"""The API of the running daemon: fuzzed by its own description, asked by the commands, tried by the docs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from dittohead.cli import main
from dittohead.cli.storeview import FromStore
from dittohead.cli.view import FromDaemon, NamedRoot, viewing
from dittohead.model.errors import NoSuchJob
from dittohead.model.job_filter import JobFilter
from dittohead.model.states import JobState
from tests.support import hostile as by
from tests.support.daemon import Site, site
from tests.support.length import budget
from tests.support.web_harness import OPERATOR, READER, TOKENS

pytestmark = pytest.mark.service

TOP = Path(__file__).parent.parent.parent

#: Numbers of a user and a group that no system gives out.
ALICE, EVE, OPERATORS = 60011, 60012, 60013

CONFIG = """
root: .
space: {{floor: 0}}
http: {{listen: "127.0.0.1:{port}", tokens: people}}
pipelines:
  held:
    match: "held.*"
    steps: [{{command: {{argv: [sh, -c, "while ! test -e GATE; do sleep 0.05; done"]}}}}]
  all:
    match: ".*"
    steps:
      - checksum: {{}}
      - command: {{name: print, argv: [echo, 0123456789]}}
"""


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that other users may enter, unlike pytest's."""
    made = Path(tempfile.mkdtemp(prefix="dittohead-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def here(open_place: Path) -> Iterator[Site]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    config = CONFIG.format(port=port).replace("GATE", str(open_place / "gate"))
    with site(open_place / "root", config) as made:
        made.url = f"http://127.0.0.1:{port}"  # type: ignore[attr-defined]
        (made.root / "credentials").mkdir(mode=0o700)
        (made.root / "credentials" / "people").write_text(TOKENS)
        made.start()
        yield made


def ask(here: Site, path: str, token: str = READER) -> Any:
    url: str = here.url  # type: ignore[attr-defined]
    request = urllib.request.Request(url + path, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def over(here: Site, name: str) -> None:
    here.until(lambda: any((here.root / s / name).exists() for s in ("done", "failed")))


def by_socket(
    here: Site, path: str, body: str = "", *, uid: int, groups: list[int]
) -> subprocess.CompletedProcess[str]:
    """Ask as another user, by a program that any user can run."""
    given = ["--json", body] if body else []
    sock = here.root / "state" / "api.sock"
    return subprocess.run(
        ["curl", "-fsS", *given, "--unix-socket", sock, f"http://localhost/api/v1/{path}"],
        capture_output=True, text=True, timeout=60, check=False, user=uid, group=uid, extra_groups=groups,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("phases", budget(["examples,coverage", "fuzzing"], "examples,coverage"))
def test_all_that_the_description_allows_and_forbids_is_answered_as_it_says(
    here: Site, open_place: Path, phases: str
) -> None:
    """Schemathesis, on every operation, with a job that can be acted on; nothing of it harms the daemon."""
    here.drop("x", {"a": "1"})
    over(here, "x")
    here.drop("held", {"a": "1"})
    here.until(lambda: ask(here, "/api/v1/jobs?name=held")["items"])
    settings = open_place / "schemathesis.toml"
    settings.write_text(
        # A cursor is text to the description, and only an earlier answer's to the API.
        '[[operations]]\ninclude-name = ["GET /api/v1/jobs", "GET /api/v1/jobs/{job}/files"]\n'
        'checks.positive_data_acceptance.expected-statuses = ["2xx", "400"]\n'
        '[[operations]]\ninclude-path-regex = "/jobs/.*/(receipt|log|files|retry|rerun|undone)"\n'
        'parameters = { "path.job" = "x", "path.step" = "print" }\n'
        '[[operations]]\ninclude-path-regex = "/jobs/.*/(freeze|thaw|cancel|poke)"\n'
        'parameters = { "path.job" = "held" }\n'
    )
    said = subprocess.run(
        [
            Path(sys.executable).parent / "st",
            "--config-file",
            settings,
            "run",
            f"{here.url}/api/v1/openapi.json",  # type: ignore[attr-defined]
            "--header",
            f"Authorization: Bearer {OPERATOR}",
            "--phases",
            phases,
            "--checks",
            "all",
            # Wrong tokens are slowed after a few; the test that follows asks every operation without rights.
            "--exclude-checks",
            "ignored_auth",
            "--generation-deterministic",
            "--max-examples",
            "4",
            "--no-color",
        ],
        cwd=open_place,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert said.returncode == 0, said.stdout[-5000:] + said.stderr[-2000:]
    paths = ask(here, "/api/v1/openapi.json")["paths"]
    tested = re.search(r"Tested: (\d+)", said.stdout)
    assert tested is not None
    assert int(tested[1]) == sum(len(methods) for methods in paths.values()) >= 18
    assert not here.events("http.crashed")
    assert here.process is not None
    assert here.process.poll() is None
    here.run("cancel", "held", check=False)
    here.drop("after", {"a": "1"})
    over(here, "after")


def test_without_rights_every_operation_is_refused(here: Site) -> None:
    """Whatever the description lists: 401 to nobody, 403 to a reader who would act."""
    made = ask(here, "/api/v1/openapi.json")
    tried = 0
    for path, methods in made["paths"].items():
        for method, operation in methods.items():
            address = f"{here.url}{re.sub('{.*?}', 'x', path)}"  # type: ignore[attr-defined]
            # A wrong token is refused like none, or put off once there were too many.
            for token, statuses in ((None, [401]), ("x" * 30, [401, 429]), (READER, [403])):
                if (token == READER and method == "get") or operation.get("security") == []:
                    continue
                headers = {"Authorization": f"Bearer {token}"} if token else {}
                request = urllib.request.Request(address, method=method.upper(), headers=headers)
                with pytest.raises(urllib.error.HTTPError) as refused:
                    urllib.request.urlopen(request, timeout=20)
                with refused.value as answer:
                    assert answer.code in statuses, (method, path, token)
                tried += 1
    assert tried > 40


def test_the_examples_of_the_docs_work(here: Site, open_place: Path) -> None:
    """As they stand, against a daemon, in a shell that stops at the first that fails."""
    here.drop("lab1-scans", {"scan.tif": "x"})
    over(here, "lab1-scans")
    (open_place / "scan.tif").write_text("x")
    env = here.env | {"URL": here.url, "TOKEN": OPERATOR}  # type: ignore[attr-defined]
    said = []
    for page in ("api.md", "rights.md"):
        for block in re.findall(r"```sh\n(.*?)```", (TOP / "docs" / page).read_text(), re.DOTALL):
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block],
                cwd=open_place,
                env=env,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, block + done.stderr
            said.append(done.stdout)
    assert [len(json.loads(said[n])["items"]) for n in (0, 1)] == [1, 1]
    assert json.loads((open_place / "receipt.json").read_text())["name"] == "lab1-scans"
    assert said[2] == "3456789\n"
    assert json.loads(said[3])["message"] == "lab1-scans: run again from step print"
    assert json.loads(said[4])["title"] == "Bad Request"
    # The line that the docs make opens the door for the token that they make.
    token, line = said[5].splitlines()
    with open(here.root / "credentials" / "people", "a") as file:
        file.write(line + "\n")
    here.until(lambda: _opens(here, token))


def _opens(here: Site, token: str) -> bool:
    try:
        ask(here, "/api/v1/jobs", token)
    except urllib.error.HTTPError as error:
        with error:
            return False
    return True


@pytest.mark.timeout(400)  # some twenty commands, each a process of its own
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to be somebody else")
@pytest.mark.skipif(not by.python(), reason="INTERPRETER OR REPOSITORY CLOSED TO OTHER USERS: left out")
def test_a_member_of_the_states_group_acts_under_their_own_name_and_others_do_not(here: Site) -> None:
    """Without any access to the store: by the socket alone, and the kernel says who it is."""
    state = here.root / "state"
    here.stop()
    os.chown(state, -1, OPERATORS)
    state.chmod(0o2710)
    for path in state.glob("dittohead.sqlite3*"):
        path.chmod(0o600)
    here.start()
    here.drop("held", {"a": "1"})
    here.until(lambda: ask(here, "/api/v1/jobs?state=running")["items"])
    assert stat.S_IMODE((state / "api.sock").stat().st_mode) == 0o660
    said = by_socket(here, "jobs/held/freeze", '{"reason": "wait"}', uid=ALICE, groups=[OPERATORS])
    assert said.returncode == 0, said.stderr
    fields = json.loads(by_socket(here, "jobs/held", uid=ALICE, groups=[OPERATORS]).stdout)
    assert fields["reason"] == f"frozen by {ALICE}: wait"
    assert fields["requests"][0]["who"] == str(ALICE)
    with viewing(NamedRoot(here.root, None)) as view:
        assert isinstance(view, FromDaemon)
        for odd in ("..", ".", "a/b", "\udcff", "%2e%2e", "x\n", "é"):
            with pytest.raises(NoSuchJob):
                view.job(odd)
    assert by_socket(here, "status", uid=EVE, groups=[]).returncode == 7  # could not connect
    assert by_socket(here, "jobs/held/thaw", "{}", uid=EVE, groups=[]).returncode == 7
    shown = here.run("show", "held").stdout
    assert "thaw asked for" not in shown
    assert f"freeze asked for by {ALICE}: done" in shown
    # What reads the store and the folders is done by the daemon for her.
    here.drop("over", {"a": "1"})
    here.until(lambda: ask(here, "/api/v1/jobs?state=done")["items"])
    alice = {"user": ALICE, "group": ALICE, "extra_groups": [OPERATORS], "cwd": "/"}
    assert "1 file as in the receipt" in here.run("verify", "over", **alice).stdout
    (here.root / "done/over/a").write_text("2")
    said = here.run("verify", "over", "--json", check=False, **alice)
    assert (said.returncode, json.loads(said.stdout)["good"]) == (os.EX_DATAERR, False)
    nobody = {**alice, "extra_groups": []}
    for command in (("status",), ("verify", "over"), ("reload",), ("undo", "over", "--dry-run")):
        said = here.run(*command, check=False, **nobody)
        assert said.returncode == os.EX_NOPERM
        assert "ask the daemon (operators may: docs/rights.md)" in said.stderr
    said = here.run("undo", "over", "--dry-run", check=False, **alice)
    assert said.returncode == os.EX_NOPERM
    assert "may not read the store, and this command reads it itself" in said.stderr
    here.stop()
    for command in ("status", "list", "doctor", "reload", "verify over", "retry over", "poke over"):
        said = here.run(*command.split(), check=False, **alice)
        assert said.returncode == os.EX_UNAVAILABLE
        assert "the daemon is not running (or does not answer)" in said.stderr
        assert (
            f"Ask the person who administers this machine: sudo dittohead --config {here.config} run"
            in said.stderr
        )


def test_which_configuration_is_in_force_is_told_on_the_socket_alone(here: Site) -> None:
    """Commands need not check it again; strangers need not know it."""
    by_own = ["--unix-socket", str(here.root / "state/api.sock"), "http://localhost/healthz"]
    for address, told in ((by_own, True), ([f"{here.url}/healthz"], False)):  # type: ignore[attr-defined]
        said = subprocess.run(["curl", "-fsSI", *address], capture_output=True, text=True, check=True)
        digest = hashlib.sha256(here.config.read_bytes()).hexdigest()
        assert (f"Dittohead-Configuration: {digest}" in said.stdout) == told
        assert ("Dittohead-Configuration" in said.stdout) == told


def test_the_socket_is_for_the_daemons_user_alone_where_the_group_may_not_enter(here: Site) -> None:
    """As installed; and it goes with the daemon."""
    path = here.root / "state" / "api.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert here.stop() == 0
    assert not path.exists()


def test_a_root_too_deep_for_a_sockets_path_will_do(tmp_path: Path) -> None:
    """A unix socket's path has 107 bytes at most."""
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    with site(
        deep, 'root: .\npipelines: {all: {match: ".*", steps: [checksum: {}]}}\nspace: {floor: 0}\n'
    ) as made:
        made.start()
        made.drop("x", {"a": "1"})
        over(made, "x")
        said = made.run("rerun", "x")
        assert "moved back to the inbox" in said.stdout
        assert [line["who"] for line in made.events("request.answered")] != []


def test_a_mistake_in_the_configuration_is_said_and_blinds_nobody(here: Site) -> None:
    """While the daemon runs, and when it is down; a YAML that cannot be read at all, too."""
    here.drop("x", {"a": "1"})
    over(here, "x")
    good = here.config.read_text()
    here.config.write_text(good + "nmae: x\n")
    _blinds_nobody(here, "status")
    _blinds_nobody(here, "show", "x")
    here.stop()
    here.config.write_text(good + "  - [\n")
    _blinds_nobody(here, "list")
    # What acts while no daemon runs needs all of it.
    assert here.run("rerun", "x", check=False).returncode == os.EX_CONFIG


def _blinds_nobody(here: Site, *command: str) -> None:
    said = here.run(*command)
    assert re.search(r"\bx\b|1 done", said.stdout)
    assert "warning: " in said.stderr
    assert "config.yaml:" in said.stderr


def test_jobs_are_listed_by_uploader_date_and_file(here: Site, tmp_path: Path) -> None:
    """And all of them, where asked for; the same with the daemon and without."""
    for name in ("one", "two"):
        here.drop(name, {"a": name})
        over(here, name)
    (tmp_path / "file").write_text("two")

    digest = "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
    claimed = datetime.fromisoformat(ask(here, "/api/v1/jobs?name=two")["items"][0]["claimed_at"])
    asked = [
        (JobFilter(holds=digest), 50, ["two"]),
        (JobFilter(holds=digest[:8]), 50, ["two"]),
        (JobFilter(uid=os.getuid()), None, ["two", "one"]),
        (JobFilter(uid=4_000_000), None, []),
        (JobFilter(since=claimed), 50, ["two"]),
        (JobFilter(until=claimed, part="N", states=[JobState.DONE], pipeline="all"), 50, ["one"]),
        (JobFilter(), 1, ["two"]),
    ]
    arguments = [
        "list",
        "--json",
        "--holds",
        str(tmp_path / "file"),
        "--user",
        str(os.getuid()),
        "--since",
        "2026-01-01",
    ]
    for running in (True, False):
        with viewing(NamedRoot(here.root, None)) as view:
            assert isinstance(view, FromDaemon if running else FromStore)
            for wanted, limit, names in asked:
                assert [job["name"] for job in view.jobs(wanted, limit)] == names, wanted
        assert [job["name"] for job in json.loads(here.run(*arguments).stdout)] == ["two"]
        if running:
            here.stop()
    for wrong in (["--holds", "nothing"], ["--since", "soon"], ["--user", "nobody-at-all"]):
        with pytest.raises(SystemExit) as refused:
            main(["list", *wrong])
        assert refused.value.code == os.EX_USAGE


def test_beyond_this_host_somebody_must_be_named(tmp_path: Path) -> None:
    """Refused by check with line and key; the doctor names the lines of tokens that open nothing."""
    text = (
        'root: .\nhttp:\n  listen: "0.0.0.0:8140"\npipelines: {all: {match: ".*", steps: [checksum: {}]}}\n'
    )
    with site(tmp_path / "root", text) as made:
        said = made.run("check", check=False)
        assert said.returncode == os.EX_CONFIG
        assert "config.yaml:3:3: beyond this host, everybody could read all of it" in said.stderr
        made.config.write_text(text.replace("0.0.0.0", "127.0.0.1") + "")
        assert made.run("check").returncode == 0
        made.config.write_text(text.replace('8140"', '8140"\n  tokens: people'))
        (made.root / "credentials").mkdir()
        (made.root / "credentials" / "people").write_text("reader bob short\n")
        assert made.run("check").returncode == 0
        said = made.run("doctor", check=False)
        assert "credential people, line 1: the token has 5 characters" in said.stdout
        assert "short" not in said.stdout


def test_what_a_program_says_to_the_socket_is_under_its_own_rights(here: Site) -> None:
    """No token, no header and no cookie makes of it somebody else."""
    sock = here.root / "state" / "api.sock"
    here.drop("x", {"a": "1"})
    over(here, "x")
    said = subprocess.run(
        ["curl", "-fsS", "--unix-socket", "api.sock", "-H", f"Authorization: Bearer {READER}", "-H", "X-Remote-User: carol",
         "--json", '{"what": "w", "good": true}', "http://localhost/api/v1/jobs/x/undone"],
        cwd=sock.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    (asked,) = ask(here, "/api/v1/requests")["items"]
    assert asked["who"] == subprocess.check_output(["id", "-un"], text=True).strip()
