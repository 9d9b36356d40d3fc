"""What a service knows: packages under way, what it keeps, what it has answered; its clock is virtual."""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.preservation_service import reports
from tests.support.shared import shared

SCHEMAS = shared("dpres-xml-schemas-1.3.0.tar.gz")
LEFT_OUT = f"LEFT OUT: {SCHEMAS} is not there: METS documents and reports are NOT validated"

#: Answers are kept for so long. Source: digitalpreservation.fi.
KEPT = dt.timedelta(days=10)


@dataclass
class Transfer:
    """One package that was handed over, or an upload over REST that is not whole yet."""

    id: str
    name: str
    path: Path
    at: dt.datetime
    over: str  #: "sftp" or "rest"
    length: int = 0  #: of an upload
    status: str = "in_progress"
    ticks: int = 0
    sha256: str = ""
    told: dict[str, Any] = field(default_factory=dict)
    answered: dt.datetime | None = None
    xml: bytes = b""
    html: bytes = b""
    aip: str = ""


@dataclass
class Fault:
    """What goes wrong: `how` at the next `times` calls that `where` fits, after `after` that go well.

    how: a status as "503"; "429:7" with Retry-After; "lost before": the connection breaks, and nothing happens;
    "lost after": it breaks, and everything has happened; "bytes:N": it breaks after N bytes more.
    """

    where: str  #: regular expression on "METHOD PATH", or on the name of a call of SFTP and its path
    how: str
    times: int = 1
    after: int = 0


