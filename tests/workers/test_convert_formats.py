"""convert: every format holds what it promises, by the word of decoders that are not libvips."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import IFDRational

from dittohead.model.errors import ItemError
from dittohead.toolkit.images.options import ConvertOptions
from dittohead.toolkit.images.process import abilities
from dittohead.toolkit.images.recipe import SUFFIXES
from dittohead.workers.convert import ConvertWorker
from tests.support.convert import Rig
from tests.support.images import by_vips, decoded, encode, jpeg, levels, pixels, tiff
from tests.support.trees import read_tree

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf/></x:xmpmeta>'
IIIF = {"format": "iiif-static", "iiif_id": "https://iiif.example.org/{path}"}


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def wide_gamut(tmp_path: Path) -> bytes:
    """Return a TIFF in Display P3 with its profile."""
    strong = np.random.default_rng(1).integers(0, 255, (60, 90, 3)).astype(np.uint8)
    (tmp_path / "rgb.png").write_bytes(encode(strong, "PNG"))
    return by_vips(
        tmp_path, ["icc_transform", "rgb.png", "p3.tif", "p3", "--input-profile", "srgb"], "p3.tif"
    )


def with_everything() -> bytes:
    """Return a JPEG with a profile, XMP, EXIF and 300 dpi."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = Image.fromarray(pixels(300, 200))
    exif = image.getexif()
    exif[0x010F], exif[0x0110] = "Phase One", "IQ4"
    exif.get_ifd(0x8769)[0x829A] = IFDRational(1, 125)
    return encode(image, "JPEG", exif=exif, icc_profile=profile, xmp=XMP, dpi=(300, 300), quality=92)


# -- lossless formats ------------------------------------------------------------------------


def _decoded_elsewhere(path: Path) -> NDArray[Any]:
    data = path.read_bytes()
    if path.suffix == ".png":
        return np.asarray(imagecodecs.png_decode(data))
    if path.suffix == ".jp2":
        return np.asarray(imagecodecs.jpeg2k_decode(data))
    return decoded(path)


def copy_as(form: str) -> dict[str, Any]:
    """Return the options that make a copy in a format, which may be changed."""
    return {"format": form} | ({"master": False} if form == "jp2" else {})


@pytest.mark.parametrize("form", ["png", "jp2", "deflate", "lzw", "zstd", "none"])
async def test_lossless_is_lossless(rig: Rig, form: str) -> None:
    """Depths, bands and sizes; the pixels are those that another library reads back."""
    chance = np.random.default_rng(len(form))
    sources: dict[str, Any] = {}
    for number, (dtype, bands) in enumerate(itertools.product([np.uint8, np.uint16], [1, 2, 3, 4])):
        for width, height in ((1, 96), tuple(int(side) for side in chance.integers(1, 300, 2))):
            shape = (height, width, bands) if bands > 1 else (height, width)
            sources[f"{number}-{width}"] = chance.integers(0, np.iinfo(dtype).max, shape).astype(dtype)
    files: dict[str | bytes, Any] = {
        # With room of our own: by itself it makes too little for a column of noise.
        f"{name}.png": bytes(imagecodecs.png_encode(source, out=2 * source.nbytes + 4096))
        for name, source in sources.items()
    }
    options = {"format": form} if form in ("png", "jp2") else {"compression": form}
    ctx = await rig.convert(files, **options)
    assert len(ctx.outputs) == len(sources)
    for output in ctx.outputs:
        assert output.detail["lossless"] is True
        path = ctx.work / os.fsdecode(output.path)
        source = sources[path.stem]
        bands = source.shape[2] if source.ndim > 2 else 1
        # Pillow reads no others.
        if form in ("png", "jp2") or (source.dtype == np.uint8 and bands != 2) or bands == 1:
            assert np.array_equal(np.squeeze(_decoded_elsewhere(path)), np.squeeze(source)), path.name


