"""Colours are transformed as lcms, the reference, does it by itself: over profiles of every structure."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from dittohead.model.errors import ItemError
from dittohead.toolkit.images.icc import is_srgb
from tests.support.convert import Rig
from tests.support.images import decoded, encode
from tests.support.profiles import (
    formula,
    gamma_curve,
    grey,
    ink,
    matrix,
    new_table,
    old_table,
    profile,
    table_curve,
    wide,
)

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
OF_SRGB = np.array([[0.4361, 0.3851, 0.1431], [0.2225, 0.7169, 0.0606], [0.0139, 0.0971, 0.7141]])
SRGB_CURVE = formula(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, kind=3)

PERCEPTUAL, RELATIVE = ImageCms.Intent.PERCEPTUAL, ImageCms.Intent.RELATIVE_COLORIMETRIC


def lighter(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    return wide(rgb, gamma=1.2)


def tables(*names: bytes, make: Any = old_table, device: Any = wide, version: int = 2) -> bytes:
    """Return a profile of RGB by tables, the first of `device`, the others of another."""
    found = {name: make(3, lighter if n else device) for n, name in enumerate(names)}
    return profile(found, pcs=b"Lab ", version=version)


def four(*names: bytes, make: Any = old_table, version: int = 2) -> bytes:
    return profile(
        {name: make(4, ink) for name in names}, space=b"CMYK", pcs=b"Lab ", kind=b"prtr", version=version
    )


#: Profile, mode of the image, the intent whose table there is.
PROFILES: dict[str, tuple[bytes, str, ImageCms.Intent]] = {
    "matrix, v2, gamma": (matrix(gamma_curve(1.8)), "RGB", RELATIVE),
    "matrix, v4, formula": (matrix(SRGB_CURVE, version=4), "RGB", RELATIVE),
    "matrix, v2, table": (matrix(table_curve([(i / 63) ** 2.1 for i in range(64)])), "RGB", RELATIVE),
    "matrix, called sRGB": (matrix(gamma_curve(1.8), called="Linear sRGB IEC61966-2.1"), "RGB", RELATIVE),
    "primaries of sRGB, linear": (matrix(gamma_curve(1), OF_SRGB, called="sRGB"), "RGB", RELATIVE),
    "A2B0 alone, v2": (tables(b"A2B0"), "RGB", PERCEPTUAL),
    "A2B0 alone, v4": (tables(b"A2B0", make=new_table, version=4), "RGB", PERCEPTUAL),
    "A2B0 alone, v4, old table": (tables(b"A2B0", version=4), "RGB", PERCEPTUAL),
    "A2B0 and A2B1": (tables(b"A2B0", b"A2B1"), "RGB", RELATIVE),
    "A2B1, v4": (tables(b"A2B0", b"A2B1", make=new_table, version=4), "RGB", RELATIVE),
    "A2B0 and A2B2": (tables(b"A2B0", b"A2B2"), "RGB", PERCEPTUAL),
    "grey, gamma": (grey(gamma_curve(1.6)), "L", RELATIVE),
    "grey, v4, table": (grey(table_curve([(i / 255) ** 2.6 for i in range(256)]), version=4), "L", RELATIVE),
    "CMYK, A2B0 alone": (four(b"A2B0"), "CMYK", PERCEPTUAL),
    "CMYK, A2B0 and A2B1": (four(b"A2B0", b"A2B1"), "CMYK", RELATIVE),
    "CMYK, v4": (four(b"A2B0", b"A2B1", make=new_table, version=4), "CMYK", RELATIVE),
}


def chart(mode: str) -> Image.Image:
    """Return steps of every channel, and all of them together."""
    bands = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
    random = np.random.default_rng(3).integers(0, 256, (48, 64, bands))
    random[:8] = np.linspace(0, 255, 64).round()[None, :, None]
    return Image.fromarray(np.squeeze(random.astype(np.uint8)), mode=None if mode != "CMYK" else "CMYK")


def by_lcms(icc: bytes, mode: str, intent: ImageCms.Intent) -> NDArray[np.int_]:
    transform = ImageCms.buildTransform(
        ImageCms.ImageCmsProfile(io.BytesIO(icc)),
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        intent,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    return np.asarray(ImageCms.applyTransform(chart(mode), transform)).astype(int)


async def test_colours_are_those_of_lcms(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    what: dict[str | bytes, Any] = {
        f"{kind}.tif": encode(chart(mode), "TIFF", icc_profile=icc)
        for kind, (icc, mode, _) in PROFILES.items()
    }
    ctx = await rig.convert(what, format="png", colour="srgb")
    found = {os.fsdecode(output.path): output for output in ctx.outputs}
    for kind, (icc, mode, intent) in PROFILES.items():
        output = found[f"{kind}.png"]
        assert "by its profile" in output.detail["changes"][0], kind
        with Image.open(ctx.work / f"{kind}.png") as image:
            assert is_srgb(image.info["icc_profile"])
            made = np.asarray(image.convert("RGB")).astype(int)
        difference = np.abs(made - by_lcms(icc, mode, intent))
        assert difference.mean() < 0.6, (kind, difference.mean())
        assert np.percentile(difference, 99) <= 3, (kind, difference.max())
        # And nowhere near untouched.
        plain = np.asarray(chart(mode).convert("RGB")).astype(int)
        assert np.abs(made - plain).mean() > 3, kind


@pytest.mark.parametrize(
    ("icc", "wanted"),
    [
        (SRGB, True),
        (matrix(SRGB_CURVE, OF_SRGB, version=4, called="mine"), True),
        (matrix(formula(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0, 0, kind=4), OF_SRGB), True),
        (matrix(gamma_curve(2.2), OF_SRGB, called="sRGB IEC61966-2.1"), False),
        (matrix(gamma_curve(1), OF_SRGB, called="Linear sRGB"), False),
        (matrix(SRGB_CURVE, called="sRGB IEC61966-2.1"), False),
        (tables(b"A2B0"), False),
        (grey(SRGB_CURVE), False),
        (SRGB[:200], False),
        (SRGB[:300].ljust(600, b"\xff"), False),
        (b"", False),
    ],
)
def test_srgb_is_known_by_its_content(icc: bytes, wanted: bool) -> None:
    assert is_srgb(icc) is wanted


async def test_a_profile_that_cannot_be_used_fails_the_image(tmp_path: Path) -> None:
    """It would be put aside with a warning, which would call the untouched pixels sRGB."""
    broken = bytearray(tables(b"A2B0"))
    broken[broken.index(b"mft2")] = ord("x")
    data = encode(chart("RGB"), "TIFF", icc_profile=bytes(broken))
    for form in ("png", "jpeg", "pyramid-tiff"):
        with pytest.raises(ItemError, match=r"colours cannot be transformed|profile"):
            await Rig(tmp_path / form).convert({"a.tif": data}, format=form, colour="srgb")
    path, output = await Rig(tmp_path / "keep").one("a.tif", data, format="png")
    assert "changes" not in output.detail
    assert np.array_equal(decoded(path), np.asarray(chart("RGB")))


IIIF = {"format": "iiif-static", "iiif_id": "https://iiif.example.org/{path}"}


@pytest.mark.parametrize("options", [{"format": "jp2", "master": False}, {"format": "png"}, {}, IIIF])
async def test_a_profile_that_does_not_fit_is_left_out_everywhere(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    """Of RGB on grey, of grey on RGB, of ink on both, one of no device, noise."""
    link = bytearray(matrix(gamma_curve(1.8)))
    link[12:16] = b"link"
    what: dict[str | bytes, Any] = {}
    for mode in ("L", "RGB"):
        for name, icc in {"ink": four(b"A2B0"), "link": bytes(link), "noise": b"none" * 60}.items():
            what[f"{name}-{mode}.tif"] = encode(chart(mode), "TIFF", icc_profile=icc)
    what["rgb-L.tif"] = encode(chart("L"), "TIFF", icc_profile=SRGB)
    what["grey-RGB.tif"] = encode(chart("RGB"), "TIFF", icc_profile=grey(gamma_curve(1.6)))
    rig = Rig(tmp_path)
    details = await rig.details(what, **options)
    assert len(details) == len(what)
    for name, detail in details.items():
        assert detail["changes"][0] == "an ICC profile that does not fit left out", name
        assert "ICC profile" in detail["lost"], name
        assert detail["bands"] == (1 if "-L" in name else 3), name
        if options.get("format") == "jp2":
            data = (rig.ctx.work / name).read_bytes()
            assert data[data.index(b"colr") + 4] == 1, name  # by number


async def test_a_profile_that_the_format_cannot_hold_is_used(tmp_path: Path) -> None:
    """Else its pixels would pass for sRGB."""
    path, output = await Rig(tmp_path / "a").one(
        "a.tif", encode(chart("RGB"), "TIFF", icc_profile=tables(b"A2B0")), format="jp2", master=False
    )
    assert output.detail["changes"] == ["made sRGB by its profile (of a test)"]
    made = np.asarray(imagecodecs.jpeg2k_decode(path.read_bytes())).astype(int)
    assert np.abs(made - by_lcms(tables(b"A2B0"), "RGB", PERCEPTUAL)).mean() < 0.6
    icc = grey(gamma_curve(1.6))
    path, output = await Rig(tmp_path / "b").one(
        "a.tif", encode(chart("L"), "TIFF", icc_profile=icc), compression="webp", quality=100
    )
    assert output.detail["changes"][0] == "made sRGB by its profile (of a test)"
    assert np.abs(tifffile.imread(path).astype(int) - by_lcms(icc, "L", RELATIVE)).mean() < 3


@pytest.mark.parametrize(
    "options", [{"format": "png"}, {"format": "jpeg"}, {"colour": "srgb", "compression": "deflate"}, IIIF]
)
async def test_floating_point_colours_are_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    """Nobody knows what white is in them; libvips calls them scRGB, and made them lighter."""
    out = io.BytesIO()
    tifffile.imwrite(out, np.full((30, 40, 3), 0.5, np.float32), photometric="rgb")
    with pytest.raises(ItemError, match="floating-point numbers of unknown range"):
        await Rig(tmp_path).convert({"a.tif": out.getvalue()}, **options)
