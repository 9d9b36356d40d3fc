"""identify: whether files are well-formed and valid, as the real programs say that know their formats."""

from __future__ import annotations

import json
import os
import sys
import wave
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dittohead.config.loader import load
from dittohead.contract import placeholders
from dittohead.model.errors import ConfigError, ItemError
from dittohead.workers.identify import wellformed
from dittohead.workers.identify.wellformed import Check
from dittohead.workers.identify.worker import IdentifyOptions, IdentifyWorker
from tests.support.context import LoneContext
from tests.support.trees import tree

pytestmark = pytest.mark.service

#: A PDF of one empty page, written by hand. Source: ISO 32000-1, annex H.2.
_OBJECTS = (
    b"<</Type/Catalog/Pages 2 0 R>>",
    b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
    b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]/Resources<<>>>>",
)


def pdf() -> bytes:
    out, places = b"%PDF-1.4\n", []
    for number, text in enumerate(_OBJECTS, 1):
        places.append(len(out))
        out += b"%d 0 obj%s endobj\n" % (number, text)
    rows = b"".join(b"%010d 00000 n \n" % place for place in places)
    table = b"xref\n0 4\n0000000000 65535 f \n" + rows
    return out + table + b"trailer<</Root 1 0 R/Size 4>>\nstartxref\n%d\n%%%%EOF\n" % len(out)


def sound(path: Path) -> bytes:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(bytes(16_000))
    return path.read_bytes()


def options(*checks: dict[str, Any], **more: Any) -> IdentifyOptions:
    return IdentifyOptions.model_validate({"wellformed": list(checks), **more})


def listed(ctx: LoneContext) -> dict[str, list[tuple[str, str]]]:
    """Return what each program said of each file that one was asked about."""
    found = json.loads((ctx.work / "formats.json").read_text())["files"]
    return {
        one["path"]: [(said["tool"], said["judgement"]) for said in one["wellformed"]]
        for one in found
        if "wellformed" in one
    }


async def test_each_program_tells_good_files_from_bad_ones(tmp_path: Path) -> None:
    """Files that other programs made, and the same cut off; each is asked about its own formats only."""
    whole = sound(tmp_path / "sound")
    files: dict[str | bytes, Any] = {
        "good.pdf": pdf(),
        "bad.pdf": pdf()[:150],
        "good.xml": b"<?xml version='1.0'?><a><b/></a>",
        "bad.xml": b"<?xml version='1.0'?><a><b></a>",
        "bomb.xml": _bomb(),
        "good.wav": whole,
        "bad.wav": whole[:5000],
        "note.txt": b"text",
    }
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", files))
    with pytest.raises(ItemError) as told:
        await IdentifyWorker().run(ctx, options({"tool": "qpdf"}, {"tool": "xmllint"}, {"tool": "mediainfo"}))
    assert listed(ctx) == {
        "bad.pdf": [("qpdf", "invalid")],
        "bad.wav": [("mediainfo", "invalid")],
        "bad.xml": [("xmllint", "invalid")],
        "bomb.xml": [("xmllint", "invalid")],
        "good.pdf": [("qpdf", "valid")],
        "good.wav": [("mediainfo", "valid")],
        "good.xml": [("xmllint", "valid")],
    }
    assert "4 files not valid" in str(told.value)
    assert set(told.value.files) == {"bad.pdf", "bad.wav", "bad.xml", "bomb.xml"}
    assert not told.value.good
    events = {event.agent.split()[0]: event for event in ctx.events if event.type == "validation"}
    assert {tool: event.outcome for tool, event in events.items()} == dict.fromkeys(events, "failure")
    assert set(events) == {"qpdf", "xmllint", "mediainfo"}
    assert events["qpdf"].detail.startswith("2 files: 1 valid, 1 invalid: bad.pdf: invalid: ")
    assert events["qpdf"].agent.split()[1][0].isdigit()
    assert "/proc/" not in events["qpdf"].detail


def _bomb() -> bytes:
    """Return the XML that grows a billionfold. Source: the "billion laughs" of public reports."""
    lines = [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)]
    return f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a0 "ha">{"".join(lines)}]><x>&a9;</x>'.encode()


