"""The page on backups, typed: a machine is lost, and another goes on with what was kept."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, blocks
from tests.docs.shell import Shell
from tests.support.daemon import site
from tests.support.trees import read_tree, tree

pytestmark = [pytest.mark.service, pytest.mark.timeout(240)]

CONFIG = """
root: .
pipelines:
  scans:
    match: "(?P<study>[a-z0-9]+)-.*"
    steps:
      - rsync: {to: "{target}/{study}/{name}/", mkpath: true}
      - command: {argv: [sh, -c, 'test -e "$1" || exit 75', gate, "{gate}"], wait_exit: [75], poll: 200ms}
"""


def test_a_lost_machine_is_made_again_from_what_the_page_keeps(tmp_path: Path) -> None:
    """What was done is known and verified; what was under way is finished; nothing is sent twice."""
    gate, target = tmp_path / "gate", tmp_path / "target"
    config = CONFIG.replace("{target}", str(target)).replace("{gate}", str(gate))
    back_up, restore, look = (block.text for block in blocks(DOCS / "backup.md") if block.language == "sh")
    with site(tmp_path / "root", config) as here:
        shell = Shell(tmp_path / "shell", here.config)
        shell.sudo()

        def words(text: str) -> str:
            kept = text.replace("/etc/dittohead", str(tmp_path / "etc")).replace(
                "/backup", str(tmp_path / "kept")
            )
            return kept.replace("/srv/dittohead", str(here.root))

        tree(tmp_path / "etc", {"config.yaml": "kept"})
        (tmp_path / "kept").mkdir()
        gate.touch()
        here.start()
        here.drop("lab1-run42", {"a": "one"})
        here.until((here.root / "done" / "lab1-run42").exists)
        gate.unlink()
        here.drop("lab1-run43", {"b": "two"})
        here.until(lambda: any(job["state"] == "waiting" for job in here.json("list")))
        before = {job["name"]: job["id"] for job in here.json("list")}
        shell.run(words(back_up))

        here.kill()
        for name in ("inbox", "processing", "done", "failed", "receipts", "state", "work"):
            shutil.rmtree(here.root / name)
        shutil.rmtree(tmp_path / "etc")
        shell.run(words(restore))
        assert (tmp_path / "etc" / "config.yaml").read_text() == "kept"
        gate.touch()
        here.start()
        here.until((here.root / "done" / "lab1-run43").exists)
        said = shell.run(words(look)).stdout
        assert "as in the receipt" in said
        after = {job["name"]: job["id"] for job in here.json("list")}
        assert after["lab1-run42"] == before["lab1-run42"]
        assert set(after) == set(before)
        assert read_tree(target / "lab1") == {b"lab1-run42/a": b"one", b"lab1-run43/b": b"two"}
