"""A batch of folders, the daemon that works on it, and what must hold however often it dies."""

from __future__ import annotations

import json
import os
import random
import secrets
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dittohead.system.process import MARK, sweep
from tests.support.daemon import Site
from tests.support.receivers import Mailbox
from tests.support.s3_server import S3Server
from tests.support.sshd import Sshd
from tests.support.trees import read_tree, tree

TOP = Path(__file__).parent.parent.parent
STATIONS = ("inbox", "processing", "done", "failed")

CONFIG = """
root: .
limits: {{jobs: 5, command: 4, rsync: 3, upload: 3}}
retry: {{first: 10ms, most: 40ms}}
space: {{floor: 0}}
watch: {{interval: 1s}}
pipelines:
  far:
    match: "far-.*"
    steps:
      - command: {{name: first, argv: [sh, -c, '{note}', first]}}
      - rsync: {{name: send, after: [first], to: "{host}:{base}/far/{{name}}", mkpath: true, ssh: {{{ssh}}}}}
      - command: {{name: ask, after: [first], poll: 50ms, argv: [sh, -c, 'test -e asked && exit 0; touch asked; echo not yet; exit 75']}}
      - command: {{name: last, argv: [sh, -c, '{note}', last]}}
  near:
    match: "near-.*"
    steps:
      - checksum: {{}}
      - command: {{name: make, after: [], argv: [sh, -c, '{note}; find "$DITTOHEAD_PAYLOAD" -type f -fprintf count x', make]}}
      - rsync: {{name: store, after: [checksum], to: "{base}/near/{{name}}", mkpath: true}}
      - rsync: {{name: made, from: make, after: [], to: "{base}/made/{{name}}", mkpath: true}}
      - command: {{name: last, argv: [sh, -c, '{note}', last]}}
  cloud:
    match: "cloud-.*"
    steps:
      - command: {{name: first, argv: [sh, -c, '{note}', first]}}
      - upload: {{name: lift, bucket: "{bucket}", prefix: "{{name}}/", endpoint_url: "{store}", part_size: 5MiB}}
      - command: {{name: last, argv: [sh, -c, '{note}', last]}}
  bad:
    match: "bad-.*"
    steps:
      - command: {{name: first, argv: [sh, -c, '{note}', first]}}
      - command: {{name: refuse, argv: ["false"]}}
notify:
  - smtp: {{host: 127.0.0.1, port: {port}, sender: a@example.org, to: [b@example.org], starttls: never}}
    on: [done, failed]
"""


#: Bytes of a file that is uploaded in parts: two of five MiB and a rest.
_LARGE = 11 << 20


def kinds_for(point: str = "upload") -> tuple[str, ...]:
    """Return kinds of folders of which one comes to a point; large ones only where they are needed."""
    return ("far", "near", "bad", "cloud") if point.startswith("upload") else ("far", "near", "bad")


