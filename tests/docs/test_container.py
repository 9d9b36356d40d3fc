"""The container of docs/container.md: what its recipe names is there; where a builder is there, it is built and run."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import DOCS, TOP
from tests.support.ports import free_port

RECIPE = (TOP / "Containerfile").read_text()
EXAMPLE = DOCS / "examples" / "container"
UID = 8140


def packages_of(text: str, after: str) -> set[str]:
    """Return the names of packages that follow a word, up to the end of the command."""
    found = re.search(re.escape(after) + r"((?:[\s\\]+[a-z0-9.+-]+)+)", text)
    assert found is not None, after
    return set(re.sub(r"\\", " ", found[1]).split())


def test_the_image_has_what_the_set_up_installs() -> None:
    """A package that the program needs is in both, or the container lacks it."""
    setup = (TOP / "tools" / "setup").read_text()
    wanted = {
        pair.split(":")[1]
        for name in ("programs", "shared")
        for pair in re.search(rf'^{name}="([^"$]*)"', setup, re.MULTILINE)[1].split()  # type: ignore[index]
    }
    there = packages_of(RECIPE, "--no-install-recommends")
    assert wanted <= there
    assert {"python3", "python3-venv", "tini"} <= there


def test_what_the_recipe_copies_is_tracked_and_not_ignored() -> None:
    """Each source of a COPY is there, and `.containerignore` lets it in."""
    sources = [
        word for line in re.findall(r"^COPY (.*)$", RECIPE, re.MULTILINE) for word in line.split()[:-1]
    ]
    assert "dittohead" in sources
    assert [source for source in sources if not (TOP / source).exists()] == []
    lets_in = [
        line[1:].strip() for line in (TOP / ".containerignore").read_text().splitlines() if line[:1] == "!"
    ]
    assert [source for source in sources if not {source, f"{source}/"} & set(lets_in)] == []


def test_compose_mounts_what_the_configuration_names() -> None:
    """The volume is the root; the published port is the one listened on; the health check asks there."""
    compose = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())
    config = yaml.safe_load((EXAMPLE / "config.yaml").read_text())
    service = compose["services"]["dittohead"]
    port = config["http"]["listen"].rpartition(":")[2]
    assert f"dittohead:{config['root']}" in service["volumes"]
    assert [entry.rpartition(":")[2] for entry in service["ports"]] == [port]
    assert f"http://127.0.0.1:{port}/healthz" in RECIPE
    assert f"VOLUME {config['root']}" in RECIPE
    credentials = {secret["target"] for secret in service["secrets"]}
    assert credentials == {f"/etc/dittohead/credentials/{config['http']['tokens']}"}
    assert set(compose["secrets"]) == {secret["source"] for secret in service["secrets"]}


# -- where a builder is there ------------------------------------------------------------------

needs_builder = pytest.mark.skipif(
    os.geteuid() != 0 or not (shutil.which("buildah") and shutil.which("mmdebstrap")),
    reason="NO IMAGE IS BUILT: needs root, and apt-get install buildah mmdebstrap",
)


class Builder:
    """buildah with a storage of its own, so that nothing is left on the machine."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.begin = [
            "buildah",
            "--root",
            str(base / "images"),
            "--runroot",
            str(base / "run"),
            "--storage-driver",
            "vfs",
        ]

    def __call__(self, *args: str) -> str:
        """Run a command of it and return what it printed last."""
        done = subprocess.run([*self.begin, *args], capture_output=True, text=True, cwd=TOP, check=False)
        assert done.returncode == 0, f"{args[0]}: {(done.stdout + done.stderr)[-3000:]}"
        return (done.stdout.strip().splitlines() or [""])[-1]

    def make_base(self) -> None:
        """Make what the recipe's base image is, from Debian's packages: no registry of images is asked."""
        suite = {"12": "bookworm", "13": "trixie"}[
            re.search(r"^ARG BASE=debian:(\d+)", RECIPE, re.MULTILINE)[1]
        ]  # type: ignore[index]
        system = self.base / "base.tar"
        with open(self.base / "mmdebstrap.log", "wb") as log:
            subprocess.run(
                ["mmdebstrap", "--variant=minbase", suite, str(system)], stdout=log, stderr=log, check=True
            )
        empty = self("from", "scratch")
        self("add", "-q", empty, str(system), "/")
        for place in ("/etc/apt/apt.conf.d", "/usr/local/share/ca-certificates"):
            if os.path.isdir(place) and os.listdir(place):
                self("add", "-q", empty, place, place)
        self("commit", "-q", empty, "localhost/base")
        system.unlink()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Builder]:
    """The image, built as the page says; network and certificates are this machine's."""
    builder = Builder(tmp_path_factory.mktemp("container"))
    builder.make_base()
    given = ["--build-arg", "BASE=localhost/base", "--isolation", "chroot", "--network", "host"]
    if os.path.exists("/etc/pip.conf"):
        given += ["--volume", "/etc/pip.conf:/etc/pip.conf:ro"]
    builder("build", *given, "--format", "docker", "-f", "Containerfile", "-t", "dittohead", ".")
    yield builder
    builder("rm", "--all")
    builder("rmi", "--all", "--force")


