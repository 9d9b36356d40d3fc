"""XMP in image files: there and readable, and not one other byte changed."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from dittohead.toolkit.images import xmp_embedding
from dittohead.toolkit.images.reasons import RefusedImage
from tests.support.images import by_vips, encode, jpeg, pixels, tiff

PACKET = b"<x>" + b"y" * 1001 + b"</x>"


def big_endian() -> bytes:
    """Return a TIFF of 2x2 grey pixels in the other byte order, with two pages."""
    entries = [(256, 3, 1, 2 << 16), (257, 3, 1, 2 << 16), (258, 3, 1, 8 << 16), (259, 3, 1, 1 << 16)]
    entries += [
        (262, 3, 1, 1 << 16),
        (273, 4, 1, 8),
        (277, 3, 1, 1 << 16),
        (278, 3, 1, 2 << 16),
        (279, 4, 1, 4),
    ]
    rows = b"".join(struct.pack(">HHII", *entry) for entry in entries)
    second = 12 + 2 + len(rows) + 4
    page = struct.pack(">H", len(entries)) + rows
    return b"MM\0*" + struct.pack(">I", 12) + b"abcd" + page + struct.pack(">I", second) + page + b"\0\0\0\0"


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """One file of each kind."""
    base = tmp_path_factory.mktemp("samples")
    (base / "a.tif").write_bytes(tiff(300, 200))
    (base / "a.jpg").write_bytes(jpeg(300, 200))
    jp2 = encode(pixels(300, 200), "JPEG2000")
    png = encode(pixels(30, 20), "PNG")
    return {
        "tiff": tiff(300, 200),
        "big-endian": big_endian(),
        "bigtiff": by_vips(base, ["tiffsave", "a.tif", "big.tif", "--bigtiff"], "big.tif"),
        "pyramid": by_vips(base, ["tiffsave", "a.jpg", "p.tif", "--tile", "--pyramid", "--compression=jpeg"], "p.tif"),
        "jpeg": jpeg(300, 200, orientation=6, dpi=(300, 300), icc_profile=b"x" * 200),
        "jpeg-bare": jpeg(30, 20),
        "png": png,
        "png-more": png + b"trailing bytes",
        "jp2": jp2,
        "jph": jp2.replace(b"jp2 ", b"jph ", 2),
        "jp2-open": jp2_open(jp2),
    }  # fmt: skip


def jp2_open(jp2: bytes) -> bytes:
    """Return a JPEG 2000 whose last box says no length."""
    at = jp2.index(b"jp2c") - 4
    return jp2[:at] + b"\0\0\0\0" + jp2[at + 4 :]


KINDS = [
    "tiff",
    "big-endian",
    "bigtiff",
    "pyramid",
    "jpeg",
    "jpeg-bare",
    "png",
    "png-more",
    "jp2",
    "jph",
    "jp2-open",
]


class Pair:
    """A source and what was made of it."""

    def __init__(self, base: Path, data: bytes) -> None:
        self.paths = base / "source", base / "made"
        self.paths[0].write_bytes(data)
        self.fds = [
            os.open(self.paths[0], os.O_RDWR),
            os.open(self.paths[1], os.O_RDWR | os.O_CREAT | os.O_TRUNC),
        ]
        self.kind = xmp_embedding.kind_of(self.fds[0])

    def write(self, packet: bytes = PACKET) -> bytes:
        os.ftruncate(self.fds[1], 0)
        os.lseek(self.fds[1], 0, os.SEEK_SET)
        xmp_embedding.write(*self.fds, self.kind, packet, lambda: None)
        return self.paths[1].read_bytes()

    def compare(self, packet: bytes = PACKET) -> int:
        return xmp_embedding.compare(*self.fds, self.kind, packet, lambda: None)


@pytest.fixture
def pair(tmp_path: Path, samples: dict[str, bytes], request: pytest.FixtureRequest) -> Iterator[Pair]:
    made = Pair(tmp_path, samples[request.param])
    yield made
    for fd in made.fds:
        os.close(fd)


@pytest.mark.parametrize("pair", KINDS, indirect=True)
def test_a_packet_is_put_in_and_replaced_and_the_rest_is_the_same(pair: Pair, tmp_path: Path) -> None:
    """A second packet takes the place of the first; in all but TIFF nothing of the first is left."""
    assert xmp_embedding.packet_of(pair.fds[0], pair.kind) == b""
    once = pair.write()
    assert pair.compare() >= pair.paths[0].stat().st_size - 8 * (pair.kind == xmp_embedding.TIFF)
    (tmp_path / "again").mkdir()
    again = Pair(tmp_path / "again", once)
    twice = again.write(b"<z/>" * 9)
    again.compare(b"<z/>" * 9)
    assert xmp_embedding.packet_of(again.fds[1], again.kind) == b"<z/>" * 9
    if pair.kind != xmp_embedding.TIFF:
        assert len(twice) == len(once) - len(PACKET) + 36
        assert PACKET not in twice
    for fd in again.fds:
        os.close(fd)


@pytest.mark.parametrize("pair", KINDS, indirect=True)
def test_one_bit_that_differs_anywhere_is_found(pair: Pair) -> None:
    """In what was there before, and in the packet."""
    made = bytearray(pair.write())
    at = bytes(made).index(PACKET)
    size = pair.paths[0].stat().st_size if pair.kind == xmp_embedding.TIFF else len(made)
    for place in {*range(0, size, max(1, size // 150)), *range(min(64, size)), at, at + len(PACKET) - 1}:
        made[place] ^= 1 << place % 8
        pair.paths[1].write_bytes(made)
        with pytest.raises(RefusedImage):
            pair.compare()
        made[place] ^= 1 << place % 8
    pair.paths[1].write_bytes(made[:-1])
    with pytest.raises(RefusedImage):
        pair.compare()
    pair.paths[1].write_bytes(made)
    pair.compare()


@pytest.mark.parametrize("pair", KINDS, indirect=True)
def test_a_damaged_file_is_refused_in_words(pair: Pair) -> None:
    """Cut at any place, it ends in a reason or is carried as it is; never in a surprise."""
    data = pair.paths[0].read_bytes()
    for size in {*range(16, min(len(data), 400), 3), *range(16, len(data), max(1, len(data) // 60))}:
        pair.paths[0].write_bytes(data[:size])
        try:
            pair.write()
            pair.compare()
        except RefusedImage as error:
            assert str(error)  # noqa: PT017  # either is right


def test_what_holds_no_xmp_is_left_to_others(tmp_path: Path) -> None:
    """By content: a name says nothing."""
    for data in (b"", b"text", b"%PDF-1.4", b"\xff\x4f\xff\x51 a bare codestream", b"RIFF....WEBP"):
        (tmp_path / "a.tif").write_bytes(data)
        fd = os.open(tmp_path / "a.tif", os.O_RDONLY)
        assert xmp_embedding.kind_of(fd) == ""
        os.close(fd)


@pytest.mark.parametrize("pair", ["jpeg"], indirect=True)
def test_a_packet_too_large_for_a_jpeg_is_refused(pair: Pair) -> None:
    """64 KiB are what a segment holds; one more is too much."""
    pair.write(b"x" * 65504)
    pair.compare(b"x" * 65504)
    with pytest.raises(RefusedImage, match="65505 bytes, and a JPEG holds 65504"):
        pair.write(b"x" * 65505)


@pytest.mark.parametrize("pair", ["jpeg"], indirect=True)
def test_xmp_that_goes_on_in_further_segments_is_refused(pair: Pair) -> None:
    """Half of it would be lost."""
    data = pair.paths[0].read_bytes()
    more = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 40 + b"<x/>"
    segment = struct.pack(">BBH", 0xFF, 0xE1, len(more) + 2) + more
    pair.paths[0].write_bytes(data[:2] + segment + data[2:])
    with pytest.raises(RefusedImage, match="further segments"):
        pair.write()


@pytest.mark.parametrize("pair", ["jpeg"], indirect=True)
def test_xmp_stands_after_exif(pair: Pair) -> None:
    """Readers of EXIF want it first."""
    made = pair.write()
    assert made.index(b"Exif\0") < made.index(PACKET) < made.index(b"ICC_PROFILE")


@pytest.mark.parametrize("pair", ["png"], indirect=True)
def test_compressed_xmp_of_a_png_is_read_within_bounds(pair: Pair) -> None:
    """And a small chunk that would become a large text is refused."""
    data = pair.paths[0].read_bytes()
    at = data.index(b"IDAT") - 4

    def chunk(text: bytes) -> bytes:
        body = b"iTXtXML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(text)
        return struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))

    pair.paths[0].write_bytes(data[:at] + chunk(b"<x/>") + data[at:])
    assert xmp_embedding.packet_of(pair.fds[0], pair.kind) == b"<x/>"
    pair.paths[0].write_bytes(data[:at] + chunk(b"0" * (20 << 20)) + data[at:])
    with pytest.raises(RefusedImage, match="more than"):
        xmp_embedding.packet_of(pair.fds[0], pair.kind)


@pytest.mark.parametrize("pair", ["jp2"], indirect=True)
def test_boxes_that_name_places_in_the_file_are_refused(pair: Pair) -> None:
    """They would point beside what they mean."""
    pair.paths[0].write_bytes(pair.paths[0].read_bytes() + struct.pack(">I4s", 8, b"cidx"))
    with pytest.raises(RefusedImage, match="names places"):
        pair.write()


@pytest.mark.parametrize(
    ("pair", "part"), [("jpeg", b"\xff\xfe\0\2"), ("jp2", b"\0\0\0\x08free")], indirect=["pair"]
)
def test_a_file_of_endless_parts_is_refused(pair: Pair, part: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before it has eaten memory and hours."""
    monkeypatch.setattr(xmp_embedding, "_MOST_PARTS", 1000)
    monkeypatch.setattr(xmp_embedding, "_MOST_SEGMENTS", 1000)
    data = pair.paths[0].read_bytes()
    at = 2 if pair.kind == xmp_embedding.JPEG else data.index(b"jp2c") - 4
    pair.paths[0].write_bytes(data[:at] + part * 2000 + data[at:])
    with pytest.raises(RefusedImage, match="more than 1000"):
        pair.write()


