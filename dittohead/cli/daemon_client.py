"""The way to a running daemon: HTTP on its own socket in state/, for whom its permissions let in."""

from __future__ import annotations

import base64
import http.client
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote, urlencode

from dittohead.cli.base import TEMPORARY
from dittohead.cli.terminal import fail
from dittohead.model.errors import ConfigError, DittoheadError, NoSuchJob
from dittohead.model.records import RequestAnswer
from dittohead.system.control_socket import CONFIGURATION, connect

#: Longer than the daemon itself waits for the answer to a request.
_ANSWER_S = 60.0

#: For an answer that rests on many places outside.
_EXAMINED_S = 600.0

#: Bytes of an answer that are read at once.
_PIECE = 1 << 16

_SOURCE_ACTIONS = (
    "sync",
    "reset",
    *(f"source-{word}" for word in ("pause", "resume", "tell", "hold", "thaw", "refetch", "check")),
)
_ON_NOTICES = "notify-"


class _Connection(http.client.HTTPConnection):
    """A connection to a unix socket."""

    def __init__(self, state: Path) -> None:
        super().__init__("localhost", timeout=_ANSWER_S)
        self._state = state

    def connect(self) -> None:
        """Connect. Raises: OSError: nobody listens, or this user may not."""
        self.sock = connect(self._state)
        self.sock.settimeout(_ANSWER_S)

    def patient(self, seconds: float) -> None:
        """Wait for this long for each answer that follows."""
        self.timeout = seconds
        if self.sock is not None:
            self.sock.settimeout(seconds)


