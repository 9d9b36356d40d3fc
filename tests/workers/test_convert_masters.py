"""convert to jp2: a preservation master holds its source's own samples, or is none."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from jpylyzer import jpylyzer
from PIL import Image, ImageCms

from dittohead.model.errors import ItemError
from dittohead.toolkit.images import conversion, jp2_structure, proof
from dittohead.toolkit.images.library_messages import LibraryMessages
from dittohead.toolkit.images.options import ConvertOptions
from dittohead.toolkit.images.process import abilities
from dittohead.toolkit.images.reasons import Unfit
from dittohead.workers.convert import ConvertWorker
from tests.support.context import LoneContext
from tests.support.convert import Rig
from tests.support.images import encode, jpeg, pixels
from tests.support.trees import tree


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def written(array: Any, **options: Any) -> bytes:
    """Return a TIFF that tifffile writes."""
    out = io.BytesIO()
    if "photometric" not in options:
        options["photometric"] = "rgb" if array.ndim == 3 and array.shape[2] > 2 else "minisblack"
    tifffile.imwrite(out, array, **options)
    return out.getvalue()


def pages(*arrays: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        for array in arrays:
            file.write(array, photometric="rgb", **options)
    return out.getvalue()


SOUND: dict[str, tuple[Any, dict[str, Any]]] = {
    "RGB, 8 bits": (pixels(300, 200), {}),
    "RGB, 16 bits": (pixels(300, 200, 3, np.uint16), {}),
    "grey, 8 bits": (pixels(300, 200, 1), {}),
    "grey, 16 bits, LZW": (pixels(300, 200, 1, np.uint16), {"compression": "lzw"}),
    "RGB, tiles, big-endian": (pixels(300, 200, 3, np.uint16), {"tile": (64, 64), "byteorder": ">"}),
    "RGB and alpha": (pixels(300, 200, 4), {"extrasamples": ["unassalpha"]}),
    "RGB and a band of no known kind": (pixels(300, 200, 4), {"extrasamples": ["unspecified"]}),
    "grey and alpha": (pixels(300, 200, 2), {"extrasamples": ["unassalpha"], "planarconfig": "contig"}),
    "planes": (pixels(300, 200).transpose(2, 0, 1), {"planarconfig": "separate", "photometric": "rgb"}),
}


async def test_a_master_holds_every_sample_and_says_by_whom_that_was_found(rig: Rig) -> None:
    """Decoded here by a third library; the digest in the receipt can be made again from its description."""
    ctx = await rig.convert(
        {f"{kind}.tif": written(a, **more) for kind, (a, more) in SOUND.items()}, format="jp2"
    )
    found = {os.fsdecode(output.path)[:-4]: output for output in ctx.outputs}
    assert found.keys() == SOUND.keys()
    for kind, (array, _) in SOUND.items():
        wanted = array.transpose(1, 2, 0) if kind == "planes" else array
        data = (ctx.work / f"{kind}.jp2").read_bytes()
        assert np.array_equal(np.squeeze(np.asarray(imagecodecs.jpeg2k_decode(data))), np.squeeze(wanted)), (
            kind
        )
        detail = found[kind].detail
        assert detail["lossless"] is True
        assert "changes" not in detail
        bands, bits = (1 if wanted.ndim == 2 else wanted.shape[2]), wanted.dtype.itemsize * 8
        line = f"width=300 height=200 bands={bands} bits={bits} unsigned\n".encode()
        digest = hashlib.sha256(line + wanted.astype(f">u{bits // 8}").tobytes()).hexdigest()
        assert detail["proof"]["samples"] == f"sha256:{digest}"
        assert detail["proof"]["source_decoder"].startswith("tifffile ")
        assert detail["proof"]["result_decoder"].startswith("FFmpeg jpeg2000 (libavcodec ")
    said = {event.detail: event.agent for event in ctx.events}
    assert said["the samples of 9 masters are their sources' own; digests in outputs"].startswith("FFmpeg")


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("RGB and alpha", (1, 0)),
        ("RGB and a band of no known kind", (0xFFFF, 0xFFFF)),
    ],
)
async def test_a_fourth_band_is_called_what_the_source_calls_it(rig: Rig, kind: str, wanted: Any) -> None:
    array, options = SOUND[kind]
    path, _ = await rig.one("a.tif", written(array, **options), format="jp2")
    data = path.read_bytes()
    at = data.index(b"cdef") + 4
    entries = np.frombuffer(data[at + 2 : at + 26], ">u2").reshape(4, 3).tolist()
    assert entries == [[0, 0, 1], [1, 0, 2], [2, 0, 3], [3, *wanted]]


async def test_another_validator_finds_the_profile_that_was_asked_for(rig: Rig, tmp_path: Path) -> None:
    """And the resolution, and a profile byte for byte."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encode(pixels(1300, 700), "TIFF", icc_profile=profile, dpi=(400, 300))
    path, output = await rig.one("a.tif", data, format="jp2")
    text = {element.tag: element.text for element in jpylyzer.checkOneFile(str(path)).iter()}
    assert text["isValid"] == "True"
    assert text["transformation"] == "5-3 reversible"
    assert text["qStyle"] == "no quantization"
    assert (text["order"], text["layers"], text["levels"]) == ("RPCL", "1", "5")
    assert (text["xTsiz"], text["yTsiz"], text["numberOfTiles"]) == ("1024", "1024", "2")
    assert text["precincts"] == "user defined"
    assert text["pltCount"] == "1"
    assert text["meth"] == "Restricted ICC"
    assert [round(float(text[f"{side}RescInPixelsPerInch"] or 0)) for side in "hv"] == [400, 300]
    assert profile in path.read_bytes()
    assert output.detail["dpi"] == [400.0, 300.0]


