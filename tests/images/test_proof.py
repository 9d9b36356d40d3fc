"""The digest of samples is the same for every decoder, and another when one sample is."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from dittohead.toolkit.images import jp2, jp2_structure, proof
from dittohead.toolkit.images.proof import Samples, prove
from dittohead.toolkit.images.reasons import RefusedImage
from tests.images.test_jp2_structure import image_of
from tests.support.images import encode, pixels

COMPRESSIONS = [None, "lzw", "zlib", "packbits", "zstd"]


def digest_of(array: Any) -> str:
    """Return the digest as the layout's description alone says, in another way than ours."""
    height, width, bands = array.shape
    bits = array.dtype.itemsize * 8
    line = f"width={width} height={height} bands={bands} bits={bits} unsigned\n".encode()
    values = b"".join(int(value).to_bytes(bits // 8, "big") for value in array.reshape(-1))
    return hashlib.sha256(line + values).hexdigest()


def digest_by_tifffile(path: Path, page: int, shape: tuple[int, int, int], bits: int) -> tuple[str, str]:
    def never() -> Any:
        raise AssertionError("libvips was asked")

    with open(path, "rb") as file:
        height, width, bands = shape
        return proof._source(file.fileno(), page, never, Samples(width, height, bands, bits))


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_layout_is_what_its_description_says(dtype: Any, bands: int) -> None:
    array = pixels(7, 5, bands, dtype).reshape(5, 7, bands)
    samples = Samples(7, 5, bands, array.dtype.itemsize * 8)
    samples.add(array[:2])
    samples.add(array[2:].astype(array.dtype.newbyteorder(">")))  # whatever order they come in
    assert samples.hexdigest() == digest_of(array)


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("layout", ["strips", "one strip", "tiles", "planes", "planes in tiles"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_every_layout_of_a_tiff_is_read(tmp_path: Path, compression: Any, layout: str, order: str) -> None:
    """Strips and tiles that the image does not fill, planes, both byte orders; on the second page."""
    array = pixels(301, 203, 3, np.uint16)
    options: dict[str, Any] = {"photometric": "rgb", "compression": compression}
    if layout == "one strip":
        options["rowsperstrip"] = 203
    elif "strips" in layout or layout == "planes":
        options["rowsperstrip"] = 17
    if "tiles" in layout:
        options["tile"] = (64, 48)
    given = array
    if "planes" in layout:
        options["planarconfig"], given = "separate", array.transpose(2, 0, 1)
    if compression in ("lzw", "zlib", "zstd"):
        options["predictor"] = True
    with tifffile.TiffWriter(tmp_path / "a.tif", byteorder=order) as file:
        file.write(pixels(20, 10, 3), photometric="rgb")
        file.write(given, **options)
    found, reader = digest_by_tifffile(tmp_path / "a.tif", 2, array.shape, 16)
    assert found == digest_of(array)
    assert reader.startswith("tifffile ")


@pytest.mark.parametrize("kind", ["JPEG in TIFF", "JPEG", "a strip too large"])
def test_what_is_not_read_elsewhere_is_read_by_libvips_again_and_that_is_said(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    array, path = pixels(60, 40), tmp_path / "a"
    if kind == "JPEG in TIFF":
        path.write_bytes(encode(array, "TIFF", compression="jpeg"))
    elif kind == "JPEG":
        path.write_bytes(encode(array, "JPEG"))
    else:
        monkeypatch.setattr(proof, "_STRIP", 60 * 40 * 3 - 1)
        tifffile.imwrite(path, array, photometric="rgb", compression="zlib", rowsperstrip=40)
    with open(path, "rb") as file:
        found, reader = proof._source(file.fileno(), 1, lambda: image_of(array), Samples(60, 40, 3, 8))
    assert found == digest_of(array)
    assert reader.startswith("libvips 8.")
    assert reader.endswith(", a second time")


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize(("dtype", "bands"), [(np.uint8, 1), (np.uint8, 3), (np.uint16, 4)])
def test_one_sample_of_many_makes_another_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiles: bool, dtype: Any, bands: int
) -> None:
    """Whole and tile by tile: by one, in the last place."""
    if tiles:
        monkeypatch.setattr(proof, "_WHOLE", 0)
    array = pixels(200, 150, bands, dtype)
    other = array.copy()
    other[-1, -1] ^= 1
    for name, source in (("same", array), ("other", other)):
        photometric = "rgb" if bands > 2 else "minisblack"
        extra = {"extrasamples": ["unassalpha"]} if bands == 4 else {}
        tifffile.imwrite(tmp_path / name, source, photometric=photometric, **extra)
    with open(tmp_path / "a.jp2", "w+b") as made:
        wanted = jp2.write(image_of(array), made.fileno(), 64, None, b"")
        structure = jp2_structure.verify(made.fileno(), wanted)

        def proved(name: str) -> dict[str, Any]:
            with open(tmp_path / name, "rb") as source:
                return prove(source.fileno(), 1, lambda: None, made.fileno(), structure)

        evidence = proved("same")
        assert evidence["samples"] == f"sha256:{digest_of(array.reshape(150, 200, bands))}"
        assert evidence["result_decoder"].startswith("FFmpeg jpeg2000 (libavcodec ")
        assert evidence["result_decoder"].endswith(", tile by tile") is tiles
        with pytest.raises(RefusedImage, match="samples are not the source's: FFmpeg"):
            proved("other")


def test_a_tile_far_from_the_origin_is_read_by_itself(tmp_path: Path) -> None:
    """FFmpeg reads no image of more than 268 million pixels; its tiles it reads, with all their precincts."""
    side = 17_000
    spot = pixels(1024, 1024, 1)
    array = np.zeros((side, side), np.uint8)
    array[15_360:16_384, 15_360:16_384] = spot
    array[-616:, -616:] = spot[:616, :616]
    with open(tmp_path / "a.jp2", "w+b") as made:
        wanted = jp2.write(image_of(array), made.fileno(), 1024, None, b"")
        structure = jp2_structure.verify(made.fileno(), wanted)
        for tile, rows in ((15 * 17 + 15, spot), (16 * 17 + 16, spot[:616, :616])):
            found = proof._by_ffmpeg(jp2_structure.cut(made.fileno(), structure, tile))
            assert np.array_equal(found[:, :, 0], rows)
        with pytest.raises(RefusedImage, match="cannot read the result"):
            proof._by_ffmpeg((tmp_path / "a.jp2").read_bytes())


@pytest.mark.parametrize("tiles", [False, True])
def test_damage_within_packets_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiles: bool) -> None:
    """The structure does not see it; the samples are others, or there are none."""
    if tiles:
        monkeypatch.setattr(proof, "_WHOLE", 0)
    array = pixels(200, 150, 3)
    tifffile.imwrite(tmp_path / "a.tif", array, photometric="rgb")
    chance = np.random.default_rng(4)
    with open(tmp_path / "a.jp2", "w+b") as made, open(tmp_path / "a.tif", "rb") as source:
        wanted = jp2.write(image_of(array), made.fileno(), 64, None, b"")
        whole = jp2_structure.verify(made.fileno(), wanted)
        for _ in range(12):
            part = whole.parts[chance.integers(len(whole.parts))]
            at = int(chance.integers(part.data + (part.end - part.data) // 2, part.end - 8))
            (before,) = os.pread(made.fileno(), 1, at)
            os.pwrite(made.fileno(), bytes([before ^ 1 << int(chance.integers(8))]), at)
            structure = jp2_structure.verify(made.fileno(), wanted)
            with pytest.raises(RefusedImage):
                prove(source.fileno(), 1, lambda: None, made.fileno(), structure)
            os.pwrite(made.fileno(), bytes([before]), at)
        prove(source.fileno(), 1, lambda: None, made.fileno(), whole)


@pytest.mark.parametrize("rows", [4, 6])
def test_rows_too_few_or_too_many_are_no_image(rows: int) -> None:
    samples = Samples(7, 5, 3, 8)
    samples.add(pixels(7, rows, 3))
    with pytest.raises(RefusedImage, match="1 rows too (few|many)"):
        samples.hexdigest()


@pytest.mark.parametrize(
    "rows", [pixels(7, 5, 4), pixels(8, 5, 3), pixels(7, 5, 3, np.uint16), pixels(7, 5, 3).astype(np.int8)]
)
def test_samples_of_another_kind_are_no_part_of_it(rows: Any) -> None:
    with pytest.raises(RefusedImage):
        Samples(7, 5, 3, 8).add(rows)


def test_a_source_cut_short_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels(300, 200), photometric="rgb")
    os.truncate(tmp_path / "a.tif", (tmp_path / "a.tif").stat().st_size - 1000)
    with pytest.raises(RefusedImage, match="ends early"):
        digest_by_tifffile(tmp_path / "a.tif", 1, (200, 300, 3), 8)