class DaemonClient:
    """A running daemon, asked for one thing after another."""

    def __init__(self, connection: _Connection, heard: Callable[[str], None]) -> None:
        self._connection, self._heard = connection, heard

    @classmethod
    def open(cls, state: Path, *, heard: Callable[[str], None] = lambda digest: None) -> DaemonClient | None:
        """Return the daemon of a root; None where none listens, or where this user may not ask it.

        Args:
            heard: is called at each answer with the SHA-256 of the configuration that the daemon goes by.
        """
        connection = _Connection(state)
        try:
            connection.connect()
        except OSError:
            return None
        return cls(connection, heard)

    def close(self) -> None:
        """Let it go."""
        self._connection.close()

    def examine(self) -> list[dict[str, str]]:
        """Have the daemon look at its surroundings; each place may keep it waiting for a while."""
        self._connection.patient(_EXAMINED_S)
        status, said = self._ask("POST", "/api/v1/doctor", {})
        if status != 200:
            raise _refused(said)
        found: list[dict[str, str]] = said["findings"]
        return found

    def reload(self) -> str:
        """Have the daemon read its configuration again. Raises: ConfigError: it refuses it, with why."""
        status, said = self._ask("POST", "/api/v1/reload", {})
        if status == 409:
            problems = tuple(ConfigError(line) for line in said["detail"].splitlines())
            raise ConfigError("the daemon keeps its configuration", problems=problems)
        if status != 200:
            raise _refused(said)
        message: str = said["message"]
        return message

    def get(self, path: str, **query: Any) -> Any:
        """Return the JSON of an answer. Raises: NoSuchJob; DittoheadError: any other refusal."""
        asked = {key: value for key, value in query.items() if value not in (None, "", [], ())}
        status, said = self._ask("GET", f"{path}?{urlencode(asked, doseq=True)}" if asked else path)
        if status == 404:
            raise NoSuchJob(said["detail"])
        if status != 200:
            raise _refused(said)
        return said

    def act(self, action: str, of: str, args: dict[str, Any]) -> RequestAnswer | None:
        """Ask for an action; return its answer, None where it is not answered yet.

        Args:
            action: such as "retry"; "source-..." for sources and "notify-..." for receivers.
            of: the job's id, the source, the batch or the rule that it is about.
            args: the action's own arguments, as JSON.
        """
        kind = "sources" if action in _SOURCE_ACTIONS else "jobs"
        path = f"/api/v1/{kind}/{segment(of)}/{action.removeprefix('source-')}"
        if action == "retry-batch":
            path = f"/api/v1/batches/{segment(of)}/retry"
        if action.startswith(_ON_NOTICES):
            path, args = f"/api/v1/notices/{action.removeprefix(_ON_NOTICES)}", {"rule": of}
        status, said = self._ask("POST", path, args)
        if status == 202:
            return None
        if status == 200:
            return RequestAnswer(ok=True, message=said["message"])
        return RequestAnswer(ok=False, message=said["detail"], missing=status == 404)

    def offer(self, job: str, path: str, encoding: str, new: IO[bytes], digest: str) -> dict[str, Any]:
        """Send a file that is to stand in for one of a failed folder; return what came of it.

        Args:
            digest: its SHA-256, in hex.
        """
        query = urlencode({"path": path, "encoding": encoding})
        counted = base64.b64encode(bytes.fromhex(digest)).decode()
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(os.fstat(new.fileno()).st_size),
            "Content-Digest": f"sha-256=:{counted}:",
        }
        self._connection.patient(_EXAMINED_S)
        response = self._send("PUT", f"/api/v1/jobs/{segment(job)}/replacements?{query}", new, headers)
        said = self._read(response, path)
        if response.status == 404:
            raise NoSuchJob(said["detail"])
        if response.status != 201:
            raise _refused(said)
        found: dict[str, Any] = said
        return found

    def verify(self, job: str) -> Iterator[dict[str, Any]]:
        """Have the daemon compare a job's receipt with everything; yield what it says, to the last.

        Raises: NoSuchJob; DittoheadError: it cannot, or went away.
        """
        path = f"/api/v1/jobs/{segment(job)}/verify"
        response = self._send("POST", path, "{}", {"Content-Type": "application/json"})
        if response.status != 200:
            said = self._read(response, path)
            raise NoSuchJob(said["detail"]) if response.status == 404 else _refused(said)
        try:
            for line in response:
                yield json.loads(line)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise DittoheadError("the daemon went away before it had compared everything") from error

    def log(self, job: str, step: str, start: int) -> Iterator[bytes]:
        """Yield what a step has printed, from a byte on; nothing where there is no more yet.

        Args:
            job: the job's id.
            step: the step's name.
            start: offset of the first byte, from 0.
        """
        path = f"/api/v1/jobs/{segment(job)}/steps/{segment(step)}/log"
        response = self._send("GET", path, headers={"Range": f"bytes={start}-"})
        good = response.status == 206 or (response.status == 200 and start == 0)
        while piece := response.read(_PIECE):
            if good:
                yield piece

    def _ask(self, method: str, path: str, fields: Any = None) -> tuple[int, Any]:
        body = None if fields is None else json.dumps(fields)
        headers = {} if body is None else {"Content-Type": "application/json"}
        response = self._send(method, path, body, headers)
        return response.status, self._read(response, path)

    def _read(self, response: http.client.HTTPResponse, path: str) -> Any:
        try:
            return json.loads(response.read())
        except (ValueError, RecursionError) as error:
            raise DittoheadError("the daemon's answer is not JSON", where=path) from error

    def _send(
        self,
        method: str,
        path: str,
        body: str | IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        try:
            self._connection.request(method, path, body, headers or {})
            response = self._connection.getresponse()
        except TimeoutError:
            fail("the daemon has not answered yet; it will carry this out: dittohead status", TEMPORARY)
        except (OSError, http.client.HTTPException) as error:
            raise DittoheadError(
                f"the daemon went away before it answered ({error})", hint="See: dittohead status"
            ) from error
        self._heard(response.headers.get(CONFIGURATION, ""))
        return response


def segment(text: str) -> str:
    """Return a name as one part of a path, whatever it holds."""
    quoted = quote(text, safe="", errors="surrogateescape")  # bytes of the shell that are not UTF-8 stay so
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def _refused(said: Any) -> DittoheadError:
    return DittoheadError(said.get("detail", "refused"), hint=said.get("hint", ""))
