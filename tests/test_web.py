"""The read-only JSON: served by the real daemon, under its own name only."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import site

pytestmark = pytest.mark.service


def get(url: str, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_status_and_jobs_can_be_read(tmp_path: Path) -> None:
    """Health, lists, one job; unknown ones and foreign names are refused as problem details."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    base = f"http://127.0.0.1:{port}"
    config = f"""
        root: .
        http: {{listen: "127.0.0.1:{port}"}}
        space: {{floor: 0}}
        pipelines: {{all: {{match: ".*", steps: [{{command: {{argv: ["true"]}}}}]}}}}
        """
    with site(tmp_path / "root", config) as here:
        here.start()
        here.drop("x<b>", {"a": "1"})
        here.until(lambda: (here.root / "done" / "x<b>").exists())
        assert get(f"{base}/healthz")[1]["ok"] is True
        status, jobs = get(f"{base}/api/v1/jobs?state=done")
        assert (status, [job["name"] for job in jobs]) == (200, ["x<b>"])
        assert get(f"{base}/api/v1/jobs/{jobs[0]['id']}")[1]["all_steps"][0]["state"] == "done"
        assert get(f"{base}/api/v1/status")[1]["live"]["watcher"]["mode"] == "inotify"
        assert get(f"{base}/api/v1/jobs/nobody")[0] == 404
        assert get(f"{base}/api/v1/jobs?state=odd")[0] == 400
        assert get(f"{base}/nowhere")[0] == 404
        assert get(f"{base}/api/v1/jobs", Host="evil.example.org")[0] == 403
