"""The service on a machine with a real systemd: installed, used and ill-treated as an admin would."""

from __future__ import annotations

import http.server
import json
import os
import re
import socket
import textwrap
import threading
import urllib.request
from collections.abc import Iterator

import pytest

from tests.support.boot import TOP, Machine, machine
from tests.support.images import tiff
from tests.support.wheel import copy

pytestmark = [pytest.mark.rest, pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(600)]

UPLOADER = 60001
SECRET = "tk-5gHq81zRw0"

with socket.socket() as _sock:
    _sock.bind(("127.0.0.1", 0))
    PORT = _sock.getsockname()[1]  #: of the page; the machine has this one's network

CONFIG = """
root: /srv/dittohead
http: {listen: "127.0.0.1:PORT"}
space: {floor: 0}
limits: {jobs: 4}
pipelines:
  scans:
    match: "scans-.*"
    steps:
      - convert: {}
      - rsync: {from: convert, to: "/target/pyramids/{name}", mkpath: true}
      - rsync: {name: originals, to: "/target/originals/{name}", mkpath: true}
  held:
    match: "held-.*"
    steps:
      - command: {name: hold, argv: [sh, -c, 'touch /target/holding; while ! test -e /target/go; do sleep 0.1; done']}
      - command: {name: after, argv: [sh, -c, 'echo after >> /target/ran']}
  slow:
    match: "slow-.*"
    steps:
      - rsync: {to: "/target/slow/{name}", mkpath: true, bwlimit: 500kB}
"""

DROP_IN = """
[Service]
ReadWritePaths=/target
LoadCredential=chat-url:/root/chat-url
TimeoutStopSec=10s
"""


@pytest.fixture(scope="module")
def booted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine on which `make install` was run from a fresh copy of the sources."""
    with machine(tmp_path_factory.mktemp("boot") / "m") as made:
        copy(made.files / "usr/src/dittohead")
        said = made.run("make", "-C", "/usr/src/dittohead", "install")
        assert "install: done" in said.stdout
        yield made


@pytest.fixture
def host(booted: Machine) -> Machine:
    """The service running on its configuration, with an empty target and empty stations."""
    booted.run("systemctl", "stop", "dittohead", check=False)
    booted.run("systemctl", "reset-failed", "dittohead", check=False)
    booted.run("sh", "-c", "rm -rf /target /srv/dittohead/*/* && install -d -o dittohead /target")
    (booted.files / "root/chat-url").write_text("json://127.0.0.1:9/x")
    (booted.files / "root/chat-url").chmod(0o600)
    configure(booted, CONFIG)
    drop_in = booted.files / "etc/systemd/system/dittohead.service.d/site.conf"
    drop_in.parent.mkdir(exist_ok=True)
    drop_in.write_text(DROP_IN)
    booted.run("systemctl", "daemon-reload")
    booted.run("journalctl", "--rotate", "--vacuum-time=1s", "-q", check=False)
    booted.run("systemctl", "start", "dittohead")
    return booted


def configure(host: Machine, text: str) -> None:
    text = textwrap.dedent(text).replace("PORT", str(PORT))
    (host.files / "etc/dittohead/config.yaml").write_text(text)


def drop(host: Machine, name: str, files: dict[str, bytes]) -> None:
    """Upload as somebody else, by the uploader's protocol."""
    place = host.files / "var/up"
    place.mkdir(exist_ok=True)
    for file, data in files.items():
        (place / file).write_bytes(data)
        (place / file).chmod(0o644)
    inbox = "/srv/dittohead/inbox"
    command = f"umask 002 && mkdir {inbox}/.{name} && cd /var/up && cp {' '.join(files)} {inbox}/.{name}/"
    host.run("sh", "-c", f"{command} && mv {inbox}/.{name} {inbox}/{name}", user=UPLOADER)


def arrived(host: Machine, name: str, station: str = "done") -> None:
    host.until(lambda: (host.files / "srv/dittohead" / station / name).is_dir())


