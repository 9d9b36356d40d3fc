"""Any file under the root is damaged while the daemon runs, or while it does not: the others go on."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.cli.daemon_client import DaemonClient
from dittohead.model.errors import DittoheadError, NoSuchJob
from tests.support.daemon import Site, site
from tests.support.damage import DAMAGES

pytestmark = pytest.mark.service

LONG = os.environ.get("LONG_TESTS") == "1"
SEED = int(os.environ.get("DAMAGE_SEED", random.randrange(1 << 32)))

CONFIG = """
root: root
space: {floor: 0}
retry: {first: 100ms, most: 200ms}
watch: {stale_after: 1s, settle: 0}
pipelines:
  bad:
    match: "bad-.*"
    steps:
      - command: {name: make, argv: [sh, -c, 'echo made > x; echo said']}
      - command: {name: fail, argv: [sh, -c, 'echo no; exit 1']}
  long:
    match: "long-.*"
    steps:
      - command: {name: make, argv: [sh, -c, 'echo made > x; echo said']}
      - command: {name: wait, argv: [sh, -c, 'exit 75'], poll: 200ms}
  all:
    match: ".*"
    steps:
      - command: {name: make, argv: [sh, -c, 'echo made > x; echo said']}
      - rsync: {to: "TARGET/{name}/", mkpath: true}