class _JudgeProcess:
    """A judge, for all services with the same schemas: to make these ready takes seconds."""

    def __init__(self, schemas: Path | None, ca: Path | None) -> None:
        env = dict(os.environ)
        if schemas is not None:
            env["XML_CATALOG_FILES"] = (schemas / "schema_catalogs/catalog_main.xml").as_uri()
        argv = [
            sys.executable,
            "-m",
            "tests.support.preservation_service.judge",
            str(schemas or ""),
            str(ca or ""),
        ]
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
            cwd=Path(__file__).parents[3],
        )
        self._turn = threading.Lock()
        atexit.register(self.close)

    def ask(self, asked: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            found: dict[str, Any] = json.loads(self._process.stdout.readline())
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


_JUDGES: dict[tuple[Path | None, Path | None], _JudgeProcess] = {}


class PreservationService:
    """The state behind both ways in.

    Args:
        base: the home of the user: transfer, accepted, rejected, disseminated.
        ca: certificate that signatures are verified by.
        schemas: the services' schemas, unpacked; None: METS is not validated, and `left_out` says so.
    """

    def __init__(
        self,
        base: Path,
        *,
        contract: str,
        ca: Path | None = None,
        schemas: Path | None = None,
        user: str = "museum",
    ) -> None:
        self.base, self.contract, self.ca, self.schemas, self.user = base, contract, ca, schemas, user
        self.password = "tomorrow's secret"
        self.now = dt.datetime.now(dt.UTC)  #: set forward by `pass_time` alone
        self.left_out = "" if schemas is not None else LEFT_OUT
        if self.left_out:
            print(self.left_out, file=sys.stderr)
        self.transfers: dict[str, Transfer] = {}
        self.kept: dict[str, dict[str, Any]] = {}  #: OBJID -> what is preserved
        self.faults: list[Fault] = []
        self.calls: list[str] = []
        self.handed: Counter[str] = Counter()  #: names, each time one was handed over
        self.complaints: list[str] = []  #: what a client did that it must not
        self.holds = False  #: nothing is worked on
        self.rejects = ""  #: rejects everything, with these words
        self.rejected_names = ""  #: regular expression on the names that it rejects, "" for all
        self._seen: dict[str, int] = {}
        self.lock = threading.RLock()
        self.uploads = base.parent / f"{base.name}.uploads"
        self.uploads.mkdir(parents=True, exist_ok=True)
        for name in ("transfer", "accepted", "rejected", "disseminated"):
            (base / name).mkdir(parents=True, exist_ok=True)

    # -- the clock ---------------------------------------------------------------------------

    def pass_time(self, **delta: float) -> None:
        """Set the clock forward; what has expired goes."""
        with self.lock:
            self.now += dt.timedelta(**delta)
            for verdict in ("accepted", "rejected"):
                for day in (self.base / verdict).iterdir():
                    until = dt.datetime.fromisoformat(day.name).replace(tzinfo=dt.UTC) + KEPT
                    if self.now > until + dt.timedelta(days=1):
                        shutil.rmtree(day)
            for one in list(self.transfers.values()):
                if one.answered is not None and self.now > one.answered + KEPT:
                    del self.transfers[one.id]

    def tick(self, times: int = 1) -> None:
        """Let the service do its next step with each package."""
        for _ in range(times):
            with self.lock:
                if not self.holds:
                    self._collect()
                    for one in list(self.transfers.values()):
                        if one.status == "in_progress":
                            self._work(one)

    def handed_over(self, path: Path) -> None:
        """A file has got its name in transfer/."""
        with self.lock:
            self.handed[path.name] += 1
            self._seen[path.name] = path.stat().st_size

    def _collect(self) -> None:
        for path in sorted((self.base / "transfer").iterdir()):
            if path.name.endswith(".incomplete"):
                continue
            if path.name not in self._seen:
                self.complaints.append(f"{path.name} was written in place, and not renamed")
                self.handed_over(path)
            one = Transfer(str(uuid.uuid4()), path.name, self.uploads / str(uuid.uuid4()), self.now, "sftp")
            shutil.move(path, one.path)
            one.sha256 = hashlib.sha256(one.path.read_bytes()).hexdigest()
            if one.path.stat().st_size != self._seen[path.name]:
                self.complaints.append(f"{path.name} was changed after it was renamed")
            self.transfers[one.id] = one

    def upload_done(self, one: Transfer) -> None:
        """An upload over REST is whole."""
        with self.lock:
            self.handed[one.name] += 1
            one.status, one.at = "in_progress", self.now
            one.sha256 = hashlib.sha256(one.path.read_bytes()).hexdigest()

    def _work(self, one: Transfer) -> None:
        one.ticks += 1
        if one.ticks < 2:
            return
        one.told = self._judged(one)
        if (
            self.rejects
            and re.search(self.rejected_names, one.name)
            and all(not why for _, why in one.told["steps"])
        ):
            one.told["steps"][-1][1] = self.rejects
        failed = any(why for _, why in one.told["steps"])
        one.aip = "" if failed else str(uuid.uuid4())
        one.answered = self.now
        at = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
        one.xml = reports.report(one.name, one.id, one.told, self.user, at, one.aip)
        one.html = reports.html(one.told, one.name)
        if self.schemas is not None:
            reports.check(one.xml, self.schemas)
        if not failed:
            told, before = one.told, self.kept.get(one.told["objid"], {})
            self.kept[told["objid"]] = {
                "aip": one.aip, "created": told["created"], "modified": told["modified"],
                "names": [*before.get("names", []), one.name],
            }  # fmt: skip
        one.status = "rejected" if failed else "accepted"
        if one.over == "sftp":
            self._answer(one)

    def _answer(self, one: Transfer) -> None:
        place = self.base / one.status / self.now.strftime("%Y-%m-%d") / one.name
        place.mkdir(parents=True)
        if one.status == "rejected":
            (place / one.name).mkdir()
            with contextlib.suppress(OSError):
                subprocess.run(
                    ["tar", "-xf", one.path, "-C", place / one.name], check=False, stderr=subprocess.DEVNULL
                )
        stem = f"{one.name}-{one.id}-ingest-report"
        for ending, data in (("html", one.html), ("xml", one.xml)):
            (place / f"new.{ending}").write_bytes(data)
            os.replace(place / f"new.{ending}", place / f"{stem}.{ending}")
        one.path.unlink()

    def _judged(self, one: Transfer) -> dict[str, Any]:
        key = (self.schemas, self.ca)
        if key not in _JUDGES:
            _JUDGES[key] = _JudgeProcess(*key)
        return _JUDGES[key].ask({"path": str(one.path), "contract": self.contract, "known": self.kept})

    # -- faults ------------------------------------------------------------------------------

    def called(self, call: str) -> str:
        """Note a call; return what goes wrong with it, "" for nothing."""
        with self.lock:
            self.calls.append(call)
            for fault in self.faults:
                if fault.times and re.search(fault.where, call):
                    if fault.after:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    return fault.how
        return ""

    @property
    def doubles(self) -> list[str]:
        """Names that were handed over more than once, and objects that are kept twice."""
        twice = [name for name, times in self.handed.items() if times > 1]
        digests = Counter(one.sha256 for one in self.transfers.values() if one.sha256)
        return twice + [digest for digest, times in digests.items() if times > 1]
