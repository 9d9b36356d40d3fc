"""Masters described and copies presented, by the real daemon: what one step made is known to the next."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest

from tests.support import iiif
from tests.support.daemon import site
from tests.support.images import decoded, tiff
from tests.support.trees import tree
from tests.workers.test_describe import exif

pytestmark = pytest.mark.service

CONFIG = """
root: .
space: {{floor: 0}}
pipelines:
  objects:
    match: "(?P<object>.*?)(-(?P<purpose>preservation|access))?"
    steps:
      - convert: {{name: masters, format: jp2, for: preservation}}
      - describe: {{name: described, from: masters, for: preservation}}
      - rsync: {{name: preserve, from: described, to: "{tmp}/masters/{{object}}", mkpath: true, for: preservation}}
      - convert:
          name: tiles
          after: []
          format: iiif-static
          iiif_id: "https://iiif.example.org/{{object}}/{{path}}"
          for: access
      - iiif: {{name: presentation, after: [], tiles: tiles, base: "https://iiif.example.org/{{object}}", for: access}}
      - rsync: {{name: publish-tiles, from: tiles, after: [tiles], to: "{tmp}/site/{{object}}", mkpath: true, for: access}}
      - rsync:
          name: publish
          from: presentation
          after: [publish-tiles]
          to: "{tmp}/site/{{object}}"
          mkpath: true
          for: access
"""


def test_masters_are_described_and_copies_presented(tmp_path: Path) -> None:
    """In one folder whose name needs encoding; the plan names what is then there."""
    folder = {"p10.tif": tiff(300, 200), "p9.tif": tiff(900, 700)}
    with site(tmp_path / "root", CONFIG.format(tmp=tmp_path)) as here:
        here.start()
        planned = here.run("plan", str(tree(tmp_path / "Ä 1", folder))).stdout
        for uri in ("manifest.json", "index.html", "thumbnail.jpg"):
            assert f"https://iiif.example.org/%C3%84%201/{uri}" in "".join(planned.split())
        here.drop("Ä 1", folder)
        here.until(lambda: (here.root / "done" / "Ä 1").exists())
        (receipt,) = here.receipts()
        masters = tmp_path / "masters/Ä 1"
        nine, ten = exif(masters / "p9.jp2", masters / "p10.jp2")
        assert [nine["XMP-dc:Title"], ten["XMP-dc:Title"]] == ["Ä 1 [1/2]", "Ä 1 [2/2]"]
        files = {file["path"]: file["sha256"] for file in receipt["manifest"]["files"]}
        assert nine["XMP-dittohead:OriginalSHA256"] == files["p9.tif"]
        assert nine["XMP-xmpMM:HistoryAction"] == ["converted", "saved"]
        assert np.array_equal(decoded(masters / "p9.jp2"), decoded(here.root / "done/Ä 1/p9.tif"))
        details = {o["path"]: o["detail"] for o in receipt["outputs"] if o["step"] == "described"}
        assert details["p9.jp2"]["lossless"] is True
        assert details["p9.jp2"]["xmp"]["decoded"] is True
        place = tmp_path / "site/Ä 1"
        manifest = iiif.see(json.loads((place / "manifest.json").read_text()))
        base = "https://iiif.example.org/%C3%84%201/"
        assert manifest["id"] == f"{base}manifest.json"
        assert [canvas["width"] for canvas in manifest["items"]] == [900, 300]
        for canvas in manifest["items"]:
            service = canvas["items"][0]["items"][0]["body"]["service"][0]["id"]
            said = json.loads((place / unquote(service.removeprefix(base)) / "info.json").read_text())
            assert said["id"] == service
            for picture in (canvas["thumbnail"][0], canvas["items"][0]["items"][0]["body"]):
                assert (place / unquote(picture["id"].removeprefix(base))).is_file()
        assert here.run("verify", "Ä 1").returncode == 0
        assert here.stop() == 0