@pytest.mark.parametrize("form", ["png", "jp2"])
async def test_what_png_and_jp2_cannot_hold_is_changed_or_refused(
    rig: Rig, tmp_path: Path, form: str
) -> None:
    """CMYK and Lab become sRGB, which is recorded; floating point is refused, nothing is guessed."""
    cmyk = encode(Image.fromarray(pixels(60, 40)).convert("CMYK"), "TIFF")
    path, output = await rig.one("a.tif", cmyk, **copy_as(form))
    assert output.detail["changes"] == ["CMYK made sRGB"]
    assert output.detail["compared"] is True
    assert "lossless" not in output.detail
    assert _decoded_elsewhere(path).shape == (40, 60, 3)
    with pytest.raises(ItemError, match="floating-point numbers"):
        await rig.one("a.tif", encode(pixels(60, 40, 1).astype(np.float32), "TIFF"), **copy_as(form))


async def test_jp2_has_what_libvips_leaves_out(rig: Rig) -> None:
    """Profile, XMP and resolution, which jp2ksave drops without a word."""
    source = with_everything()
    path, output = await rig.one("a.jpg", source, format="jp2")
    data = path.read_bytes()
    assert Image.open(io.BytesIO(source)).info["icc_profile"] in data
    assert XMP in data
    assert b"JpgTiffExif->JP2" in data
    assert "lost" not in output.detail
    assert output.detail["dpi"] == [300.0, 300.0]
    with Image.open(path) as image:
        assert [round(value) for value in image.info["dpi"]] == [300, 300]
        assert image.size == (300, 200)


# -- size ------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["jpeg", "png", "jp2", "pyramid-tiff", "iiif-static"])
@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((1000, 999), (561, 560)),
        ((800, 700), (640, 560)),
        ((999, 1000), (559, 560)),
        ((843, 560), (843, 560)),
    ],
)
async def test_a_box_is_kept_on_both_sides(rig: Rig, form: str, size: Any, wanted: Any) -> None:
    """Nearly square images, and one that is larger than the box on one side only."""
    more = IIIF if form == "iiif-static" else copy_as(form)
    ((_, detail),) = (
        await rig.details({"a.png": encode(pixels(*size), "PNG")}, max_width=843, max_height=560, **more)
    ).items()
    assert (detail["width"], detail["height"]) == wanted
    assert ("changes" in detail) is (size != wanted)


async def test_a_small_image_is_not_made_larger_unless_asked(rig: Rig) -> None:
    """No pixel is invented."""
    data = encode(pixels(60, 40), "PNG")
    path, output = await rig.one("a.png", data, format="jpeg", max_width=600)
    assert decoded(path).shape == (40, 60, 3)
    assert "changes" not in output.detail
    path, output = await rig.one("a.png", data, format="jpeg", max_width=600, enlarge=True)
    assert decoded(path).shape == (400, 600, 3)
    assert output.detail["changes"] == ["made larger, 60x40 to 600x400"]


async def test_a_smaller_image_looks_like_the_larger_one(rig: Rig) -> None:
    """Also where it is transparent: what lies under clear pixels does not bleed in."""
    source = np.zeros((200, 200, 4), np.uint8)
    source[:, :100] = (255, 0, 0, 255)  # red, beside clear black
    path, _ = await rig.one("a.png", encode(source, "PNG"), format="png", max_width=50)
    found = _decoded_elsewhere(path)
    seen = found[found[:, :, 3] > 40]
    assert seen[:, 0].min() > 240


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
async def test_16_bits_stay_16_bits_when_made_smaller(rig: Rig, bands: int) -> None:
    """With and without alpha: values are neither clipped nor scaled."""
    source = np.zeros((120, 160, bands), np.uint16)
    source[:, :] = [60_000, 40_000, 20_000, 65_535][:bands] if bands > 2 else [60_000, 50_000][:bands]
    data = imagecodecs.png_encode(np.squeeze(source), out=2 * source.nbytes + 4096)
    path, output = await rig.one("a.png", data, format="png", max_width=40)
    found = _decoded_elsewhere(path).reshape(30, 40, bands)
    assert found.dtype == np.uint16
    assert np.abs(found.astype(int) - source[:30, :40]).max() <= 2
    assert output.detail["compared"] is True