def cmyk_with_profile(tmp_path: Path) -> bytes:
    return encode(Image.fromarray(pixels(60, 40)).convert("CMYK"), "TIFF")


def lab(tmp_path: Path) -> bytes:
    (tmp_path / "rgb.png").write_bytes(encode(pixels(60, 40), "PNG"))
    subprocess.run(["vips", "colourspace", "rgb.png", "lab.tif", "lab"], cwd=tmp_path, check=True)
    return (tmp_path / "lab.tif").read_bytes()


GREY = pixels(60, 40, 1)
RGB = pixels(60, 40)

UNFIT: dict[str, tuple[Any, str]] = {
    "one bit": (lambda _: encode(Image.fromarray(GREY).convert("1"), "TIFF"), "1 bit made 8"),
    "four bits": (lambda _: encode(Image.fromarray(GREY).quantize(16), "PNG"), "palette made colours"),
    "palette": (lambda _: encode(Image.fromarray(RGB).convert("P"), "TIFF"), "palette made colours"),
    "12 bits": (lambda _: written(GREY.astype(np.uint16), bitspersample=12), "its samples have 12 bits"),
    "32 bits": (lambda _: written(GREY.astype(np.uint32)), "of type uint"),
    "signed": (lambda _: written(GREY.astype(np.int16)), "of type short"),
    "signed, 8 bits": (lambda _: written((GREY // 2).astype(np.int8)), "of type char"),
    "float": (lambda _: written(GREY.astype(np.float32)), "floating-point"),
    "CMYK": (cmyk_with_profile, "CMYK made sRGB"),
    "Lab": (lab, "lab made sRGB"),
    "five bands": (lambda _: written(pixels(60, 40, 5), photometric="rgb"), "5 bands"),
    "orientation": (lambda _: jpeg(60, 40, orientation=6), "turned upright"),
    "white is 0": (lambda _: written(GREY, photometric="miniswhite"), "white is 0"),
    "three pages": (lambda _: pages(RGB, RGB, RGB), "3 pages, and 1 would become a master; set pages: all"),
    "a small second page": (lambda _: pages(RGB, RGB[::4, ::4]), "2 pages, and 1 would become a master"),
    "another image within": (
        lambda _: written_with_sub(RGB),
        "another image within",
    ),
    "premultiplied alpha": (
        lambda _: written(pixels(60, 40, 4), extrasamples=["assocalpha"]),
        "multiplied by its alpha",
    ),
    "layers": (lambda _: written(RGB, extratags=[(37724, 7, 8, b"Adobe Ph", True)]), "Photoshop's layers"),
    "a profile of colour for grey": (
        lambda _: written(
            GREY, iccprofile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        ),
        "ICC profile",
    ),
    "a profile by table": (
        lambda _: written(RGB, iccprofile=Path("/usr/share/color/icc/none").name.encode() * 40),
        "ICC profile",
    ),
}


def written_with_sub(array: Any) -> bytes:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        file.write(array, photometric="rgb", subifds=1)
        file.write(array[:30], photometric="rgb")
    return out.getvalue()


async def test_what_a_master_cannot_hold_is_kept_as_it_is(rig: Rig, tmp_path: Path) -> None:
    """Nothing is changed in silence: the reason says what would have been."""
    what: dict[str | bytes, Any] = {f"{kind}.tif": make(tmp_path) for kind, (make, _) in UNFIT.items()}
    ctx = await rig.convert({**what, "fit.png": encode(RGB, "PNG")}, format="jp2", unfit="keep")
    found = {os.fsdecode(output.path): output for output in ctx.outputs}
    assert found.keys() == {*what, "fit.jp2"}
    for kind, (_, words) in UNFIT.items():
        output, data = found[f"{kind}.tif"], what[f"{kind}.tif"]
        assert (ctx.work / f"{kind}.tif").read_bytes() == data
        assert (output.sha256, output.size) == (hashlib.sha256(data).hexdigest(), len(data))
        assert words in output.detail["kept"], kind
        assert set(output.detail) == {"kept"}
    assert f"{len(UNFIT)} of them kept as they are" in rig.result.detail
    assert f"1 images to jp2; {len(UNFIT)} kept as they are, see outputs" in {
        event.detail for event in ctx.events
    }


async def test_the_plan_tells_which_masters_will_be_refused_or_kept(rig: Rig, tmp_path: Path) -> None:
    """By the headers alone, with the very reasons that the conversion gives."""
    what: dict[str | bytes, Any] = {f"{kind}.tif": make(tmp_path) for kind, (make, _) in UNFIT.items()}
    tree(rig.payload, {**what, "fit.png": encode(RGB, "PNG")})
    ctx = LoneContext(rig.base, rig.payload)
    keep = ConvertOptions.model_validate({"format": "jp2", "unfit": "keep"})
    found = {one.what: one async for one in rig.worker.plan(ctx, keep)}
    assert {name for name, one in found.items() if one.action == "keep"} == set(what)
    for kind, (_, words) in UNFIT.items():
        assert words in found[f"{kind}.tif"].detail, kind
    assert found["fit.jp2"].action == "make"

    refuse = ConvertOptions.model_validate({"format": "jp2"})
    with pytest.raises(ItemError) as planned:
        [one async for one in rig.worker.plan(LoneContext(rig.base, rig.payload), refuse)]
    with pytest.raises(ItemError) as run:
        await rig.convert({}, format="jp2")
    assert str(planned.value) == str(run.value)
    assert f"{len(UNFIT)} of {len(UNFIT) + 1} images cannot be converted" in str(planned.value)


async def test_a_reason_that_many_share_is_given_once_with_its_own_cure(rig: Rig) -> None:
    """Only what is damaged is to be scanned again."""
    bitonal = encode(Image.fromarray(GREY.repeat(20, 0)).convert("1"), "TIFF")
    with pytest.raises(ItemError) as unfit:
        await rig.convert({f"{n}.tif": bitonal for n in range(7)}, format="jp2")
    text = str(unfit.value)
    assert text.count("1 bit") == 1
    assert "0.tif, 1.tif, 2.tif, 3.tif, 4.tif and 2 more: " in text
    assert "Scan or copy" not in text
    assert "made in another way" in text
    whole = encode(RGB, "TIFF", compression="tiff_lzw")
    cut = {f"{n}.tif": whole[: len(whole) * (n + 2) // 10] for n in range(7)}
    with pytest.raises(ItemError, match="Scan or copy the damaged ones again; then move") as damaged:
        await rig.convert(cut, format="jp2")
    assert "another way" not in str(damaged.value)


async def test_what_helps_several_images_is_said_once(rig: Rig, tmp_path: Path) -> None:
    """Each has a reason of its own."""
    folder = {f"{number}.tif": UNFIT[kind][0](tmp_path) for number, kind in enumerate(("one bit", "float"))}
    with pytest.raises(ItemError, match="2 of 2 images") as caught:
        await rig.convert(folder, format="jp2")
    assert str(caught.value).count("unfit: keep") == 1


@pytest.mark.parametrize("kind", ["one bit", "float", "three pages", "orientation"])
async def test_what_a_master_cannot_hold_is_refused(rig: Rig, tmp_path: Path, kind: str) -> None:
    """And how to go on is said."""
    make, words = UNFIT[kind]
    with pytest.raises(ItemError, match=words) as caught:
        await rig.one("a.tif", make(tmp_path), format="jp2")
    assert str(caught.value).count("unfit: keep (the original itself becomes the master)") == 1
    assert not list(rig.ctx.work.iterdir())


async def test_a_damaged_image_is_never_kept(rig: Rig) -> None:
    """`keep` is for sound images."""
    data = encode(Image.fromarray(GREY.repeat(20, 0)).convert("1"), "TIFF", compression="tiff_lzw")
    deep = written(GREY.astype(np.uint16), bitspersample=12)
    bad = [data[:300], data[: len(data) // 2], b"no image", b"", deep[:-200]]
    with pytest.raises(ItemError, match=r"5 of 5 images cannot be converted"):
        await rig.convert({f"{i}.tif": some for i, some in enumerate(bad)}, format="jp2", unfit="keep")


async def test_every_page_becomes_a_master_of_its_own(rig: Rig) -> None:
    arrays = [pixels(60, 40, seed=seed) for seed in range(3)]
    ctx = await rig.convert({"a.tif": pages(*arrays)}, format="jp2", pages="all")
    digests = {output.detail["proof"]["samples"] for output in ctx.outputs}
    assert [os.fsdecode(output.path) for output in ctx.outputs] == [f"a-000{i}.jp2" for i in (1, 2, 3)]
    assert len(digests) == 3
    for output, array in zip(ctx.outputs, arrays, strict=True):
        data = (ctx.work / os.fsdecode(output.path)).read_bytes()
        assert np.array_equal(imagecodecs.jpeg2k_decode(data), array)


async def test_one_page_that_is_unfit_keeps_the_whole_file(rig: Rig) -> None:
    """No page of it is published besides."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as file:
        file.write(RGB, photometric="rgb")
        file.write(GREY.astype(np.float32), photometric="minisblack")
    ctx = await rig.convert({"a.tif": out.getvalue()}, format="jp2", pages="all", unfit="keep")
    assert [os.fsdecode(output.path) for output in ctx.outputs] == ["a.tif"]


async def test_a_kept_original_never_takes_anothers_place(rig: Rig) -> None:
    """Names that look like results: a.tif.jp2 lies beside a.tif and a.png."""
    float_tiff, own = written(GREY.astype(np.float32)), encode(RGB, "JPEG2000")
    odd = bytes(imagecodecs.jpeg2k_encode(GREY.astype(np.uint16), bitspersample=12, level=0))
    what = {
        "a.tif": encode(RGB, "TIFF"),
        "a.png": encode(RGB, "PNG"),
        "a.tif.jp2": odd,
        "b.jp2": own,
        "c.tif": float_tiff,
    }
    ctx = await rig.convert(dict(what), format="jp2", unfit="keep")
    sources = {os.fsdecode(output.path): os.fsdecode(output.source) for output in ctx.outputs}
    assert len(sources) == len(what)
    assert sources["a.tif.jp2.jp2"] == "a.tif.jp2"
    assert (ctx.work / "a.tif.jp2.jp2").read_bytes() == odd
    assert (ctx.work / "c.tif").read_bytes() == float_tiff


async def test_what_is_made_wrongly_is_not_published(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that turns one sample round is found out; no file is left, and keep does not hide it."""
    real = conversion.jp2.write

    def wrong(image: Any, *args: Any, **options: Any) -> Any:
        spot = conversion.pyvips.Image.black(1, 1, bands=3).copy(interpretation="srgb") + 1
        return real(image.insert(spot.cast("uchar"), 7, 5), *args, **options)

    monkeypatch.setattr(conversion.jp2, "write", wrong)
    (rig.base / "p").mkdir()
    (rig.base / "p/a.tif").write_bytes(encode(RGB, "TIFF"))
    request = conversion.ConversionRequest.parse(
        {
            "root": str(rig.base / "p"),
            "path": "a.tif",
            "sha256": hashlib.sha256(encode(RGB, "TIFF")).hexdigest(),
            "work": str(rig.base / "w"),
            "out": "a.jp2",
            "temp": str(rig.base / "t"),
            "recipe": ConvertOptions(format="jp2", unfit="keep").child_recipe(),
        }
    )
    with pytest.raises(jp2_structure.RefusedImage, match="samples are not the source's"):
        list(conversion.convert(request, LibraryMessages()))
    assert sorted(path.name for path in rig.base.rglob("*") if path.is_file()) == ["a.tif"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_width": 100}, "max_width would change a master's size; set master: false"),
        ({"sizes": [{"max_width": 100}]}, "sizes would change"),
        ({"colour": "srgb"}, "would change a master's colours"),
        ({"verify": False}, "without its proof"),
        ({"master": False, "unfit": "keep"}, "unfit means nothing with master: false"),
        ({"format": "png", "master": True}, "master means nothing with format: png"),
        ({"format": "jpeg", "unfit": "keep"}, "unfit means nothing with format: jpeg"),
    ],
)
def test_what_would_change_a_master_is_refused_at_once(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        ConvertOptions.model_validate({"format": "jp2", **options})


async def test_an_access_copy_may_be_changed(rig: Rig) -> None:
    data = encode(Image.fromarray(RGB).convert("CMYK"), "TIFF")
    path, output = await rig.one("a.tif", data, format="jp2", master=False, max_width=30)
    assert "proof" not in output.detail
    assert output.detail["compared"] is True
    assert len(output.detail["changes"]) == 2
    with Image.open(path) as image:
        assert image.size == (30, 20)


def test_a_change_of_how_masters_are_made_changes_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = ConvertWorker()
    before = worker.recipe(ConvertOptions(format="jp2"))
    assert {"openjpeg", "ffmpeg", "tifffile", "imagecodecs"} <= before.tools.keys()
    for other in ({"master": False}, {"unfit": "keep"}, {"tile": 512}):
        assert (
            worker.recipe(ConvertOptions.model_validate({"format": "jp2", **other})).settings
            != before.settings
        )
    monkeypatch.setattr("dittohead.toolkit.images.options.PROFILES", {"jp2": "another"})
    assert worker.recipe(ConvertOptions(format="jp2")).settings != before.settings
    assert "profile" not in worker.recipe(ConvertOptions(format="png")).settings


def test_without_a_decoder_masters_are_refused_at_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    lean = abilities() | {"proof": {}}
    monkeypatch.setattr("dittohead.workers.convert.abilities", lambda: lean)
    (said,) = ConvertWorker().check(ConvertOptions(format="jp2"))
    assert "pip install 'dittohead[masters]'" in said
    assert ConvertWorker().check(ConvertOptions(format="jp2", master=False)) == []


async def test_a_master_in_high_throughput_jpeg_2000(rig: Rig) -> None:
    """By the same rules; read here by OpenJPEG, which did not write it."""
    kinds = {kind: SOUND[kind] for kind in ("RGB, 8 bits", "grey, 16 bits, LZW", "RGB and alpha")}
    what = {f"{kind}.tif": written(array, **more) for kind, (array, more) in kinds.items()}
    ctx = await rig.convert({**what, "bits.tif": UNFIT["one bit"][0](rig.base)}, format="jph", unfit="keep")
    assert len(ctx.outputs) == 4
    for kind, (array, _) in kinds.items():
        data = (ctx.work / f"{kind}.jph").read_bytes()
        assert data[20:24] == b"jph "
        assert np.array_equal(np.squeeze(np.asarray(imagecodecs.jpeg2k_decode(data))), np.squeeze(array))
    details = {os.fsdecode(output.path): output.detail for output in ctx.outputs}
    assert details["RGB, 8 bits.jph"]["proof"]["result_decoder"].startswith("FFmpeg jpeg2000")
    assert details["bits.tif"] == {"kept": "it would be changed (1 bit made 8)"}


async def test_an_access_copy_in_high_throughput_jpeg_2000_is_compared_too(rig: Rig) -> None:
    """By another decoder than libvips, some versions of which read other pixels."""
    path, output = await rig.one(
        "a.tif", encode(pixels(600, 400), "TIFF"), format="jph", master=False, max_width=60
    )
    assert output.detail["compared"] is True
    assert output.detail["proof"]["source_decoder"].startswith("libvips")
    assert np.asarray(imagecodecs.jpeg2k_decode(path.read_bytes())).shape == (40, 60, 3)


async def test_an_image_too_large_for_memory_is_refused_in_words(rig: Rig) -> None:
    """Before anything is coded; JP2 needs no more for a larger one."""
    data = encode(Image.new("RGB", (8000, 8000)), "TIFF", compression="tiff_deflate")
    with pytest.raises(ItemError, match=r"keeps all of an image in memory, .* use format: jp2"):
        await rig.one("a.tif", data, format="jph", memory="1GiB")


def test_jph_without_its_codec_is_refused_at_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    lean = abilities() | {"formats": ["pyramid-tiff", "jp2"]}
    monkeypatch.setattr("dittohead.workers.convert.abilities", lambda: lean)
    (said,) = ConvertWorker().check(ConvertOptions(format="jph"))
    assert "cannot write jph" in said
    assert "pip install 'dittohead[masters]'" in said


@pytest.mark.parametrize("form", ["jp2", "jph"])
def test_masters_are_made_and_proved_without_executable_memory(tmp_path: Path, form: str) -> None:
    """As under MemoryDenyWriteExecute=, which the kernel is asked for here by prctl(PR_SET_MDWE)."""
    data = encode(RGB, "TIFF")
    (tmp_path / "a.tif").write_bytes(data)
    request = {
        "root": str(tmp_path),
        "path": "a.tif",
        "sha256": hashlib.sha256(data).hexdigest(),
        "work": str(tmp_path),
        "out": f"a.{form}",
        "temp": str(tmp_path / "temp"),
        "recipe": ConvertOptions.model_validate({"format": form}).child_recipe(),
    }
    child = (
        "import ctypes, sys\n"
        "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(3)\n"
        "from dittohead.toolkit.images.child import main\n"
        "main()\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", child],
        input=json.dumps(request) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if said.returncode == 3:
        pytest.skip("THE KERNEL HAS NO PR_SET_MDWE (it came with 6.3): left out")
    assert json.loads(said.stdout.splitlines()[-1]) == {"ok": True}, said.stderr
    assert json.loads(said.stdout.splitlines()[0])["detail"]["lossless"] is True


async def test_what_an_earlier_try_proved_or_kept_is_not_made_again(rig: Rig) -> None:
    """By its journal, with the proof; a file that is no longer whole is made again, and is the same."""
    what = {"a.tif": encode(RGB, "TIFF"), "b.tif": UNFIT["one bit"][0](rig.base)}
    ctx = await rig.convert(dict(what), format="jp2", unfit="keep")
    before = [(output.path, output.sha256, output.detail) for output in ctx.outputs]
    inodes = {path.name: path.stat().st_ino for path in ctx.work.iterdir()}
    ctx.again()
    await rig.convert(ctx=ctx, format="jp2", unfit="keep")
    assert "2 of them from before" in rig.result.detail
    assert [(output.path, output.sha256, output.detail) for output in ctx.outputs] == before
    assert {path.name: path.stat().st_ino for path in ctx.work.iterdir()} == inodes
    (ctx.work / "a.jp2").write_bytes((ctx.work / "a.jp2").read_bytes()[:-1])
    ctx.again()
    await rig.convert(ctx=ctx, format="jp2", unfit="keep")
    assert "1 of them from before" in rig.result.detail
    assert [(output.path, output.sha256, output.detail) for output in ctx.outputs] == before


@pytest.mark.parametrize("cut", [0, 5])
@pytest.mark.parametrize("form", ["jp2", "jpeg"])
async def test_a_tiff_whose_later_pages_are_cut_off_is_damaged(rig: Rig, cut: int, form: str) -> None:
    """To libtiff it is one of a single page, and the other was gone without a word."""
    data = pages(RGB, RGB)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        data = data[: file.pages[1].offset + cut]  # type: ignore[union-attr]  # a page, no frame
    with pytest.raises(ItemError, match="directory 2, of a page or a smaller copy, cannot be read"):
        await rig.one("a.tif", data, format=form, pages="all")


async def test_a_colour_that_stands_for_transparency_is_no_alpha(rig: Rig) -> None:
    """Of it libpng makes an alpha, as libvips does: both found four bands where the file holds three."""
    data = encode(RGB, "PNG", transparency=tuple(RGB[0, 0].tolist()))
    _, output = await rig.one("a.png", data, format="jp2", unfit="keep")
    assert output.detail == {"kept": "it would be changed (a transparent colour made alpha)"}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (np.float16, "its samples are floating-point numbers of 16 bits"),
        (np.float64, "its samples have 64 bits"),
        (np.uint64, "its samples have 64 bits"),
    ],
)
async def test_samples_that_libvips_does_not_read_are_kept(rig: Rig, kind: Any, words: str) -> None:
    """They were called damaged, which no cure could fix."""
    data = written(pixels(30, 20, 1).astype(kind))
    path, output = await rig.one("a.tif", data, format="jp2", unfit="keep")
    assert output.detail == {"kept": words}
    assert path.read_bytes() == data


async def test_bytes_of_turned_bits_are_read_as_they_are_meant(rig: Rig, tmp_path: Path) -> None:
    """FillOrder 2; the proof took the bytes as they lie, and refused a sound image."""
    (tmp_path / "a.tif").write_bytes(written(RGB))
    subprocess.run(
        ["tiffcp", "-f", "lsb2msb", "-c", "none", tmp_path / "a.tif", tmp_path / "b.tif"], check=True
    )
    path, output = await rig.one("b.tif", (tmp_path / "b.tif").read_bytes(), format="jp2")
    assert output.detail["proof"]["source_decoder"].startswith("tifffile")
    assert np.array_equal(imagecodecs.jpeg2k_decode(path.read_bytes()), RGB)


async def test_grey_with_two_more_bands_is_no_colour(rig: Rig) -> None:
    data = written(RGB, photometric="minisblack", planarconfig="contig")
    _, output = await rig.one("a.tif", data, format="jp2", unfit="keep")
    assert output.detail == {"kept": "it has 2 bands that are not colour"}


async def test_a_high_throughput_source_becomes_nothing(rig: Rig) -> None:
    """One that is not tiled is read wrongly by libvips, twice in the same way: a proof by it was none."""
    array = pixels(1100, 1500)
    data = boxed(bytes(imagecodecs.htj2k_encode(array, reversible=True, rgb=True)), array)
    wanted: list[tuple[dict[str, Any], bool]] = [({"format": "jp2"}, True), ({"format": "png"}, False)]
    for options, cure in wanted:
        with pytest.raises(ItemError, match="High-Throughput JPEG 2000") as caught:
            await rig.one("a.jp2", data, **options)
        assert ("unfit: keep" in str(caught.value)) is cure
        assert not list(rig.ctx.work.rglob("*.*"))
    path, output = await rig.one("a.jp2", data, format="jp2", unfit="keep")
    assert path.read_bytes() == data
    assert list(output.detail) == ["kept"]


def boxed(stream: bytes, array: Any) -> bytes:
    """Return a codestream of 8 bits RGB as a JP2."""

    def box(kind: bytes, content: bytes) -> bytes:
        return (len(content) + 8).to_bytes(4, "big") + kind + content

    size = array.shape[0].to_bytes(4, "big") + array.shape[1].to_bytes(4, "big")
    header = box(b"ihdr", size + b"\0\3\7\7\0\0") + box(b"colr", b"\1\0\0\0\0\0\x10")
    head = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return head + box(b"jp2h", header) + box(b"jp2c", stream)


async def test_a_jpeg_2000_that_begins_elsewhere_than_at_the_origin_is_refused(
    rig: Rig, tmp_path: Path
) -> None:
    """These, too, are read wrongly by libvips."""
    (tmp_path / "a.ppm").write_bytes(encode(pixels(300, 200), "PPM"))
    subprocess.run(
        ["opj_compress", "-i", tmp_path / "a.ppm", "-o", tmp_path / "a.jp2", "-d", "37,21"],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with pytest.raises(ItemError, match="does not begin at the origin"):
        await rig.one("a.jp2", (tmp_path / "a.jp2").read_bytes(), format="jp2")


async def test_a_jpeg_2000_is_read_for_its_proof_by_another_decoder(
    rig: Rig,
) -> None:
    data = bytes(imagecodecs.jpeg2k_encode(RGB, level=0, reversible=True, codecformat="jp2"))
    path, output = await rig.one("a.jp2", data, format="jp2")
    assert output.detail["proof"]["source_decoder"].startswith("FFmpeg jpeg2000")
    assert np.array_equal(imagecodecs.jpeg2k_decode(path.read_bytes()), RGB)


def test_a_jpeg_2000_of_no_certain_samples_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where two decoders find other samples in it, nobody knows which are the right ones."""
    data = bytes(imagecodecs.jpeg2k_encode(RGB, level=0, reversible=True, codecformat="jp2"))
    (tmp_path / "a.jp2").write_bytes(data)
    monkeypatch.setattr(proof, "_jpeg2000", lambda *_: iter([RGB ^ 1]))
    request = {
        "root": tmp_path,
        "path": "a.jp2",
        "work": tmp_path / "w",
        "out": "b.jp2",
        "temp": tmp_path / "t",
    }
    recipe = ConvertOptions(format="jp2", unfit="keep").child_recipe()
    parsed = conversion.ConversionRequest.parse(
        request | {"sha256": hashlib.sha256(data).hexdigest(), "recipe": recipe}
    )
    (record,) = conversion.convert(parsed, LibraryMessages())
    assert record["detail"] == {"kept": "libvips and FFmpeg do not read the same samples in it"}
    assert (tmp_path / "w" / record["file"]).read_bytes() == data
    with pytest.raises(Unfit, match="do not read the same samples in it$"):
        list(
            conversion.convert(
                replace(parsed, recipe=replace(parsed.recipe, unfit="fail")), LibraryMessages()
            )
        )