class Container:
    """One container of the image, with a volume and a configuration as compose.yaml has them."""

    def __init__(self, builder: Builder, base: Path) -> None:
        self.builder, self.port = builder, free_port()
        about = json.loads(
            subprocess.check_output([*builder.begin, "inspect", "--type", "image", "dittohead"])
        )
        self.config: dict[str, Any] = about["Docker"]["config"]
        self.volume, credentials, conf = base / "volume", base / "credentials", base / "config.yaml"
        self.volume.mkdir()
        os.chown(self.volume, UID, UID)
        credentials.mkdir()
        conf.write_text(self._here((EXAMPLE / "config.yaml").read_text()))
        (credentials / "operators").write_text("")
        self.mounts = [
            *("--volume", f"{conf}:/etc/dittohead/config.yaml:ro"),
            *("--volume", f"{credentials}:/etc/dittohead/credentials:ro"),
            *("--volume", f"{self.volume}:/srv/dittohead"),
        ]
        assert list(self.config["Volumes"]) == ["/srv/dittohead"]
        self.name = builder("from", "localhost/dittohead")
        # Among several mounts this builder's own volume would cover the one given for it.
        builder("config", "--volume", "/srv/dittohead-", self.name)

    def _here(self, text: str) -> str:
        """Return the example for this test: a port that is free, and a step that reaches no other machine."""
        text = re.sub(r"\n    steps:\n(      .*\n)+", "\n    steps: [checksum: {}]\n", text)
        return text.replace("8140", str(self.port))

    def command(self, *argv: str) -> list[str]:
        """Return the line that runs a program in it, as the image's user."""
        begin = [*self.builder.begin, "run", "--isolation", "chroot", *self.mounts]
        return [*begin, "--user", self.config["User"], self.name, "--", *argv]

    def run(self, *argv: str) -> str:
        """Run a program in it and return what it printed."""
        done = subprocess.run(self.command(*argv), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def healthy(self) -> bool:
        """Do what the image's health check does."""
        kind, *argv = self.config["Healthcheck"]["Test"]
        assert kind == "CMD"
        there = self.command(*(word.replace("8140", str(self.port)) for word in argv))
        return subprocess.run(there, capture_output=True, check=False).returncode == 0

    def daemon(self) -> int:
        """Return the daemon's process id on this machine: the child of its tini."""
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                program = argv[1].endswith(b"/dittohead") and b"--log-json" in argv
                if program and entry.stat().st_uid == UID:
                    return int(entry.name)
            except (OSError, IndexError):
                continue
        raise AssertionError("the daemon does not run")


@needs_builder
@pytest.mark.rest
@pytest.mark.timeout(1200)
def test_it_is_built_and_run_as_the_page_says(image: Builder, tmp_path: Path) -> None:
    """Healthy, under its own uid; a folder goes through; a stop ends it well."""
    made = Container(image, tmp_path)
    with open(tmp_path / "log", "wb") as log:
        started = [*made.config["Entrypoint"], *made.config["Cmd"]]
        process = subprocess.Popen(made.command(*started), stdout=log, stderr=log)
    try:
        until(made.healthy, process, tmp_path / "log")
        daemon = made.daemon()
        folder = made.volume / "inbox" / ".lab-1"
        folder.mkdir()
        (folder / "a.txt").write_text("hello")
        for path in (folder, folder / "a.txt"):
            os.chown(path, UID, UID)
        folder.rename(made.volume / "inbox" / "lab-1")
        until((made.volume / "done" / "lab-1").exists, process, tmp_path / "log")
        said = made.run("dittohead", "--config", "/etc/dittohead/config.yaml", "show", "lab-1", "--json")
        assert json.loads(said)["state"] == "done"
        os.kill(daemon, signal.SIGTERM)
        assert process.wait(60) == 0, (tmp_path / "log").read_text()[-2000:]
    finally:
        process.kill()
        process.wait()


def until(true: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for something to be true while a program runs."""
    end = time.monotonic() + 300
    while not true():
        assert process.poll() is None, log.read_text()[-3000:]
        assert time.monotonic() < end, log.read_text()[-3000:]
        time.sleep(0.2)