@pytest.mark.skipif("heif" not in abilities().get("load", ()), reason="this libvips reads no HEIF")
async def test_heif_is_read_with_its_exif(rig: Rig, tmp_path: Path) -> None:
    """A telephone's picture: made by libheif, which turns it upright by itself."""
    (tmp_path / "a.jpg").write_bytes(with_exif("JPEG"))
    made = subprocess.run(["vips", "copy", "a.jpg", "a.heic"], cwd=tmp_path, capture_output=True, check=False)
    if made.returncode:
        pytest.skip("the vips program here writes no HEIF")
    path, _ = await rig.one("a.heic", (tmp_path / "a.heic").read_bytes())
    assert decoded(path).shape == (200, 300, 3)
    with Image.open(path) as image:
        assert image.getexif()[271] == "Phase One"
        assert image.getexif().get_ifd(0x8769)[0x8827] == 200


async def test_sizes_are_chosen_by_name_and_by_a_file_beside(rig: Rig) -> None:
    """The smallest of all that fit; side-cars are neither images nor unexpected files."""
    data = encode(pixels(600, 400), "PNG")
    rules = [
        {"sidecar": ".copyright", "max_width": 300},
        {"sidecar": "RIGHTS.txt", "max_height": 100},
        {"match": "thumb/*", "max_width": 60},
        {"match": "*_S.png", "max_width": 30},
    ]
    details = await rig.details(
        {
            "a.png": data,
            "b.png": data,
            "b.copyright": "",
            "c.png": data,
            "C.PNG.copyright": "",
            "x": {"d.png": data, "e_s.png": data, "rights.TXT": ""},
            "thumb": {"f.png": data},
        },
        format="jpeg", max_width=500, enlarge=True, sizes=rules, others="fail",
    )  # fmt: skip
    assert {name: detail["width"] for name, detail in details.items()} == {
        "a.jpg": 500,
        "b.jpg": 300,
        "c.jpg": 300,
        "x/d.jpg": 150,
        "x/e_s.jpg": 30,
        "thumb/f.jpg": 60,
    }


async def test_a_sidecar_that_comes_later_makes_the_image_anew(rig: Rig) -> None:
    """What an earlier try made is kept only if it would be made the same way now."""
    data = encode(pixels(600, 400), "PNG")
    rules = [{"sidecar": ".copyright", "max_width": 300}]
    for more, width in (({}, 600), ({"a.copyright": ""}, 300)):
        ((_, detail),) = (await rig.details({"a.png": data, **more}, format="jpeg", sizes=rules)).items()
        assert detail["width"] == width


# -- resolution ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["pyramid-tiff", "jpeg", "png", "jp2"])
@pytest.mark.parametrize("source", ["TIFF", "JPEG", "PNG"])
async def test_resolution_is_the_sources_own_and_shrinks_with_it(rig: Rig, form: str, source: str) -> None:
    """400 dpi at half the size are 200: what was 10 cm wide still is."""
    data = encode(pixels(600, 400), source, dpi=(400, 400))
    path, output = await rig.one("a.x", data, match=["*"], **copy_as(form), max_width=300)
    assert output.detail["dpi"] == pytest.approx([200, 200], abs=0.1)
    with Image.open(path) as image:
        assert [round(float(value)) for value in image.info["dpi"]] == [200, 200]


@pytest.mark.parametrize("form", ["pyramid-tiff", "jpeg", "png", "jp2"])
@pytest.mark.parametrize("source", ["TIFF", "JPEG", "PNG", "WEBP", "GIF"])
async def test_no_resolution_is_invented(rig: Rig, form: str, source: str) -> None:
    """Libvips says 72 or 25.4 dpi of what says nothing."""
    path, output = await rig.one("a.x", encode(pixels(90, 60), source), match=["*"], **copy_as(form))
    assert "dpi" not in output.detail
    with Image.open(path) as image:
        if form == "pyramid-tiff":
            assert image.tag_v2[296] == 1  # ResolutionUnit: none
        else:
            assert "dpi" not in image.info


# -- colour and metadata ---------------------------------------------------------------------