def page(path: str) -> str:
    """Return a page of the service, as a browser is given it."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=60) as answer:
        assert answer.status == 200, path
        text: str = answer.read().decode()
        return text


def no_rsync(host: Machine) -> bool:
    return host.run("pgrep", "-x", "rsync", check=False).returncode == 1


def test_it_is_installed_enabled_ready_and_closed_in(host: Machine) -> None:
    """`systemctl start` returns when the first scan is done; the running unit has the promised score."""
    host.run("systemctl", "enable", "dittohead")
    assert host.run("systemctl", "is-enabled", "dittohead").stdout.strip() == "enabled"
    assert (host.show("ActiveState"), host.show("SubState")) == ("active", "running")
    host.until(lambda: "watching by inotify" in host.show("StatusText"))
    said = host.run("systemd-analyze", "security", "dittohead", "--no-pager").stdout
    score = re.search(r"Overall exposure level for dittohead.service: ([\d.]+)", said)
    assert score is not None
    assert float(score[1]) <= 1.2
    assert host.run("ps", "-o", "user=", "-p", host.show("MainPID")).stdout.strip() == "dittohead"
    assert "dittohead" in host.run("/usr/local/bin/dittohead", "--version").stdout
    pages = host.files / "usr/local/share/man"
    assert {"dittohead.1.gz", "dittohead-drop.1.gz"} <= {path.name for path in (pages / "man1").iterdir()}
    assert (pages / "man5" / "dittohead-config.5.gz").stat().st_size > 0
    assert (host.files / "usr/local/share/doc/dittohead/docs/permissions.md").stat().st_size > 0


def test_anothers_images_are_converted_and_delivered_under_the_sandbox(host: Machine) -> None:
    """No rename meets another mount; the journal's lines carry job and name."""
    drop(host, "scans-1", {"a.tif": tiff(600, 400), "b.tif": tiff(300, 500)})
    arrived(host, "scans-1")
    delivered = {p.name for p in (host.files / "target").rglob("*.tif")}
    assert delivered == {"a.tif", "b.tif"}
    assert (host.files / "target/originals/scans-1/a.tif").read_bytes() == (
        host.files / "var/up/a.tif"
    ).read_bytes()
    assert not re.search(r"cross-device|EXDEV", host.journal())
    # The installed copy has all its templates and static files: 13 were missing.
    web_harness = page("/")
    assert "scans-1" in web_harness
    assert "a.tif" in page("/jobs/scans-1")
    assert "convert" in page("/jobs/scans-1/steps/convert/log")
    for other in ("/jobs", "/numbers", *re.findall(r"/static/[\w.]+", web_harness)):
        assert page(other)
    (receipt,) = (host.files / "srv/dittohead/receipts").glob("scans-1.*.json")
    job = json.loads(receipt.read_text())["job"]
    lines = host.run("journalctl", "-u", "dittohead", "-o", "json", "--no-pager").stdout.splitlines()
    messages = [json.loads(json.loads(line)["MESSAGE"]) for line in lines if '\\"event\\"' in line]
    of_job = [m for m in messages if m.get("job") == job]
    assert {"job.claimed", "step.started", "step.finished", "job.finished", "job.moved"} <= {
        m["event"] for m in of_job
    }
    assert {m["name"] for m in of_job} == {"scans-1"}


def test_a_reload_applies_to_new_jobs_and_a_bad_one_is_refused(host: Machine) -> None:
    """The job in flight keeps its steps; the unit is active all along."""
    drop(host, "held-old", {"a": b"1"})
    host.until(lambda: (host.files / "target/holding").exists())
    configure(host, CONFIG.replace("echo after >> /target/ran", "echo new >> /target/ran"))
    host.run("systemctl", "reload", "dittohead")
    host.until(lambda: "config.loaded" in host.journal())
    for wrong in ("pipelined:", "- ["):  # a key that is none; what is not YAML
        configure(host, CONFIG.replace("pipelines:", wrong))
        assert host.run("systemctl", "reload", "dittohead", check=False).returncode != 0
        assert host.show("ActiveState") == "active"
        assert host.show("ReloadResult") == "exit-code"
    assert host.journal().count("config.refused") == 2
    shown = host.run("systemctl", "status", "dittohead", check=False).stdout
    assert "refused: the daemon goes on with the configuration that it has" in shown
    assert 'unknown key "pipelined"' in host.journal()
    drop(host, "held-new", {"a": b"1"})
    arrived(host, "held-new", "processing")
    (host.files / "target/go").touch()
    arrived(host, "held-old")
    arrived(host, "held-new")
    assert sorted((host.files / "target/ran").read_text().split()) == ["after", "new"]
    assert host.show("NRestarts") == "0"


