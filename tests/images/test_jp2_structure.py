"""A JP2 is read from end to end: a byte that is another anywhere but in the pixels is found."""

from __future__ import annotations

import dataclasses
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from jpylyzer import jpylyzer

from dittohead.toolkit.images import jp2, jp2_structure
from dittohead.toolkit.images.jp2_structure import COM, ExpectedStructure, Structure, cut, verify
from dittohead.toolkit.images.library import pyvips
from dittohead.toolkit.images.reasons import RefusedImage
from tests.support.images import pixels

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


def image_of(array: Any) -> pyvips.Image:
    bands = array.shape[2] if array.ndim == 3 else 1
    form, colour = ("ushort", "rgb16") if array.dtype == np.uint16 else ("uchar", "srgb")
    image = pyvips.Image.new_from_memory(array.tobytes(), array.shape[1], array.shape[0], bands, form)
    return image.copy(interpretation=colour if bands >= 3 else "grey16" if form == "ushort" else "b-w")


class Made:
    """A JP2 with everything in it, of four tiles."""

    def __init__(self, path: Path, array: Any, **options: Any) -> None:
        image = image_of(array)
        image.set_type(pyvips.GValue.blob_type, "xmp-data", XMP)
        self.path, self.array = path, array
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        self.wanted = jp2.write(image, self.fd, 64, (300 / 25.4, 200 / 25.4), b"II*\0exif", **options)

    @property
    def structure(self) -> Structure:
        return verify(self.fd, self.wanted)

    def with_bytes(self, at: int, data: bytes) -> None:
        os.pwrite(self.fd, data, at)


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    found = Made(tmp_path / "a.jp2", pixels(100, 90, 4))
    yield found
    os.close(found.fd)


def quiet(structure: Structure, data: bytes) -> set[int]:
    """Return the places whose bytes say nothing of the structure: packets, and the comment."""
    found: set[int] = set()
    for part in structure.parts:
        found.update(range(part.data, part.end))
    text = next(content for marker, content in structure.segments if marker == COM)
    at = data.index(text) + 2
    return found | set(range(at, at + len(text) - 2))


def test_every_byte_of_every_header_counts(made: Made) -> None:
    """Each bit of each byte outside the packets is turned round, and seen."""
    data = made.path.read_bytes()
    left = quiet(made.structure, data)
    unseen = []
    for at in sorted(set(range(len(data))) - left):
        for bit in range(8):
            made.with_bytes(at, bytes([data[at] ^ 1 << bit]))
            try:
                verify(made.fd, made.wanted)
            except RefusedImage:
                pass
            else:
                unseen.append((at, bit))
        made.with_bytes(at, data[at : at + 1])
    assert unseen == []
    verify(made.fd, made.wanted)  # it is whole again


def test_a_file_cut_short_or_grown_anywhere_is_refused(made: Made) -> None:
    data = made.path.read_bytes()
    for size in (*range(0, len(data), 97), len(data) - 1, len(data) - 2):
        os.ftruncate(made.fd, size)
        with pytest.raises(RefusedImage):
            verify(made.fd, made.wanted)
        made.with_bytes(0, data)
    os.pwrite(made.fd, b"\0", len(data))
    with pytest.raises(RefusedImage):
        verify(made.fd, made.wanted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"width": 101}, "ihdr"),
        ({"bands": 3}, "ihdr"),
        ({"bits": 16}, "ihdr"),
        ({"colour": b"\2\0\0profile"}, "colr"),
        ({"channels": b""}, "jp2h holds"),
        ({"resolution": b"another"}, "res says"),
        ({"uuids": (b"another",)}, "boxes are"),
        ({"uuids": (b"another", b"and another")}, "uuid box"),
        ({"tile": (128, 128)}, "geometry"),
        ({"levels": 4}, "decompositions"),
        ({"precincts": (256, 256, 256, 256, 256, 256)}, "precincts"),
        ({"block": 32}, "code blocks"),
        ({"high_throughput": True}, "brand"),
    ],
)
def test_another_file_than_the_one_wanted_is_refused(made: Made, change: dict[str, Any], words: str) -> None:
    with pytest.raises(RefusedImage, match=words):
        verify(made.fd, dataclasses.replace(made.wanted, **change))


def test_what_libvips_writes_by_itself_is_refused(tmp_path: Path) -> None:
    """It is as lossless, and has neither RPCL nor PLT."""
    path = tmp_path / "b.jp2"
    image_of(pixels(100, 90)).jp2ksave(str(path), tile_width=128, tile_height=128, lossless=True)
    wanted = ExpectedStructure(
        width=100,
        height=90,
        bands=3,
        bits=8,
        colour=struct.pack(">BBBI", 1, 0, 0, 16),
        tile=(128, 128),
        levels=5,
    )
    with open(path, "rb") as file, pytest.raises(RefusedImage, match="progression is not RPCL but number 0"):
        verify(file.fileno(), wanted)


KINDS = [(dtype, bands) for dtype in (np.uint8, np.uint16) for bands in (1, 2, 3, 4)]


@pytest.mark.parametrize(("dtype", "bands"), KINDS)
def test_jpylyzer_agrees_and_each_tile_is_an_image_of_its_own(tmp_path: Path, dtype: Any, bands: int) -> None:
    """Another reader of structures finds nothing wrong; a tile cut out is the image's tile."""
    made = Made(tmp_path / "a.jp2", pixels(150, 70, bands, dtype))
    structure = made.structure
    found = jpylyzer.checkOneFile(str(made.path))
    text = {element.tag: element.text for element in found.iter()}
    assert text["isValid"] == "True"
    assert text["transformation"] == "5-3 reversible"
    assert (text["order"], text["layers"], text["pltCount"]) == ("RPCL", "1", "1")
    for tile in range(len(structure.parts)):
        left, top, right, bottom = structure.area(tile)
        # Its values keep their places on the reference grid, and so its own origin.
        piece = np.asarray(imagecodecs.jpeg2k_decode(cut(made.fd, structure, tile)))
        assert np.array_equal(np.squeeze(piece), np.squeeze(made.array[top:bottom, left:right]))
    os.close(made.fd)


@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (31, 33), (64, 64), (65, 64), (129, 63)])
def test_every_size_has_the_packets_that_geometry_gives(tmp_path: Path, size: tuple[int, int]) -> None:
    """The count of packets is worked out from the standard's formulas, not from what was written."""
    made = Made(tmp_path / "a.jp2", pixels(*size, 3))
    assert made.structure.parts
    assert np.array_equal(np.asarray(imagecodecs.jpeg2k_decode(made.path.read_bytes())), made.array)
    os.close(made.fd)


def test_precincts_are_counted_where_a_tile_has_many(tmp_path: Path) -> None:
    image = image_of(pixels(1500, 700, 1))
    with open(tmp_path / "a.jp2", "w+b") as file:
        wanted = jp2.write(image, file.fileno(), 1024, None, b"")
        structure = jp2_structure.verify(file.fileno(), wanted)
    # Of 1024x700, 512x350, 256x175, 128x88 ...; and of 476x700 from 1024 on, 238x350 from 512 on ...
    numbers = [4 * 3 + 2 * 2 + 2 * 2 + 1 + 1 + 1, 2 * 3 + 1 * 2 + 1 * 2 + 1 + 1 + 1]
    assert [len(part.packets) for part in structure.parts] == numbers