"""

#: (action, its arguments), of jobs.
ACTIONS: list[tuple[str, dict[str, object]]] = [
    ("retry", {}),
    ("rerun", {"from": "make"}),
    ("rerun", {}),
    ("undone", {"what": "it", "good": True}),
    ("freeze", {"reason": "why not"}),
    ("poke", {}),
    ("thaw", {}),
    ("cancel", {}),
]


class Attack:
    """One daemon, and somebody who damages what lies under its root."""

    def __init__(self, here: Site, seed: int) -> None:
        self.here, self.rng = here, random.Random(seed)
        self.root = here.config.parent / "root"
        self.count = 0
        self.done: list[str] = []  #: what was damaged how, for anyone who reads a failure

    def targets(self) -> list[Path]:
        """Return every kind of thing that may be damaged, the store itself left out."""
        found: list[Path] = []
        for pattern in (
            "receipts/*.json",
            "failed/*",
            "done/*",
            "processing/*",
            "work/*/*",
            "state/outside/*",
            "state/ledger/*",
            "state/live.json",
            "state/http.key",
            "state/http-ended.json",
            "state/lock",
            "state/late-look.json",
            "inbox/.*",
        ):
            found += sorted(self.root.glob(pattern))
        return found

    def damage(self, times: int) -> None:
        for _ in range(times):
            path = self.rng.choice(self.targets())
            names = (
                sorted(DAMAGES)
                if path.is_file() and not path.is_symlink()
                else ["a directory", "a FIFO", "gone"]
            )
            name = self.rng.choice(names)
            self.done.append(f"{path.relative_to(self.root)}: {name}")
            with contextlib.suppress(FileNotFoundError):  # moved meanwhile: its job went on
                DAMAGES[name](path, self.rng)

    def damage_a_request(self) -> None:
        """Write a row that no daemon has written."""
        args = self.rng.choice(['{"from": "ma', "[]", "7", "null", '{"from": ["make"]}', "\xff", "[" * 5000])
        action = self.rng.choice(
            ["rerun", "retry", "undone", "freeze", "sync", "resume", "nonsense", "notify-test"]
        )
        job = self.rng.choice(["", "bad-0", "x" * 5000, "\x00", "%", "all-0"])
        self.done.append(f"request {action} of {job[:9]!r}: {args[:9]!r}")
        with (
            contextlib.closing(sqlite3.connect(self.root / "state/dittohead.sqlite3", timeout=30)) as store,
            store,
        ):
            store.execute(
                "INSERT INTO requests (action, job, args, who, at) VALUES (?, ?, ?, 'me', 1.0)",
                (action, job, args),
            )

    def open_requests(self) -> int:
        with contextlib.closing(sqlite3.connect(self.root / "state/dittohead.sqlite3", timeout=30)) as store:
            (count,) = store.execute("SELECT count(*) FROM requests WHERE answer IS NULL").fetchone()
        return int(count)

    def drop(self, kind: str) -> str:
        name = f"{kind}-{self.count}"
        self.count += 1
        self.here.drop(name, {"a.txt": name, "sub": {"b": "b" * 100}})
        return name

    def until_taken(self, names: list[str]) -> None:
        self.here.until(lambda: not any((self.root / "inbox" / name).exists() for name in names))

    def ask_everything(self) -> None:
        """Look at every job and ask everything of some; each answer comes, whatever it is."""
        door = DaemonClient.open(self.root / "state")
        assert door is not None
        try:
            jobs = [job["id"] for job in door.get("/api/v1/jobs")["items"]]
            for job in self.rng.sample(jobs, min(len(jobs), 6)):
                for action, args in self.rng.sample(ACTIONS, 4):
                    said = door.act(action, job, args)
                    assert said is not None, f"{action} of {job} has no answer"
                    assert said.message
            for job in jobs[:20]:
                for place in (f"/api/v1/jobs/{job}", f"/api/v1/jobs/{job}/receipt", f"/jobs/{job}"):
                    with contextlib.suppress(DittoheadError, NoSuchJob):
                        door.get(place)
            door.get("/api/v1/status")
        finally:
            door.close()

    def must_be_well(self) -> None:
        """See that the daemon lives, answers everything, and that an innocent folder is done."""
        name = self.drop("all")
        self.here.until(lambda: self.here._dead() or (self.root / "done" / name).is_dir())
        self.here.until(lambda: self.open_requests() == 0)
        assert (self.here.config.parent / "target" / name / "a.txt").read_text() == name


@pytest.fixture
def attack(tmp_path: Path) -> Iterator[Attack]:
    with site(tmp_path, CONFIG.replace("TARGET", f"{tmp_path}/target")) as here:
        (tmp_path / "target").mkdir()
        made = Attack(here, SEED)
        here.root = made.root
        print(f"DAMAGE_SEED={SEED}")
        try:
            yield made
        finally:
            print("\n".join(made.done[-60:]))


@pytest.mark.timeout(3600 if LONG else 300)
def test_whatever_is_damaged_the_daemon_lives_starts_and_does_the_rest(attack: Attack) -> None:
    """One daemon, many faults; afterwards it stops in good order, and starts on what is left."""
    here = attack.here
    here.start()
    (attack.root / "state/ledger").mkdir(exist_ok=True)
    (attack.root / "state/outside").mkdir(exist_ok=True)
    for round_ in range(60 if LONG else 2):
        dropped = [attack.drop(kind) for kind in ("bad", "all", "long")]
        (attack.root / f"state/outside/01J0000000000000000000000{round_ % 10}.up.jsonl").write_text(
            '{"worker":"upload"}\n'
        )
        (attack.root / f"state/ledger/01J0000000000000000000000{round_ % 10}.up.jsonl").write_text(
            '{"worker":"x"}\n'
        )
        (attack.root / "inbox" / f".up-{round_}").mkdir()
        attack.until_taken(dropped)
        attack.must_be_well()
        for _ in range(3):
            attack.damage(4)
            attack.damage_a_request()
            attack.ask_everything()
        attack.must_be_well()
        if round_ % 2:
            assert here.stop() == 0
        else:
            here.kill()
        attack.damage(4)
        attack.damage_a_request()
        here.start()
        attack.must_be_well()
    for job in here.json("list", "--limit", "3"):
        said = here.run("verify", job["id"], check=False)
        assert "Traceback" not in said.stderr, said.stderr
    assert here.stop() == 0


def test_a_rebuild_takes_the_receipts_that_can_be_read_and_names_the_others(attack: Attack) -> None:
    """One of another's making could have a folder moved out of the root."""
    here = attack.here
    here.start()
    names = [attack.drop("all") for _ in range(len(DAMAGES) + 3)]
    here.until(lambda: len(list((attack.root / "receipts").glob("*.json"))) == len(names))
    assert here.stop() == 0
    receipts = {name: next((attack.root / "receipts").glob(f"{name}.*.json")) for name in names}
    bad = dict(zip(DAMAGES, names, strict=False))
    for damage, name in bad.items():
        DAMAGES[damage](receipts[name], attack.rng)
    forged, twice, good = names[len(DAMAGES) :]
    for key in ("name", "folder"):
        text = receipts[forged].read_text()
        receipts[forged].write_text(text.replace(f'"{key}": "{forged}"', f'"{key}": "../../evil-1"'))
    (attack.root / "receipts/copy.json").write_bytes(receipts[twice].read_bytes())
    for path in (attack.root / "state").glob("dittohead.sqlite3*"):
        path.unlink()
    here.start()
    known = {job["name"] for job in here.json("list", "--limit", "100")}
    assert {good, twice, bad["one more newline"]} <= known
    assert not any("evil" in name for name in known)
    (line,) = here.events("store.rebuilt")
    named = " ".join(event["receipt"] for event in here.events("store.unreadable_receipt"))
    for damage, name in bad.items():
        if damage not in ("gone", "mode 000", "one more newline", "a bit flipped", "cut"):
            assert receipts[name].name in named, damage
    assert receipts[forged].name in named
    assert line["finished"] + line["unreadable"] == len(names)  # one is gone, one there twice
    attack.must_be_well()
    assert here.stop() == 0