def test_a_secret_arrives_by_loadcredential_and_shows_nowhere(host: Machine) -> None:
    """It reaches the receiver; not the unit, the process, the journal, or anything under the root."""
    got: list[str] = []

    class Chat(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.path)
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Chat)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        (host.files / "root/chat-url").write_text(f"json://127.0.0.1:{server.server_port}/{SECRET}")
        configure(host, CONFIG + "\nnotify:\n  - {url_credential: chat-url, on: [failed]}\n")
        host.run("systemctl", "restart", "dittohead")
        drop(host, "nobody-wants-this", {"a": b"1"})
        host.until(lambda: got)
    finally:
        server.shutdown()
        server.server_close()
    assert SECRET in got[0]
    pid = host.show("MainPID")
    for place in ("environ", "cmdline"):
        assert SECRET not in host.run("cat", f"/proc/{pid}/{place}").stdout
    assert SECRET not in host.run("systemctl", "show", "dittohead").stdout
    assert SECRET not in host.run("journalctl", "--no-pager", "-o", "cat").stdout
    assert host.run("grep", "-ra", SECRET, "/srv/dittohead", check=False).returncode == 1
    assert host.run("cat", "/root/chat-url", user=UPLOADER, check=False).returncode != 0


def test_the_watchdog_ends_a_daemon_that_hangs_and_its_job_goes_on(host: Machine) -> None:
    """A stopped main thread no longer feeds it."""
    (host.files / "etc/systemd/system/dittohead.service.d/watchdog.conf").write_text(
        "[Service]\nWatchdogSec=2s\n"
    )
    host.run("systemctl", "daemon-reload")
    host.run("systemctl", "restart", "dittohead")
    drop(host, "held-w", {"a": b"1"})
    host.until(lambda: (host.files / "target/holding").exists())
    (host.files / "target/holding").unlink()
    host.run("kill", "-STOP", host.show("MainPID"))
    host.until(lambda: int(host.show("NRestarts")) >= 1)
    host.until(lambda: (host.files / "target/holding").exists())
    (host.files / "target/go").touch()
    arrived(host, "held-w")
    assert "watchdog" in host.run("journalctl", "-u", "dittohead", "--no-pager").stdout.lower()
    (host.files / "etc/systemd/system/dittohead.service.d/watchdog.conf").unlink()


def test_it_stops_in_time_with_rsync_in_flight_and_goes_on_after_the_start(host: Machine) -> None:
    """Within ten seconds, by itself, leaving no program behind; what arrives is what was dropped."""
    data = os.urandom(4_000_000)
    drop(host, "slow-1", {"big.bin": data})
    host.until(lambda: any((host.files / "target/slow").rglob(".*big.bin*")) and not no_rsync(host))
    host.run("systemctl", "stop", "dittohead")
    assert host.show("Result") == "success"  # not "timeout", which ten seconds would give
    assert no_rsync(host)
    assert (host.files / "srv/dittohead/processing/slow-1").is_dir()
    host.run("systemctl", "start", "dittohead")
    arrived(host, "slow-1")
    delivered = [p for p in (host.files / "target/slow").rglob("*") if p.is_file()]
    assert [(p.name, p.read_bytes() == data) for p in delivered] == [("big.bin", True)]


