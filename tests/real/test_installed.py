"""The program as it is installed: every page, file and command that needs more than Python modules, from the wheel.

The other tests of the real daemon run from the wheel too (tests/support/wheel.py); these see that it is the wheel.
"""

from __future__ import annotations

import hashlib
import http.cookiejar
import json
import re
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from dittohead.cli import MODULES
from dittohead.config import registry
from dittohead.web.pages.assets import Assets
from tests.support.daemon import Site, site
from tests.support.images import tiff
from tests.support.web_harness import OPERATOR, TOKENS
from tests.support.wheel import TOP, installed, program, tracked

pytestmark = pytest.mark.service

CONFIG = """
root: .
http: {{listen: "127.0.0.1:{port}", tokens: people, read: open}}
space: {{floor: 0}}
pipelines:
  images:
    match: "img-.*"
    steps: [{{convert: {{tile: 64}}}}, {{checksum: {{}}}}, {{rsync: {{from: convert, to: "{root}/delivered/{{name}}", mkpath: true}}}}]
  held: {{match: "held", steps: [{{command: {{argv: [sh, -c, "exit 75"], poll: 1h}}}}]}}
"""


class Reader:
    """Somebody who may do everything, with a browser without scripts."""

    def __init__(self, base: str) -> None:
        self.base = base
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._open = urllib.request.build_opener(cookies).open

    def read(self, path: str, form: dict[str, str] | None = None) -> str:
        data = urlencode(form).encode() if form else None
        request = urllib.request.Request(
            self.base + path, data, {"Origin": self.base, "Accept": "text/html,*/*"}
        )
        with self._open(request, timeout=60) as answer:
            assert answer.status == 200, path
            text: str = answer.read().decode()
            return text


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A daemon with a job that is done, one that failed, and one that waits."""
    root = tmp_path_factory.mktemp("installed") / "root"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    with site(root, CONFIG.format(port=port, root=root)) as made:
        made.forks = False  # this is about the program as users start it
        (root / "credentials").mkdir(mode=0o700)
        (root / "credentials" / "people").write_text(TOKENS)
        made.start()
        made.drop("img-1", {"a.tif": tiff(200, 100), "b.tif": tiff(100, 200)})
        made.drop("nobody wants this", {"a": "1"})
        made.drop("held", {"a": "1"})
        made.until(lambda: (root / "done/img-1").is_dir() and (root / "failed/nobody wants this").is_dir())
        made.until(lambda: (root / "processing/held").is_dir())
        yield made


@pytest.fixture
def reader(here: Site) -> Reader:
    listen = re.search(r'listen: "(.*?)"', here.config.read_text())
    assert listen is not None
    made = Reader(f"http://{listen[1]}")
    made.read("/login", {"token": OPERATOR, "next": "/"})
    return made


def test_the_daemon_is_the_one_of_the_wheel(here: Site) -> None:
    """Nothing of the checkout is on its sys.path, nor on that of its image processes."""
    assert here.process is not None
    command = Path(f"/proc/{here.process.pid}/cmdline").read_bytes().split(b"\0")
    assert str(installed() / "bin" / "dittohead").encode() in command
    script = "import sys, dittohead.web as web; print(web.__file__, *sys.path[1:], sep='\\n')"
    said = subprocess.check_output([installed() / "bin" / "python", "-c", script], cwd=here.root, text=True)
    module, *paths = said.splitlines()
    assert Path(module).is_relative_to(installed())
    holding = [path for path in paths if (Path(path) / "dittohead").is_dir()]
    assert holding == [str(Path(module).parents[2])]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/", "img-1"),
        ("/jobs", "nobody wants this"),
        ("/jobs?state=done", "img-1"),
        ("/jobs/img-1", "b.tif"),
        ("/jobs/img-1/receipt", "sha256"),
        ("/jobs/img-1/steps/convert/log", "convert"),
        ("/jobs/held", "held"),
        ("/jobs/nobody%20wants%20this", "no pipeline"),
        ("/numbers", "<svg"),
        ("/login", 'name="token"'),
        ("/drop", ""),
        ("/api/v1/openapi.json", "openapi"),
        ("/metrics", "dittohead_"),
    ],
)
def test_each_page_is_whole(reader: Reader, path: str, shown: str) -> None:
    """13 templates were missing in every installed copy."""
    assert shown in reader.read(path)


def test_a_page_that_is_not_there_is_told_as_a_page(reader: Reader) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        reader.read("/jobs/nothing-like-it")
    assert caught.value.code == 404
    assert "<html" in caught.value.read().decode()


def test_each_static_file_is_served_as_it_is_tracked(reader: Reader) -> None:
    """Under a name made of its content, so that the page of another version is none of its; so what it imports."""
    kept = [TOP / name for name in tracked() if "/web/pages/static/" in name]
    paths = Assets.load().paths
    assert {path.name for path in kept} == paths.keys()
    for path in kept:
        served = reader.read(paths[path.name])
        assert hashlib.sha256(served.encode()).hexdigest()[:16] == paths[path.name].split(".")[1]
        assert re.sub(r'from "/static/(\w+)\.\w{16}\.js"', r'from "./\1.js"', served) == path.read_text()
    assert re.findall(r"/static/[\w.]+", reader.read("/"))


def test_the_commands_that_read_files_of_the_package_find_them(here: Site, tmp_path: Path) -> None:
    """init.yaml, the migrations, the words of notices, the steps' entry points."""
    new = tmp_path / "new"
    subprocess.run([*program(), "init", new], check=True, capture_output=True, cwd=tmp_path)
    assert "pipelines:" in (new / "config.yaml").read_text()
    said = subprocess.run(
        [*program(), "--config", new / "config.yaml", "doctor"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert "Traceback" not in said.stdout + said.stderr
    known: Any = json.loads(subprocess.check_output([*program(), "schema"], cwd=tmp_path))
    assert set(registry.default().names()) <= set(re.findall(r'"([\w-]+)"', json.dumps(known)))
    assert here.json("verify", "img-1")
    assert here.run("rebuild", "--help").stdout


def test_python_dash_m_is_the_same_program(tmp_path: Path) -> None:
    """And knows all commands."""
    python = installed() / "bin" / "python"
    by_module = subprocess.check_output([python, "-m", "dittohead", "--help"], text=True, cwd=tmp_path)
    assert by_module == subprocess.check_output(
        [installed() / "bin" / "dittohead", "--help"], text=True, cwd=tmp_path
    )
    assert set(MODULES) <= set(by_module.split())