async def test_colours_are_kept_or_transformed_by_the_profile(rig: Rig, tmp_path: Path) -> None:
    """As another colour engine does it; a kept profile is the same to the byte."""
    data = wide_gamut(tmp_path)
    with Image.open(io.BytesIO(data)) as source:
        profile = source.info["icc_profile"]
        there = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        wanted = np.asarray(
            ImageCms.profileToProfile(source, ImageCms.ImageCmsProfile(io.BytesIO(profile)), there)
        )
        kept = np.asarray(source)
    for form in ({"compression": "deflate"}, {"format": "png"}, copy_as("jp2")):
        path, output = await rig.one("a.tif", data, **form)
        with Image.open(path) as image:
            assert image.info.get("icc_profile") == profile or (
                path.suffix == ".jp2" and profile in path.read_bytes()
            )
        assert output.detail["lossless"] is True
        path, output = await rig.one("a.tif", data, **form, colour="srgb")
        assert "made sRGB by its profile" in output.detail["changes"][0]
        assert np.abs(decoded(path).astype(int) - wanted).max() <= 2
        assert np.abs(decoded(path).astype(int) - kept).max() > 5


async def test_an_srgb_profile_is_left_alone(rig: Rig) -> None:
    """Once more would only round."""
    _, output = await rig.one("a.jpg", with_everything(), compression="deflate", colour="srgb")
    assert output.detail["lossless"] is True


@pytest.mark.parametrize("form", ["jpeg", "png"])
async def test_metadata_is_carried_where_the_format_holds_it(rig: Rig, form: str) -> None:
    """Profile and XMP to the byte, EXIF by its fields, as Pillow reads them."""
    data = with_everything()
    path, output = await rig.one("a.jpg", data, format=form)
    assert "lost" not in output.detail
    with Image.open(path) as image, Image.open(io.BytesIO(data)) as source:
        assert image.info["icc_profile"] == source.info["icc_profile"]
        found = image.info.get("xmp") or image.info["XML:com.adobe.xmp"].encode()
        assert found == XMP
        assert image.getexif()[0x010F] == "Phase One"
        assert float(image.getexif().get_ifd(0x8769)[0x829A]) == 1 / 125


async def test_what_is_lost_is_said(rig: Rig) -> None:
    """In the output and in the step's event: tiles have pixels alone."""
    details = await rig.details(
        {"a.jpg": with_everything(), "b.tif": tiff(90, 60, software="ScanStation", description="folio 1r")},
        **IIIF,
    )
    assert details["a.iiif/info.json"]["lost"] == ["XMP", "EXIF"]
    assert details["b.iiif/info.json"]["lost"] == ["TIFF ImageDescription", "TIFF Software"]
    (event,) = [event for event in rig.ctx.events if event.type.value == "migration"]
    assert "not carried over: " in event.detail
    assert "EXIF (1)" in event.detail