async def test_jpylyzer_and_exiftool_look_at_images(tmp_path: Path) -> None:
    """A real JP2 of OpenJPEG's own program, and halves."""
    import subprocess

    from PIL import Image

    Image.new("RGB", (64, 48), (9, 99, 199)).save(tmp_path / "a.tif")
    made = ["opj_compress", "-i", str(tmp_path / "a.tif"), "-o", str(tmp_path / "a.jp2")]
    subprocess.run(made, check=True, capture_output=True)
    jp2, tif = (tmp_path / "a.jp2").read_bytes(), (tmp_path / "a.tif").read_bytes()
    files: dict[str | bytes, Any] = {
        "bad.jp2": jp2[: len(jp2) // 2], "bad.tif": tif[:200], "good.jp2": jp2, "good.tif": tif,
    }  # fmt: skip
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", files))
    with pytest.raises(ItemError, match=r"1 file not valid: bad\.jp2: jpylyzer: failed: "):
        await IdentifyWorker().run(ctx, options({"tool": "jpylyzer"}, {"tool": "exiftool"}))
    found = listed(ctx)
    assert found["good.jp2"] == [("jpylyzer", "valid")]
    assert found["bad.jp2"] == [("jpylyzer", "invalid")]
    assert found["good.tif"][0][1] in ("valid", "warning")
    assert found["bad.tif"][0][1] in ("warning", "invalid")


async def test_an_invalid_file_may_be_a_warning(tmp_path: Path) -> None:
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", {"bad.xml": b"<?xml version='1.0'?><a>"}))
    await IdentifyWorker().run(ctx, options({"tool": "xmllint", "invalid": "warn"}))
    (event,) = (event for event in ctx.events if event.type == "validation")
    assert event.outcome == "failure"
    assert ctx.outputs[0].detail["wellformed"] == {"xmllint": {"invalid": 1}}


def own(program: str, **more: Any) -> dict[str, Any]:
    return {"name": "own", "argv": [sys.executable, "-c", program, "{file}"], "extension": "dat", **more}


async def test_a_program_of_the_sites_own_says_by_its_exit_status(tmp_path: Path) -> None:
    """It reads the open file, whatever the name is like; it may have a status for warnings."""
    names: dict[str | bytes, Any] = {
        b"-rf \xff\n.dat": b"0", "b.dat": b"3", "c.dat": b"4", "d.txt": b"4", "e.dat": b"0",
    }  # fmt: skip
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", names))
    program = "import sys; text = open(sys.argv[1]).read(); print('said', text); sys.exit(int(text))"
    with pytest.raises(ItemError, match=r"1 file not valid: c\.dat: own: said 4"):
        await IdentifyWorker().run(ctx, options(own(program, warns=[3])))
    assert sorted(judgement for ((_, judgement),) in listed(ctx).values()) == [
        "invalid",
        "valid",
        "valid",
        "warning",
    ]


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import time; time.sleep(600)", "it took longer than 0.5 s"),
        ("import os; os.kill(os.getpid(), 9)", "own was ended by signal 9"),
    ],
)
async def test_a_program_that_hangs_or_dies_has_not_checked_the_file(
    tmp_path: Path, program: str, said: str
) -> None:
    """So the folder is not called bad; the other files are checked all the same."""
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", {"a.dat": b"", "b.xml": b"<?xml version='1.0'?><a/>"}))
    with pytest.raises(ItemError) as told:
        await IdentifyWorker().run(ctx, options(own(program, timeout=0.5), {"tool": "xmllint"}))
    assert f"1 file could not be checked: a.dat: own: {said}" in str(told.value)
    assert told.value.good
    assert "dittohead retry" in str(told.value)
    assert listed(ctx) == {"a.dat": [("own", "unknown")], "b.xml": [("xmllint", "valid")]}


