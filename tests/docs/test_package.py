"""The page on packages: its configuration in a daemon, its key, its signature verified as it says."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from dittohead.toolkit.sip import profile
from tests.docs.console import fits, session
from tests.docs.pages import DOCS, blocks
from tests.docs.shell import Shell, command
from tests.support import package
from tests.support.daemon import site

PAGE = DOCS / "package.md"


@pytest.mark.service
@pytest.mark.timeout(240)
def test_a_package_as_the_page_makes_it(tmp_path: Path) -> None:
    """From the folder to the receipt, with Siegfried and all events; then what the page has people type."""
    pytest.importorskip("pygfried")
    schemas = package.schemas(tmp_path)
    (text,) = (block.text for block in blocks(PAGE) if block.language == "yaml")
    shell = Shell(tmp_path / "shell")
    commands = list(session(PAGE))
    for typed in commands[:2]:
        shell.run(typed.command)
    with site(tmp_path / "root", "") as here:
        text = text.replace("/srv/schemas/dpres-xml-schemas", str(schemas))
        here.config.write_text(text.replace("/srv/dittohead", str(here.root)) + "space: {floor: 0}\n")
        credentials = here.config.parent / "credentials"
        credentials.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(shell.home / "signing.pem", credentials / "signing.pem")
        (credentials / "signing.pem").chmod(0o600)
        doctor = command(here.config, "doctor", "--json")
        assert "signing.pem signs; its certificate is valid until" in doctor
        here.start()
        here.drop("object-12", package.folder())
        here.until(lambda: here.events("job.finished") or here.events("job.failed"))
        assert (here.root / "done" / "object-12").exists(), here.root
        (receipt,) = here.receipts("object-12")
        (output,) = (one for one in receipt["outputs"] if one["step"] == "package")
        archive = here.root / "work" / receipt["job"] / "package" / output["path"]
        assert output["path"].endswith(f"_Object_12-{receipt['job']}.tar")
        subprocess.run(["tar", "-xf", archive, "-C", shell.home], check=True)
    for typed in commands[2:]:
        assert fits(typed.shown, shell.run(typed.command).stdout), typed.command
    mets = package.mets_of(shell.home)
    kinds = [e.text for e in mets.iterfind(".//premis:eventType", package.NS)]
    assert kinds[:2] == ["ingestion", "message digest calculation"]
    assert kinds[-2:] == ["format identification", "information package creation"]
    agents = [e.text for e in mets.iterfind(".//premis:agentName", package.NS)]
    assert any(name.startswith("Siegfried 1.") for name in agents)
    assert len(mets.findall(".//mets:file", package.NS)) == 9
    shown = {event["type"] for event in receipt["events"]}
    assert {"packing", "validation", "format identification"} <= shown


def test_the_profile_of_the_page_is_one(tmp_path: Path) -> None:
    (text,) = (block.text for block in blocks(PAGE) if block.language == "json")
    (tmp_path / "p.json").write_text(text)
    assert profile.read(str(tmp_path / "p.json")).problems({"system": "DMS"}) == []
    keys = json.loads(text).keys() | {"top", "outcomes", "schemas", "signature"}
    table = PAGE.read_text().split("| key | meaning |")[1].split("\n\n")[0]
    assert all(f"`{key}`" in table for key in keys - {"name"})


def test_every_profile_is_named() -> None:
    assert all(f"| `{name}` |" in PAGE.read_text() for name in profile.names())