def with_exif(kind: str, **options: Any) -> bytes:
    """Return an image with tags of every kind of value, in EXIF and GPS."""
    image = Image.fromarray(pixels(300, 200))
    exif = image.getexif()
    exif[0x010F], exif[0x0110], exif[0x013B], exif[0x8298] = "Phase One", "IQ4", "Zoë", "© Museum"
    inner = exif.get_ifd(0x8769)
    inner[0x829A], inner[0x9003], inner[0x8827] = IFDRational(1, 125), "2026:01:02 03:04:05", 200
    inner[0x9286] = b"ASCII\0\0\0a note of the operator"
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2] = "N", (IFDRational(50, 1), IFDRational(56, 1), IFDRational(1234, 100))
    return encode(image, kind, exif=exif, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("options", [{}, {"compression": "deflate"}, {"max_width": 100}])
async def test_exif_reaches_a_pyramid(rig: Rig, kind: str, options: dict[str, Any]) -> None:
    """Which libvips leaves out: people's and devices' tags, EXIF and GPS, as Pillow reads them."""
    data = with_exif("JPEG" if kind == "TIFF" else kind)
    if kind == "TIFF":  # Pillow writes none
        data = (await rig.one("a.x", data, match=["*"]))[0].read_bytes()
    path, output = await rig.one("a.x", data, match=["*"], **options)
    assert "lost" not in output.detail
    with Image.open(path) as image, Image.open(io.BytesIO(data)) as source:
        found, wanted = image.getexif(), source.getexif()
        assert {tag: found[tag] for tag in (271, 272, 315, 33432)} == {
            tag: wanted[tag] for tag in (271, 272, 315, 33432)
        }
        for ifd in (0x8769, 0x8825):
            assert dict(found.get_ifd(ifd)) == dict(wanted.get_ifd(ifd)) != {}
        assert image.size[0] == options.get("max_width", 300)
        assert found.get(274, 1) == 1
        for page in range(getattr(image, "n_frames", 1)):
            image.seek(page)  # the directories still lead to the pixels
            image.load()


@pytest.mark.parametrize("order", ["II", "MM"])
async def test_exif_of_either_byte_order(rig: Rig, order: str) -> None:
    """A camera's is often the other one."""
    import struct

    mark = "<" if order == "II" else ">"
    text = b"Phase One\0"
    inner = 8 + 2 + 12 * 2 + 4 + len(text)
    block = order.encode() + struct.pack(mark + "HI", 42, 8) + struct.pack(mark + "H", 2)
    block += struct.pack(mark + "HHII", 0x010F, 2, len(text), 8 + 2 + 24 + 4)
    block += struct.pack(mark + "HHII", 0x8769, 4, 1, inner) + struct.pack(mark + "I", 0) + text
    block += struct.pack(mark + "H", 2) + struct.pack(mark + "HHIHH", 0x8827, 3, 1, 400, 0)
    block += struct.pack(mark + "HHII", 0x829A, 5, 1, inner + 2 + 24 + 4) + struct.pack(mark + "I", 0)
    block += struct.pack(mark + "II", 1, 250)
    path, output = await rig.one("a.jpg", encode(pixels(90, 60), "JPEG", exif=b"Exif\0\0" + block))
    with Image.open(path) as image:
        inner_tags = image.getexif().get_ifd(0x8769)
        assert image.getexif()[271] == "Phase One"
        assert inner_tags[0x8827] == 400
        assert float(inner_tags[0x829A]) == 1 / 250
    assert "lost" not in output.detail


@pytest.mark.parametrize("form", ["jpeg", "jp2"])
async def test_a_tiffs_own_tags_reach_a_derivative(rig: Rig, form: str) -> None:
    """Who made it and whose it is: as EXIF."""
    pyramid, _ = await rig.one("a.jpg", with_exif("JPEG"))
    data = pyramid.read_bytes()
    (rig.payload / "a.jpg").unlink()
    path, output = await rig.one("a.tif", data, format=form)
    assert "lost" not in output.detail
    block = path.read_bytes()
    assert b" Museum\0" in block
    if form == "jpeg":
        with Image.open(path) as image:
            assert image.getexif()[33432] == Image.open(io.BytesIO(data)).getexif()[33432]
            assert image.getexif().get_ifd(0x8769)[0x8827] == 200
            assert image.getexif().get_ifd(0x8825)[1] == "N"
            assert image.info["jfif_unit"] == 0


async def test_bits_and_palettes_are_told(rig: Rig) -> None:
    """Libvips makes 8 bits and colours of them without a word."""
    image = Image.fromarray(pixels(60, 40))
    details = await rig.details(
        {
            "a.tif": encode(image.convert("1"), "TIFF"),
            "b.png": encode(image.convert("1"), "PNG"),
            "c.png": encode(image.convert("P"), "PNG"),
            "d.tif": encode(image.convert("P"), "TIFF"),
            "e.gif": encode(image, "GIF"),
        },
        compression="deflate",
    )
    assert {name: detail["changes"] for name, detail in details.items()} == {
        "a.tif": ["1 bit made 8"],
        "b.tif": ["1 bit made 8"],
        "c.tif": ["palette made colours"],
        "d.tif": ["palette made colours"],
        "e.tif": ["palette made colours"],
    }


@pytest.mark.parametrize("bits", [10, 12])
async def test_bits_between_8_and_16_are_scaled_and_told(rig: Rig, bits: int) -> None:
    """White stays white; a JPEG 2000 of 12 bits is not a picture in the dark."""
    ramp = np.tile(np.linspace(0, 2**bits - 1, 256).astype(np.uint16), (64, 1))
    data = imagecodecs.jpeg2k_encode(ramp, level=0, bitspersample=bits)
    path, output = await rig.one("a.jp2", data, compression="deflate")
    assert output.detail["changes"] == [f"{bits} bits made 16"]
    assert np.array_equal(decoded(path) >> (16 - bits), ramp)
    path, output = await rig.one("a.jp2", data)
    assert decoded(path).max() >= 254


@pytest.mark.parametrize("kind", ["none", "of another space"])
async def test_a_profile_that_does_not_fit_is_no_reason_to_invent_colours(rig: Rig, kind: str) -> None:
    """Libvips takes its own in its place without a word."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    data = tiff(90, 60, icc_profile=b"x" * 500 if kind == "none" else lab)
    path, output = await rig.one("a.tif", data, format="png", colour="srgb")
    assert output.detail["changes"] == ["an ICC profile that does not fit left out"]
    assert output.detail["lost"] == ["ICC profile"]
    assert np.array_equal(decoded(path), pixels(90, 60))


async def test_xmp_that_a_jpeg_has_no_room_for_is_told(rig: Rig) -> None:
    """A segment holds 64 KiB."""
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/">' + b" " * 100_000 + b"</x:xmpmeta>"
    data = tiff(60, 40, tiffinfo={700: xmp})
    path, output = await rig.one("a.tif", data, format="jpeg")
    assert output.detail["lost"] == ["XMP"]
    path, output = await rig.one("a.tif", data, format="jp2")
    assert xmp in path.read_bytes()


# -- pages -----------------------------------------------------------------------------------


def document(kind: str, count: int, *, seed: int = 1) -> bytes:
    """Return a file of several pages."""
    made = [Image.fromarray(pixels(120, 80, seed=seed + i)) for i in range(count)]
    return encode(made[0], kind, save_all=True, append_images=made[1:])


@pytest.mark.parametrize("kind", ["TIFF", "PDF"])
async def test_every_page_becomes_a_result_of_its_own(rig: Rig, kind: str) -> None:
    """Numbered as in the file; a single page is not numbered."""
    details = await rig.details(
        {"a.x": document(kind, 3), "b.x": document(kind, 1)},
        match=["*"],
        pages="all",
        dpi=72,
        compression="deflate",
    )
    assert sorted(details) == ["a-0001.tif", "a-0002.tif", "a-0003.tif", "b.tif"]
    assert [details[f"a-000{i}.tif"]["page"] for i in (1, 2, 3)] == [1, 2, 3]
    assert "warnings" not in details["a-0001.tif"]
    found = [decoded(rig.ctx.work / f"a-000{i}.tif") for i in (1, 2, 3)]
    if kind == "TIFF":
        for i, page in enumerate(found):
            assert np.array_equal(page, pixels(120, 80, seed=1 + i))
    assert not np.array_equal(found[0], found[1])


async def test_a_bad_page_fails_its_image_and_leaves_none_of_its_pages(rig: Rig) -> None:
    """Those before it are not half of a book."""
    with pytest.raises(ItemError, match="1 of 2 images"):
        await rig.convert({"a.tif": document("TIFF", 3)[:-20_000], "b.tif": tiff()}, pages="all")
    assert set(read_tree(rig.ctx.work)) == {b"b.tif"}


async def test_the_time_limit_is_for_each_page(rig: Rig) -> None:
    """A book takes long; a page does not."""
    pages = [Image.fromarray(pixels(900, 900, seed=i)) for i in range(8)]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    details = await rig.details({"a.tif": data}, pages="all", compression="deflate", timeout="3s")
    assert len(details) == 8


async def test_a_range_of_pages(rig: Rig) -> None:
    """One that is truncated is warned of; an image without any of them is a bad one."""
    details = await rig.details({"a.tif": document("TIFF", 3)}, pages="2-5")
    assert sorted(details) == ["a-0002.tif", "a-0003.tif"]
    assert details["a-0002.tif"]["warnings"] == ["it has only 3 pages of 2-5"]
    with pytest.raises(ItemError, match="it has 1 page, and pages: 2-5 are required"):
        await rig.convert({"a.tif": tiff()}, pages="2-5")
    assert read_tree(rig.ctx.work) == {}


async def test_the_levels_of_a_pyramid_are_no_pages(rig: Rig) -> None:
    """A pyramid that is converted again stays one image."""
    path, _ = await rig.one("a.tif", tiff(800, 600))
    details = await rig.details({"a.tif": path.read_bytes()}, pages="all")
    assert list(details) == ["a.tif"]


async def test_pages_take_no_other_images_name(rig: Rig) -> None:
    """a-0001.jpg beside a.pdf, and beside a.tif too."""
    one = encode(pixels(20, 10), "PNG")
    what: dict[str | bytes, Any] = {
        "a.x": document("TIFF", 2),
        "a-0001.png": one,
        "a-0002.PNG": one,
        "A.y": one,
    }
    ctx = await rig.convert(what, match=["*"], pages="all")
    made = [output.path for output in ctx.outputs]
    assert sorted(made) == [
        b"A.y.tif",
        b"a-0001.png.tif",
        b"a-0002.PNG.tif",
        b"a.x-0001.tif",
        b"a.x-0002.tif",
    ]
    assert set(read_tree(ctx.work)) == set(made)


async def test_a_pdf_is_drawn_at_the_dpi_asked_for(rig: Rig) -> None:
    """And says so."""
    path, output = await rig.one("a.pdf", document("PDF", 1), match=["*.pdf"], dpi=144)
    assert levels(path)[0] == (240, 160)
    assert output.detail["dpi"] == [144.0, 144.0]
    assert output.detail["changes"][0] == "drawn at 144 dpi"


# -- names -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", SUFFIXES)
async def test_no_two_results_are_called_alike(rig: Rig, form: str) -> None:
    """a/p1.tif, b/p1.tif and a/p1.jpg, and folders named like results; nothing is lost in another."""
    end = SUFFIXES[form]
    one, more = encode(pixels(20, 10), "PNG"), IIIF if form == "iiif-static" else {"format": form}
    ctx = await rig.convert(
        {
            "a": {"p1.tif": tiff(20, 10), "p1.jpg": jpeg(20, 10), "P1.png": one},
            "b": {"p1.tif": tiff(20, 10)},
            "c.webp": one,
            f"c{end}": {"d é.png": one},
        },
        **more,
    )
    made = {output.path.decode().split(end + "/info.json")[0] for output in ctx.outputs if output.detail}
    made = {name.removesuffix(end) for name in made}
    assert made == {"a/p1.tif", "a/p1.jpg", "a/P1.png", "b/p1", "c.webp", f"c{end}/d é"}


# -- pyramids --------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "count"), [("tile", 3), ("pixel", 10), ("one", 1)])
async def test_a_pyramid_ends_where_it_is_to_end(rig: Rig, wanted: str, count: int) -> None:
    """With one tile, one pixel, or at once."""
    path, output = await rig.one("a.png", encode(pixels(700, 513), "PNG"), levels=wanted)
    assert output.detail["levels"] == count == len(levels(path))


@pytest.mark.parametrize(("quality", "meaning"), [(89, 6), (90, 2)])
async def test_from_quality_90_on_tiles_are_rgb(rig: Rig, quality: int, meaning: int) -> None:
    """Libvips' own rule, said in the reference: PhotometricInterpretation is YCbCr below, RGB above."""
    path, _ = await rig.one("a.png", encode(pixels(300, 200), "PNG"), quality=quality)
    with Image.open(path) as image:
        assert image.tag_v2[262] == meaning


@pytest.mark.parametrize(("subsampling", "factors"), [("on", (2, 2)), ("off", (1, 1))])
async def test_a_jpegs_colour_is_subsampled_or_not(rig: Rig, subsampling: str, factors: Any) -> None:
    """Whatever the quality."""
    for quality in (80, 95):
        path, _ = await rig.one(
            "a.png", encode(pixels(90, 60), "PNG"), format="jpeg", quality=quality, subsampling=subsampling
        )
        with Image.open(path) as image:
            assert image.layer[0][1:3] == factors  # type: ignore[attr-defined]


# -- what is refused before it begins --------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "png", "quality": 80}, "quality means nothing with format: png"),
        ({"format": "jpeg", "compression": "lzw"}, "compression means nothing"),
        ({"format": "iiif-static"}, "iiif_id is required"),
        ({"format": "iiif-static", "iiif_id": "https://x/"}, "iiif_id is required"),
        ({"enlarge": True}, "enlarge needs max_width"),
        ({"subsampling": "off"}, "subsampled below quality 90"),
        ({"subsampling": "on", "quality": 95}, "subsampled below quality 90"),
        ({"pages": "5-2"}, "pages such as"),
        ({"pages": "some"}, "pages such as"),
        ({"sizes": [{"match": "*"}]}, "max_width, max_height or both"),
        ({"sizes": [{"sidecar": "a/b", "max_width": 1}]}, "without a folder"),
        ({"tile": 96}, "a power of two"),
    ],
)
def test_options_that_mean_nothing_or_cannot_be_are_refused(options: dict[str, Any], words: str) -> None:
    """Rather than left unheeded."""
    with pytest.raises(ValueError, match=words):
        ConvertOptions.model_validate(options)