async def test_a_file_that_became_a_link_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree(tmp_path / "vol", {"a.dat": b"1"})
    ctx = LoneContext(tmp_path, folder)
    real = wellformed.Checker.of

    async def swapped(self: Any, path: bytes, found: Any) -> Any:
        (folder / "a.dat").unlink()
        (folder / "a.dat").symlink_to("/etc/passwd")
        return await real(self, path, found)

    monkeypatch.setattr(wellformed.Checker, "of", swapped)
    with pytest.raises(ItemError, match="1 file could not be checked: a.dat: own: .*not a regular file"):
        await IdentifyWorker().run(ctx, options(own("print('read')")))


async def test_no_more_programs_run_at_once_than_parallel_says(tmp_path: Path) -> None:
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", {f"{n}.dat": b"" for n in range(8)}))
    marks = tmp_path / "marks"
    marks.mkdir()
    program = (
        "import os, sys; os.close(os.open(f'MARKS/{{os.getpid()}}', os.O_CREAT)); "
        "n = len(os.listdir('MARKS')); os.unlink(f'MARKS/{{os.getpid()}}'); sys.exit(n > 3)"
    ).replace("MARKS", str(marks))
    await IdentifyWorker().run(ctx, options(own(program), parallel=3))
    assert len(listed(ctx)) == 8


def test_a_program_that_is_missing_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wellformed.shutil, "which", lambda name: None)
    assert Check(tool="qpdf").missing() == "qpdf is not installed; type: sudo apt-get install qpdf"
    said = IdentifyWorker().check(options({"argv": ["/opt/jhove", "{path}"], "mime": "image/*"}))
    assert "/opt/jhove is not there; install it, or write its path" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "name either a tool, or argv"),
        ({"tool": "qpdf", "argv": ["x", "{file}"]}, "name either a tool, or argv"),
        ({"argv": ["x", "{file}"]}, "name the formats it checks"),
        ({"argv": ["x"], "extension": "a"}, r"one argument has to hold \{file\} or \{path\}"),
        ({"argv": ["x", "{file}", "{sha256}"], "extension": "a"}, r"no \{sha256\} here"),
        ({"tool": "jhove"}, "jpylyzer"),
    ],
)
def test_what_makes_no_sense_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Check.model_validate(given)


async def test_a_list_as_a_table_says_it_too(tmp_path: Path) -> None:
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", {"a.xml": b"<?xml version='1.0'?><a/>"}))
    await IdentifyWorker().run(ctx, options({"tool": "xmllint"}, format="csv"))
    assert (ctx.work / "formats.csv").read_text().splitlines()[1].endswith(",xmllint: valid")
    assert os.listdir(ctx.work) == ["formats.csv"]


CONFIG = """
root: .
pipelines:
  p:
    match: "(?P<study>.+)"
    steps:
      - identify:
          wellformed:
            - {extension: dat, argv: ARGV}
"""


async def test_a_program_in_the_configuration_is_given_each_file(tmp_path: Path) -> None:
    """With what the folder is called, whatever that holds, and the file at its place."""
    config = tmp_path / "config.yaml"
    program = "import sys; print(sys.argv[1:], file=open(sys.argv[2] + '.said', 'w'))"
    config.write_text(
        CONFIG.replace("ARGV", json.dumps([sys.executable, "-c", program, "{study}", "{path}"]))
    )
    (step,) = load(config).pipelines[0].steps
    values = {"study": "a{file}b"}
    given = placeholders.render_options(step.options, values, IdentifyWorker())
    ctx = LoneContext(tmp_path, tree(tmp_path / "vol", {"x.dat": b"1"}))
    await IdentifyWorker().run(ctx, IdentifyOptions.model_validate(given))
    place = tmp_path / "vol" / "x.dat"
    assert place.with_name("x.dat.said").read_text() == f"{['a{file}b', str(place)]}\n"


def test_a_file_inside_a_script_is_refused_with_its_place(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(CONFIG.replace("ARGV", '[sh, -c, "verapdf {path}"]'))
    with pytest.raises(ConfigError) as caught:
        load(config)
    (problem,) = caught.value.problems
    assert str(problem).startswith(f"{config}:9:")
    assert "{path} stands inside a script of sh" in str(problem)
