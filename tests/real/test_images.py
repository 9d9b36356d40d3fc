"""Images through the real daemon: what convert makes is delivered, recorded and verified file by file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.daemon import site
from tests.support.images import decoded, jpeg, tiff
from tests.support.trees import read_tree

pytestmark = pytest.mark.service

CONFIG = """
root: .
space: {{floor: 0}}
pipelines:
  all:
    match: "(?P<study>[a-z]+)-.*"
    steps:
      - convert: {{format: iiif-static, name: tiles, iiif_id: "https://iiif.example.org/{{study}}/{{name}}/{{path}}"}}
      - convert:
          name: web
          format: jpeg
          max_width: 600
          sizes: [{{sidecar: .copyright, max_width: 84, max_height: 56}}]
      - rsync: {{name: to-iiif, from: tiles, to: "{tmp}/iiif/{{study}}/{{name}}", mkpath: true}}
      - rsync: {{name: to-web, from: web, to: "{tmp}/web/{{name}}", mkpath: true}}
"""


def test_tiles_and_derivatives_are_delivered_and_verified(tmp_path: Path) -> None:
    """Two convert steps on one folder, their results sent on; ids name the place they are sent to."""
    with site(tmp_path / "root", CONFIG.format(tmp=tmp_path)) as here:
        here.start()
        here.drop("lab-x", {"a b.tif": tiff(900, 700), "sub": {"c.jpg": jpeg(500, 400), "c.copyright": ""}})
        here.until(lambda: (here.root / "done" / "lab-x").exists())
        (receipt,) = here.receipts()
        outputs = {output["path"] for output in receipt["outputs"] if output["step"] == "tiles"}
        there = tmp_path / "iiif/lab/lab-x"
        assert {path.decode() for path in read_tree(there)} == outputs
        assert json.loads((there / "a b.iiif/info.json").read_text())["id"] == (
            "https://iiif.example.org/lab/lab-x/a%20b.iiif"
        )
        assert decoded(there / "sub/c.iiif/full/max/0/default.jpg").shape == (400, 500, 3)
        sizes = {
            str(p.relative_to(tmp_path / "web/lab-x")): decoded(p).shape[:2]
            for p in tmp_path.glob("web/**/*.jpg")
        }
        assert sizes == {"a b.jpg": (467, 600), "sub/c.jpg": (56, 70)}
        assert here.run("verify", "lab-x").returncode == 0
        assert here.stop() == 0


def test_what_cannot_be_is_said_with_its_line(tmp_path: Path) -> None:
    """As every error of config.yaml."""
    text = CONFIG.format(tmp=tmp_path).replace("max_width: 600", "max_width: 600\n          quality: 0")
    with site(tmp_path / "root", text.replace("sidecar: .copyright", "sidecar: a/b")) as here:
        said = here.run("check", check=False)
        assert said.returncode == 78
        assert "config.yaml:14:29: " in said.stderr
        assert "a file's name is required, without a folder" in said.stderr