@dataclass
class Batch:
    """What was dropped, and what has been seen of it."""

    site: Site
    base: Path  #: outside the root, on a disk that is never cut: targets, ledger
    mailbox: Mailbox
    store: S3Server
    bucket: str
    chance: random.Random
    dropped: dict[str, dict[bytes, bytes]] = field(default_factory=dict)
    done_steps: dict[tuple[str, str], int] = field(default_factory=dict)  #: its lines in the ledger
    reruns: int = 0

    @classmethod
    def make(
        cls, root: Path, base: Path, server: Sshd, mailbox: Mailbox, store: S3Server, seed: int
    ) -> Batch:
        """Write the configuration; nothing is started."""
        base.mkdir(parents=True, exist_ok=True)
        ssh = ", ".join(f"{key}: {value}" for key, value in server.options.items())
        note = f'echo "$DITTOHEAD_JOB $0" >> {base}/ledger'
        bucket = f"crash-{secrets.token_hex(4)}"  # what moto keeps is the process's, not the server's
        store.client().create_bucket(Bucket=bucket)
        config = CONFIG.format(
            bucket=bucket, note=note, host=server.host, base=base, ssh=ssh, port=mailbox.port, store=store.url
        )
        site = Site(root, config)
        site.log = base / "daemon.log"  # not on the disk that is cut
        site.arm("", MORTAL_REACHED=str(base / "reached"))
        site.env |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        return cls(site, base, mailbox, store, bucket, random.Random(seed))

    # -- people ------------------------------------------------------------------------------

    def drop(self, kind: str = "") -> str:
        """Upload a folder of some size, made durable as `dittohead drop` does."""
        kind = kind or self.chance.choice(["far", "far", "near", "near", "cloud", "cloud", "bad"])
        name = f"{kind}-{len(self.dropped):04}"
        sizes = [self.chance.choice([0, 10, 5_000, 300_000]) for _ in range(self.chance.randint(1, 6))]
        sizes[0] = max(sizes[0], 10)
        what: dict[str | bytes, Any] = {
            f"{i:02}.bin": self.chance.randbytes(size) for i, size in enumerate(sizes)
        }
        what["sub"] = {"note é.txt": name}
        if kind == "cloud":
            what["large.bin"] = self.chance.randbytes(_LARGE)
        hidden = tree(self.site.root / "inbox" / f".{name}", what)
        self.dropped[name] = read_tree(hidden)
        _sync(self.site.root)
        hidden.rename(hidden.with_name(name))
        _sync(self.site.root)
        return name

    def rerun(self) -> bool:
        """Move a folder back to the inbox, as admins do; return whether there was one."""
        found = [(s, name) for s in ("done", "failed") for name in self.where()[s]]
        if not found:
            return False
        station, name = self.chance.choice(found)
        (self.site.root / station / name).rename(self.site.root / "inbox" / name)
        self.reruns += 1
        return True

    # -- what is there -----------------------------------------------------------------------

    def where(self) -> dict[str, list[str]]:
        """Return the folders in each station."""
        return {station: self._in(self.site.root / station) for station in STATIONS}

    def _in(self, station: Path) -> list[str]:
        if not station.exists():  # killed before it was made
            return []
        return [entry.name for entry in os.scandir(station) if entry.is_dir() and entry.name[0] != "."]

    def unfinished(self) -> int:
        """Return how many folders are on their way."""
        found = self.where()
        return len(found["inbox"]) + len(found["processing"])

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """Ask a copy of the store, so that looking does not fix what the daemon is to fix."""
        state = self.site.root / "state"
        with tempfile.TemporaryDirectory() as copy:
            for suffix in ("", "-wal"):
                if (state / f"dittohead.sqlite3{suffix}").exists():
                    shutil.copy(state / f"dittohead.sqlite3{suffix}", copy)
            connection = sqlite3.connect(Path(copy) / "dittohead.sqlite3")
            try:
                return connection.execute(query).fetchall()
            except sqlite3.OperationalError:  # killed before the first table was made
                return []
            finally:
                connection.close()

    def ledger(self) -> Counter[tuple[str, str]]:
        """Return how often each command step ran, by (job, step)."""
        path = self.base / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        return Counter((job, step) for job, step in map(str.split, lines))

    # -- what must hold ----------------------------------------------------------------------

    def check_now(self, *, bytes_of: int = 8) -> None:
        """Right after a death: each folder in exactly one station, whole; no finished step ran again.

        No job is frozen for deaths that it did not cause.
        """
        found = self.where()
        places = Counter(name for names in found.values() for name in names)
        expected = Counter(list(self.dropped))
        assert places == expected, (places - expected, expected - places)
        station = {name: s for s, names in found.items() for name in names}
        for name in self.chance.sample(sorted(self.dropped), min(bytes_of, len(self.dropped))):
            assert read_tree(self.site.root / station[name] / name) == self.dropped[name], name
        assert self.rows("SELECT id FROM jobs WHERE state = 'frozen'") == []  # none of them is a cause
        ran = self.ledger()
        for job, step in self.rows("SELECT job_id, name FROM steps WHERE state = 'done'"):
            known = self.done_steps.setdefault((job, step), ran[job, step])
            assert ran[job, step] == known, f"step {step} of {job} was done and ran again"

    def check_end(self) -> None:
        """When all is quiet: every promise, for every folder."""
        self.check_now(bytes_of=len(self.dropped))
        found = self.where()
        assert found["inbox"] == found["processing"] == []
        for name in self.dropped:
            assert name in found["failed" if name.startswith("bad") else "done"], name
        jobs = self.rows("SELECT id, name, state, station FROM jobs")
        assert len(jobs) == len(self.dropped) + self.reruns
        for job, name, state, station in jobs:
            assert state == station == ("failed" if name.startswith("bad") else "done"), job
        self._check_receipts([job for job, *_ in jobs])
        self._check_deliveries()
        self._check_store()
        self._check_notices([job for job, *_ in jobs])
        leftovers = [p for p in (self.site.root / "work").iterdir() if p.name not in {j for j, *_ in jobs}]
        assert leftovers == []

    def _check_receipts(self, jobs: list[str]) -> None:
        written = sorted(os.listdir(self.site.root / "receipts"))
        assert sorted(name.rsplit(".", 2)[1] for name in written) == sorted(jobs)
        for file in written:
            receipt = json.loads((self.site.root / "receipts" / file).read_bytes())
            listed = {f["path"].encode(): f["size"] for f in receipt["manifest"]["files"]}
            assert listed == {path: len(data) for path, data in self.dropped[receipt["name"]].items()}
            delivered = Counter((place["step"], place["path"]) for place in receipt["locations"])
            assert set(delivered.values()) <= {1}
            steps = {"far": ["send"], "near": ["store"], "cloud": ["lift"], "bad": []}[receipt["pipeline"]]
            assert {p for s, p in delivered if s in steps} == (
                {p.decode() for p in listed} if steps else set()
            )
            kinds = Counter((event["step"], event["type"]) for event in receipt["events"])
            for kind in ("ingestion start", "message digest calculation", "ingestion end"):
                assert kinds["", kind] == 1, kind
            assert {kinds[step, "replication"] for step in steps} <= {1}

    def _check_deliveries(self) -> None:
        for place, kind in (("far", "far"), ("near", "near")):
            expected = {
                f"{name}/".encode() + path: data
                for name, files in self.dropped.items()
                if name.startswith(kind)
                for path, data in files.items()
            }
            there = read_tree(self.base / place)
            assert there.keys() == expected.keys(), sorted(there.keys() ^ expected.keys())
            assert there == expected
        counts = read_tree(self.base / "made")
        assert {path.split(b"/")[0].decode() for path in counts} == {
            name for name in self.dropped if name.startswith("near")
        }
        for path, data in counts.items():
            assert len(data) == len(self.dropped[path.split(b"/")[0].decode()])

    def _check_store(self) -> None:
        client = self.store.client()
        expected = {
            f"{name}/".encode() + path: data
            for name, files in self.dropped.items()
            if name.startswith("cloud")
            for path, data in files.items()
        }
        listed = client.list_objects_v2(Bucket=self.bucket).get("Contents", [])
        there = {
            item["Key"].encode(): client.get_object(Bucket=self.bucket, Key=item["Key"])["Body"].read()
            for item in listed
        }
        assert there.keys() == expected.keys(), sorted(there.keys() ^ expected.keys())
        assert there == expected
        assert client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", []) == []
        assert set(self.store.parts_kept.values()) <= {1}  # no part that the store had was sent again
        assert list((self.site.root / "state").glob("outside/*")) == []

    def _check_notices(self, jobs: list[str]) -> None:
        rows = {row[0]: row[1:] for row in self.rows("SELECT id, job_id, event, state, subject FROM outbox")}
        assert sorted(job for job, *_ in rows.values()) == sorted(jobs)
        assert {state for _, _, state, _ in rows.values()} == {"sent"}
        received = Counter(mail["X-Dittohead-Notice"] for mail in self.mailbox.mails)
        assert set(received) == set(rows), set(received) ^ set(rows)
        for mail in self.mailbox.mails:
            assert mail["Subject"] == rows[mail["X-Dittohead-Notice"]][3]

    # -- lives and deaths --------------------------------------------------------------------

    def start(self, dies: str = "") -> None:
        """Start the daemon, armed to die at a fault point ("POINT:N:HOW") or not."""
        self.site.env["MORTAL_DIES"] = dies
        self.site.start(wait=False)

    def live(self, seconds: float) -> bool:
        """Let it live for this long; return whether it has died by itself."""
        assert self.site.process is not None
        try:
            self.site.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        # SIGBUS: without power, memory mapped from the disk may be touched before the kill arrives.
        ends = (-signal.SIGKILL, -signal.SIGBUS)
        assert self.site.process.returncode in ends, self.site.log.read_text()[-3000:]
        return True

    def kill(self, *, group: bool) -> None:
        """Kill the daemon, and with `group` all it has started."""
        assert self.site.process is not None
        if self.site.process.poll() is None:
            self.site.process.kill()
            self.site.process.wait()
        if group:
            sweep(self.site.root.resolve())

    def kill_a_child(self) -> bool:
        """Kill one of the programs the daemon runs now; return whether there was one."""
        mark = f"{MARK}={self.site.root.resolve()}".encode()
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                if mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                    found.append(int(pid))
            except OSError:
                continue
        if not found:
            return False
        try:
            os.kill(self.chance.choice(found), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True

    def live_in_peace(self, patience_s: float) -> None:
        """Let it live until all that is on its way has ended: those who met many deaths go one by one."""
        self.start()
        self.site.until(lambda: self.unfinished() == 0 or self.live(0), patience_s)
        assert self.site.process is not None
        assert self.site.process.poll() is None, self.site.log.read_text()[-3000:]

    def to_the_end(self, patience_s: float = 120) -> None:
        """Run without any death until everything has ended and told; then check it all."""
        self.live_in_peace(patience_s)
        self.site.until(
            lambda: (
                not self.rows("SELECT id FROM jobs WHERE station = 'processing'")
                and not self.rows("SELECT id FROM outbox WHERE state = 'due'")
            ),
            patience_s,
        )
        assert self.site.stop() == 0
        self.check_end()


def _sync(path: Path) -> None:
    from dittohead.system.files import sync_filesystem

    sync_filesystem(path)
