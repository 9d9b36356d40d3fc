"""What became of a folder, by the daemon's API: claimed, its steps, done or failed."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dittohead_send.errors import DATA, NO_PERMISSION, TEMPORARY, UNAVAILABLE, USAGE, SendError
from dittohead_send.words import plain, visible

#: How often the daemon is asked. Seconds.
_TURN_S = 2.0
#: For one answer. Seconds.
_TIMEOUT_S = 30.0
#: After so many requests in a row without an answer it is given up: 5 minutes.
_GIVE_UP = 150
_ANSWER_MOST = 64 << 20

_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing: the token would go along."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Api:
    """The daemon's API."""

    def __init__(self, url: str, token: str | None) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SendError(
                "this is not the address of a daemon", where=url, hint="Write https://HOST/", status=USAGE
            )
        if token and parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise SendError(
                "the token would go over the network unencrypted",
                where=url,
                hint="Write https://, or reach the daemon through ssh -L",
                status=USAGE,
            )
        self.url = url.rstrip("/")
        self._token = token
        self._opener = urllib.request.build_opener(_NoRedirect)

    def get(self, path: str, **query: str) -> Any:
        """Return an answer; blocking. Raises: SendError: it is refused; OSError: there is none now."""
        address = f"{self.url}/api/v1/{path}"
        request = urllib.request.Request(address + ("?" + urllib.parse.urlencode(query) if query else ""))  # noqa: S310  # http or https
        request.add_header("Accept", "application/json")
        if self._token:
            request.add_header("Authorization", f"Bearer {self._token}")
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as answer:
                return json.loads(answer.read(_ANSWER_MOST))
        except urllib.error.HTTPError as error:
            with error:
                if error.code in (429, 500, 502, 503, 504):
                    raise OSError(0, f"answer {error.code}") from error
                raise self._refused(error) from error
        except ValueError as error:
            raise SendError(
                "the answer is not that of a daemon",
                where=address,
                hint="Check the address",
                status=UNAVAILABLE,
            ) from error

    def _refused(self, error: urllib.error.HTTPError) -> SendError:
        if error.code in (401, 403):
            return SendError(
                "the daemon does not admit this token",
                where=self.url,
                hint="Ask the administrator for one, and give its file with --token-file",
                status=NO_PERMISSION,
            )
        return SendError(
            f"the daemon answered {error.code}", where=self.url, hint="Check the address", status=UNAVAILABLE
        )


def api(url: str, token_file: str | None) -> Api:
    """Return the API that a person named. Raises: SendError."""
    token = None
    if token_file is not None:
        try:
            token = Path(token_file).expanduser().read_text().strip()
        except (OSError, ValueError) as error:
            why = plain(error) if isinstance(error, OSError) else "it is not text"
            raise SendError(
                f"the token cannot be read ({why})", where=visible(token_file), status=USAGE
            ) from error
        if not token.isascii() or not token.isprintable():
            raise SendError("this holds no token", where=visible(token_file), status=USAGE)
    return Api(url, token)


class Follower:
    """Follows one folder. All is blocking; `tell` is given a line for a person."""

    def __init__(
        self, api: Api, name: str, tell: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._api, self._name, self._tell, self._sleep = api, name, tell, sleep
        self._earlier: set[str] = set()
        self._told: set[str] = set()

    def begin(self) -> None:
        """Note which jobs of this name there are before the folder arrives. Raises: SendError."""
        try:
            self._earlier = {job["id"] for job in self._jobs()}
        except OSError as error:
            raise self._silent(error) from error

    def end(self) -> dict[str, Any]:
        """Wait until the job has ended, and return it. Raises: SendError: the daemon does not answer."""
        silent = 0
        job: dict[str, Any] = {}
        while job.get("state") not in ("done", "failed"):
            try:
                job = self._look(job.get("id", ""))
                silent = 0
            except OSError as error:
                silent += 1
                if silent >= _GIVE_UP:
                    raise self._silent(error) from error
            if job.get("state") not in ("done", "failed"):
                self._sleep(_TURN_S)
        return job

    def _jobs(self) -> list[dict[str, Any]]:
        found = self._api.get("jobs", name=self._name, limit="200")["items"]
        return [job for job in found if job["name"] == self._name]

    def _look(self, job_id: str) -> dict[str, Any]:
        if not job_id:
            new = [job for job in self._jobs() if job["id"] not in self._earlier]
            if not new:
                self._tell_held()
                return {}
            job_id = min(job["id"] for job in new)  # ids sort by time
            self._once(f"claimed as job {job_id}")
        job: dict[str, Any] = self._api.get(f"jobs/{urllib.parse.quote(job_id, safe='')}")
        for step in job["all_steps"]:
            if step["state"] == "done":
                self._once(f"step {visible(step['name'])} done")
        if job["state"] in ("paused", "frozen", "waiting") and job["reason"]:
            self._once(f"{job['state']}: {visible(job['reason'])}")
        return job

    def _tell_held(self) -> None:
        held = (self._api.get("status").get("live") or {}).get("held") or {}
        if self._name in held:
            self._once(f"waits in the inbox: {visible(str(held[self._name]))}")

    def _once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._tell(f"{visible(self._name)}: {text}")

    def _silent(self, error: OSError) -> SendError:
        reason = getattr(error, "reason", None)
        why = plain(reason) if isinstance(reason, OSError) else plain(error)
        return SendError(
            f"the daemon does not answer ({why})",
            where=self._api.url,
            hint="Check the address. What was sent stays in the inbox",
            status=TEMPORARY,
        )


def failure(job: dict[str, Any]) -> SendError:
    """Return the error of a job that has failed."""
    return SendError(
        f"the daemon could not process it: {visible(job['reason'])}",
        where=f"{visible(job['name'])}, job {job['id']}",
        status=DATA,
    )