def test_a_bad_configuration_ends_it_once_and_for_all(host: Machine) -> None:
    """Exit status 78 does not start it again; a good file is."""
    configure(host, CONFIG.replace("convert: {}", "convert: {qualty: 80}"))
    host.run("systemctl", "restart", "dittohead", check=False)
    host.until(lambda: host.show("ActiveState") == "failed")
    assert (host.show("ExecMainStatus"), host.show("NRestarts")) == ("78", "0")
    assert "config.yaml:10:" in host.journal()
    assert "quality" in host.journal()
    configure(host, CONFIG)
    host.run("systemctl", "start", "dittohead")
    assert host.show("ActiveState") == "active"


def test_killed_it_is_started_again_and_the_job_goes_on(host: Machine) -> None:
    """By kill -9 of the main process: what it had started is gone too."""
    drop(host, "held-k", {"a": b"1"})
    host.until(lambda: (host.files / "target/holding").exists())
    (host.files / "target/holding").unlink()
    before = host.show("MainPID")
    host.run("kill", "-9", before)
    host.until(lambda: (host.files / "target/holding").exists())
    assert host.show("MainPID") not in (before, "0")
    assert host.run("pgrep", "-fc", "test -e /target/go").stdout.strip() == "1"
    (host.files / "target/go").touch()
    arrived(host, "held-k")
    assert (host.files / "target/ran").read_text() == "after\n"


def test_drain_finishes_what_runs_before_it_stops(host: Machine) -> None:
    """`stop: {mode: drain}`: systemd's patience is extended as long as the job takes."""
    configure(host, CONFIG + "\nstop: {mode: drain}\n")
    host.run("systemctl", "restart", "dittohead")
    drop(host, "held-d", {"a": b"1"})
    host.until(lambda: (host.files / "target/holding").exists())
    host.run("systemctl", "stop", "--no-block", "dittohead")
    host.until(lambda: host.show("ActiveState") == "deactivating")
    drop(host, "held-later", {"a": b"1"})
    (host.files / "target/go").touch()
    host.until(lambda: host.show("ActiveState") == "inactive")
    assert host.show("Result") == "success"
    assert (host.files / "srv/dittohead/done/held-d").is_dir()
    assert (host.files / "srv/dittohead/inbox/held-later").is_dir()


def test_operators_act_through_the_socket_without_access_to_the_store(host: Machine) -> None:
    """By the steps of docs/rights.md; the closed-in service needs no right to change groups."""
    operator, group = 60002, 60100
    said = re.search(r"echo '(d /srv/dittohead/state .*?)'", (TOP / "docs/rights.md").read_text())
    assert said is not None
    line = said[1].replace("dittohead-operators", str(group))
    (host.files / "etc/tmpfiles.d/dittohead-operators.conf").write_text(line + "\n")
    host.run("systemd-tmpfiles", "--create", check=False)
    host.run("systemctl", "restart", "dittohead")
    assert host.run("stat", "-c", "%a %g", "/srv/dittohead/state").stdout == f"2710 {group}\n"
    assert host.run("stat", "-c", "%a %g", "/srv/dittohead/state/api.sock").stdout == f"660 {group}\n"
    drop(host, "held-1", {"a.tif": b"x"})
    host.until(lambda: (host.files / "target/holding").exists())
    command = ["/usr/local/bin/dittohead", "--config", "/etc/dittohead/config.yaml"]
    groups = ["setpriv", f"--reuid={operator}", f"--regid={operator}", f"--groups={group}", *command]
    assert "held-1" in host.run(*groups, "status").stdout
    host.run(*groups, "freeze", "held-1", "--reason", "wait")
    assert f"frozen by {operator}: wait" in host.run(*groups, "list").stdout
    for refused in (["thaw", "held-1"], ["status"]):
        assert host.run(*command, *refused, user=UPLOADER, check=False).returncode == os.EX_NOPERM
    assert f"frozen by {operator}: wait" in host.run(*groups, "list").stdout
    host.run("rm", "/etc/tmpfiles.d/dittohead-operators.conf")
    host.run("systemd-tmpfiles", "--create", check=False)