@pytest.mark.parametrize("pair", ["jpeg", "png", "jp2"], indirect=True)
def test_two_packets_are_refused(pair: Pair) -> None:
    """One of them would be lost without a word."""
    data, made = pair.paths[0].read_bytes(), pair.write()
    size, at = (
        len(made) - len(data),
        next(n for n, (a, b) in enumerate(zip(data, made, strict=False)) if a != b),
    )
    while data[at:] != made[at + size :]:  # what follows may begin alike
        at -= 1
    pair.paths[0].write_bytes(made[: at + size] + made[at : at + size] + data[at:])
    with pytest.raises(RefusedImage, match="2 packets"):
        xmp_embedding.packet_of(pair.fds[0], pair.kind)


@pytest.mark.parametrize("pair", ["jpeg"], indirect=True)
def test_images_found_by_distance_stay_where_they_are(pair: Pair) -> None:
    """A packet goes before the index of further images; one that is behind it cannot change its size."""
    data = pair.paths[0].read_bytes()
    index = struct.pack(">BBH", 0xFF, 0xE2, 10) + b"MPF\0MM\0*"
    at = data.index(b"\xff\xe2")
    pair.paths[0].write_bytes(data[:at] + index + data[at:])
    made = pair.write()
    assert made.index(PACKET) < made.index(b"MPF\0")
    assert pair.compare() == len(data) + len(index)
    old = struct.pack(">BBH", 0xFF, 0xE1, 35) + b"http://ns.adobe.com/xap/1.0/\0<x/>"
    pair.paths[0].write_bytes(data[:at] + index + old + data[at:])
    with pytest.raises(RefusedImage, match="further images"):
        pair.write()