def test_what_this_build_cannot_do_is_refused_at_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a libvips without JPEG 2000 and PDF."""
    lean = abilities() | {"formats": ["pyramid-tiff", "jpeg"], "load": ["tiff", "jpeg", "png"]}
    monkeypatch.setattr("dittohead.workers.convert.abilities", lambda: lean)
    check = ConvertWorker().check
    assert check(ConvertOptions()) == []  # *.jp2 is there by default and nobody asked for it
    assert "cannot write jp2; it can: pyramid-tiff, jpeg" in check(ConvertOptions(format="jp2"))[0]
    assert "cannot read *.PDF; it can: tiff" in check(ConvertOptions(match=["*.PDF"]))[0]
    assert "PostScript" in check(ConvertOptions(match=["*.eps"]))[0]


def test_the_recipe_holds_what_decides_the_result_and_nothing_else() -> None:
    """What it does not hold may change without an image being made again; what it holds may not."""
    base = ConvertOptions()
    for same in (
        {"timeout": 5},
        {"memory": "1GiB"},
        {"match": ["*.x"]},
        {"others": "fail"},
        {"tile": 256},
        {"colour": "keep"},
    ):
        assert ConvertOptions.model_validate(same).recipe() == base.recipe()
    lossless = ConvertOptions(compression="lzw")
    assert ConvertOptions(compression="lzw", quality=50).recipe() == lossless.recipe()
    for other in (
        {"quality": 80}, {"tile": 512}, {"levels": "one"}, {"colour": "srgb"}, {"max_width": 9}, {"max_height": 9},
        {"pages": "all"}, {"dpi": 200}, {"verify": False}, {"compression": "webp"}, {"format": "jpeg"},
        {"sizes": [{"max_width": 5}]}, {"max_width": 9, "enlarge": True},
    ):  # fmt: skip
        assert ConvertOptions.model_validate(other).recipe() != base.recipe()


async def test_postscript_and_too_large_jpegs_are_refused_with_a_way_out(rig: Rig, tmp_path: Path) -> None:
    """In words of what to do."""
    with pytest.raises(ItemError, match="PostScript is not drawn here; make a PDF"):
        await rig.one("a.tif", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    subprocess.run(["vips", "black", "b.png", "70000", "2"], cwd=tmp_path, check=True)
    with pytest.raises(ItemError, match=r"70000x2 is more than a JPEG holds.*set max_width"):
        await rig.one("a.tif", (tmp_path / "b.png").read_bytes(), format="jpeg")
