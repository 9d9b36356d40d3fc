"""Our lossless pyramids are libvips' own, to the pixel and the tag, as other readers see them too."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pyvips
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageCms

from dittohead.toolkit.images import tiles
from tests.support.images import encode, pixels
from tests.support.length import examples
from tests.support.tiff_reader import Tags, directories, pixels_of

_TYPES: dict[str, Any] = {
    "uchar": np.uint8,
    "char": np.int8,
    "ushort": np.uint16,
    "short": np.int16,
    "uint": np.uint32,
    "int": np.int32,
    "float": np.float32,
}

#: Places of tiles: ours lie in another order.
_PLACES = {324, 325}

_PREDICTOR, _SAMPLE_FORMAT = 317, 339

#: A real one: libvips of Debian 13 writes none that it cannot read.
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(autouse=True)
def _forgetful() -> None:
    """Libvips remembers loaded files by name; the tests write the same ones again and again."""
    pyvips.cache_set_max(0)


def noise(
    width: int, height: int, bands: int = 3, form: str = "uchar", colour: str = "multiband"
) -> pyvips.Image:
    """Return random pixels over the whole range of their type."""
    rng = np.random.default_rng(width * 1000 + height)
    kind: Any = np.dtype(_TYPES[form])
    if kind.kind == "f":
        array = rng.normal(0, 1000, (height, width, bands)).astype(kind)
    else:
        limits = np.iinfo(kind)
        array = rng.integers(limits.min, limits.max, (height, width, bands), kind, endpoint=True)
    image = pyvips.Image.new_from_memory(array.tobytes(), width, height, bands, form)
    return image.copy(interpretation=colour, xres=11.811, yres=3.5)


def written(folder: Path, image: pyvips.Image, **options: Any) -> Path:
    """Return the file our writer makes, with tiles of 16 unless said otherwise."""
    path = folder / "ours.tif"
    with open(path, "wb") as file:
        tiles.write(image, file.fileno(), **{"tile": 16, **options})
    return path


def by_libvips(folder: Path, image: pyvips.Image, tile: int = 16, **options: Any) -> Path:
    """Return the file libvips makes; of floating-point numbers without a predictor.

    libvips 8.14 gives the further levels no sample format, and then cannot read predictor 3 there.
    """
    path = folder / "theirs.tif"
    floating = image.format == "float"
    image.tiffsave(
        str(path),
        tile=True,
        pyramid=True,
        compression="deflate",
        predictor="none" if floating else "horizontal",
        tile_width=tile,
        tile_height=tile,
        **options,
    )
    return path


def level(path: Path, page: int) -> pyvips.Image:
    return pyvips.Image.new_from_file(str(path), page=page, fail_on="warning")


def assert_same(ours: Path, theirs: Path) -> None:
    """Compare each level's tags, and its pixels by libvips and by another decoder."""
    mine, others = directories(ours), directories(theirs)
    assert len(mine) == len(others)
    for page, (tags, wanted) in enumerate(zip(mine, others, strict=True)):
        wanted[_SAMPLE_FORMAT] = others[0][_SAMPLE_FORMAT]  # see `by_libvips`
        wanted.setdefault(_PREDICTOR, (3,))
        assert _content(tags) == _content(wanted)
        pixels_there = level(theirs, page).write_to_memory()
        assert bytes(level(ours, page).write_to_memory()) == bytes(pixels_there)
        assert pixels_of(ours, page).tobytes() == bytes(pixels_there)


def _content(tags: Tags) -> Tags:
    return {tag: values for tag, values in tags.items() if tag not in _PLACES}


SIZES = [
    (1, 1), (3, 2), (15, 15), (16, 16), (17, 17), (31, 33), (33, 31), (17, 2), (2, 17), (1, 100), (100, 1),
    (3, 100), (100, 3), (700, 9), (9, 700), (255, 257), (130, 97),
]  # fmt: skip


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("tile", [16, 32, 256])
@pytest.mark.parametrize("form", ["uchar", "ushort", "float"])
def test_every_size_is_cut_and_halved_as_libvips_does(
    tmp_path: Path, size: tuple[int, int], tile: int, form: str
) -> None:
    """Odd sides, sides of one pixel, and images that are smaller than a tile, or just not."""
    image = noise(*size, form=form)
    assert_same(written(tmp_path, image, tile=tile), by_libvips(tmp_path, image, tile))


@pytest.mark.parametrize("bands", range(1, 6))
@pytest.mark.parametrize("form", _TYPES)
@pytest.mark.parametrize("colour", ["multiband", "b-w", "srgb", "rgb16", "grey16", "rgb", "cmyk", "scrgb"])
def test_every_kind_of_pixel_is_written_as_libvips_does(
    tmp_path: Path, bands: int, form: str, colour: str
) -> None:
    """Bands beyond the colours are alpha: their mean is a weighted one, and they have a tag."""
    image = noise(75, 50, bands, form, colour)
    assert tiles.can_write(image)
    assert_same(written(tmp_path, image), by_libvips(tmp_path, image))


@settings(max_examples=examples(60), deadline=None)
@given(
    width=st.integers(1, 150),
    height=st.integers(1, 150),
    bands=st.integers(1, 5),
    form=st.sampled_from(sorted(_TYPES)),
    colour=st.sampled_from(["multiband", "srgb", "cmyk", "b-w"]),
    tile=st.sampled_from([16, 48, 64]),
    threads=st.integers(1, 2),
)
def test_any_image_is_written_as_libvips_does(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    bands: int,
    form: str,
    colour: str,
    tile: int,
    threads: int,
) -> None:
    """What the lists above forget."""
    folder = tmp_path_factory.mktemp("any")
    image = noise(width, height, bands, form, colour)
    assert_same(written(folder, image, tile=tile, threads=threads), by_libvips(folder, image, tile))
    shutil.rmtree(folder)


def test_profile_description_and_resolution_are_kept_as_libvips_keeps_them(tmp_path: Path) -> None:
    """On every level, orientation too: the caller turns images, not the writer."""
    image = noise(100, 70, colour="srgb").copy()
    for name, value in {
        "icc-profile-data": PROFILE,
        "xmp-data": b"<x:xmpmeta/>" * 9,
        "iptc-data": b"iptc" * 5,
        "photoshop-data": b"8BIM" * 5,
    }.items():
        image.set_type(pyvips.GValue.blob_type, name, value)
    image.set_type(pyvips.GValue.gstr_type, "image-description", "Seite 3, Überschrift")
    image.set_type(pyvips.GValue.gstr_type, "resolution-unit", "in")
    image.set_type(pyvips.GValue.gint_type, "orientation", 6)
    image.set_type(pyvips.GValue.gint_type, "n-pages", 4)
    ours, theirs = written(tmp_path, image), by_libvips(tmp_path, image)
    assert_same(ours, theirs)
    assert {270, 274, 282, 296, 700, 33723, 34377, 34675} <= directories(ours)[1].keys()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_real_file_read_once_from_top_to_bottom(tmp_path: Path, threads: int) -> None:
    """Sequential access is enough."""
    source = tmp_path / "a.png"
    source.write_bytes(encode(pixels(1000, 700), "PNG"))

    def image() -> pyvips.Image:
        return pyvips.Image.new_from_file(str(source), access="sequential", fail_on="warning")

    ours = written(tmp_path, image(), tile=64, threads=threads)
    assert_same(ours, by_libvips(tmp_path, image(), 64))
    assert ours.stat().st_size < 1.05 * (tmp_path / "theirs.tif").stat().st_size


def test_threads_change_no_byte(tmp_path: Path) -> None:
    """Tiles are written in the order they are made, whichever is compressed first."""
    image = noise(900, 600)
    alone = written(tmp_path, image).read_bytes()
    assert written(tmp_path, image, threads=3).read_bytes() == alone


def test_what_the_file_held_before_is_gone(tmp_path: Path) -> None:
    """Also when it was longer."""
    image = noise(40, 40)
    alone = written(tmp_path, image).read_bytes()
    path = tmp_path / "ours.tif"
    path.write_bytes(b"x" * 100_000)
    with open(path, "r+b") as file:
        file.seek(50)
        tiles.write(image, file.fileno(), tile=16)
    assert path.read_bytes() == alone


def test_libtiff_finds_no_fault(tmp_path: Path) -> None:
    """Its own programs read every level without a warning, and see the same pixels."""
    if not (shutil.which("tiffinfo") and shutil.which("tiffcmp")):
        pytest.skip("tiffinfo and tiffcmp (Debian's libtiff-tools) are not installed")
    for form in ("uchar", "ushort", "float"):
        image = noise(300, 200, form=form)
        ours, theirs = written(tmp_path, image), by_libvips(tmp_path, image)
        for argv in (["tiffinfo", "-D", "-s", str(ours)], ["tiffcmp", "-l", str(ours), str(theirs)]):
            found = subprocess.run(argv, capture_output=True, text=True, check=True)
            assert "Warning" not in found.stderr
            assert "Error" not in found.stderr


@pytest.mark.parametrize("bigtiff", [True, False])
def test_bigtiff_is_written_when_asked_for(tmp_path: Path, bigtiff: bool) -> None:
    """And only then, for small files."""
    image = noise(100, 70)
    ours = written(tmp_path, image, bigtiff=bigtiff)
    assert_same(ours, by_libvips(tmp_path, image, bigtiff=bigtiff))
    assert ours.read_bytes()[2] == (43 if bigtiff else 42)


def test_above_4_gib_a_bigtiff_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles that begin behind a hole of 5 GiB are found by every reader."""
    monkeypatch.setattr(tiles, "_HEADER", 5 << 30)
    image = noise(100, 70)
    ours = written(tmp_path, image)
    assert_same(ours, by_libvips(tmp_path, image, bigtiff=True))
    assert min(directories(ours)[0][324]) >= 5 << 30
    with pytest.raises(OSError, match="BigTIFF") as caught:
        written(tmp_path, image, bigtiff=False)
    assert caught.value.errno == errno.EFBIG
    with open(tmp_path / "ours.tif", "rb") as file:  # not `read_bytes`: there are 5 GiB of it
        assert file.read(4) == bytes(4)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_file_that_may_not_grow_is_an_error_and_no_tiff(tmp_path: Path, threads: int) -> None:
    """The limit stands for a full disk: both end a write in its middle."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            written(tmp_path, noise(600, 400), threads=threads)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (tmp_path / "ours.tif").read_bytes()[:16] == bytes(16)


@pytest.mark.service
@pytest.mark.parametrize("room_kib", [64, 700])
def test_a_full_disk_is_an_error_and_no_tiff(tmp_path: Path, room_kib: int) -> None:
    """Full among the tiles, and with the last of them written."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    image = noise(600, 400)
    whole = written(tmp_path, image, tile=128).stat().st_size
    room = room_kib if room_kib < 100 else whole // 1024 // 4 * 4  # less than a page short
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={room}k", "none", str(disk)], check=True)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            written(disk, image, tile=128)
        assert (disk / "ours.tif").read_bytes()[:16] == bytes(16)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
def test_a_source_that_ends_early_is_an_error_and_no_tiff(tmp_path: Path, kind: str, threads: int) -> None:
    """With the load's fail_on; what was written until then is not taken for an image."""
    data = encode(pixels(600, 400), kind)
    source = tmp_path / "a"
    source.write_bytes(data[: len(data) // 2])
    with pytest.raises(pyvips.Error):  # noqa: PT012  # which of the two finds it is the decoder's affair
        image = pyvips.Image.new_from_file(str(source), access="sequential", fail_on="warning")
        written(tmp_path, image, threads=threads)
    if (tmp_path / "ours.tif").exists():
        assert (tmp_path / "ours.tif").read_bytes()[:16] in (b"", bytes(16))


def _paged() -> pyvips.Image:
    image = noise(20, 60).copy()
    image.set_type(pyvips.GValue.gint_type, "page-height", 20)
    return image


REFUSED = {
    "doubles": lambda: noise(20, 20).cast("double"),
    "complex": lambda: noise(20, 20, 2, "float").complexform(noise(20, 20, 2, "float")),
    "LabQ": lambda: noise(20, 20, colour="srgb").colourspace("labq"),
    "Lab": lambda: noise(20, 20, colour="srgb").colourspace("lab"),
    "LabS": lambda: noise(20, 20, colour="srgb").colourspace("labs"),
    "Radiance": lambda: noise(20, 20, 3, "float", "scrgb").float2rad(),
    "pages below each other": _paged,
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_not_written_as_it_lies_in_memory_is_left_to_libvips(kind: str) -> None:
    """And what libvips could not read back."""
    assert not tiles.can_write(REFUSED[kind]())


def test_another_libvips_than_the_systems_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wheel's own has another name; a second one beside it would be called with its pointers."""
    monkeypatch.setattr(tiles, "_vips", lambda: None)
    assert not tiles.can_write(noise(20, 20))


@pytest.mark.parametrize("tile", [0, 100, -16])
def test_tiles_measure_a_multiple_of_16(tmp_path: Path, tile: int) -> None:
    """As TIFF 6.0 demands; the file is left as it is."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with open(path, "r+b") as file, pytest.raises(ValueError, match="multiple of 16"):
        tiles.write(noise(20, 20), file.fileno(), tile=tile)
    assert path.read_bytes() == b"old"


_PEAK = """
import os, sys, pyvips
from dittohead.toolkit.images import tiles
pyvips.cache_set_max(0)
image = pyvips.Image.black(4000, int(sys.argv[1]), bands=3)
tiles.write(image, os.open(sys.argv[2], os.O_RDWR | os.O_CREAT), threads=2)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def test_memory_does_not_grow_with_the_height(tmp_path: Path) -> None:
    """A row of tiles of each level is held, never the picture (144 MB here)."""

    def peak(height: int) -> int:
        argv = [sys.executable, "-c", _PEAK, str(height), str(tmp_path / "a.tif")]
        return int(subprocess.check_output(argv, text=True)) // 1024

    assert peak(12_000) < peak(1_500) + 12


_CLOSED_IN = """
import ctypes, os, resource, sys, pyvips  # pyvips' own needs at import are the image child's affair
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(3)
resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
from dittohead.toolkit.images import tiles
image = pyvips.Image.gaussnoise(24000, 600).cast("ushort").bandjoin([0, 0]).copy(interpretation="rgb16")
tiles.write(image, os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), threads=2)
"""


def test_a_wide_image_is_written_within_the_services_limits(tmp_path: Path) -> None:
    """2 GiB of addresses, and no memory both writable and executable (MemoryDenyWriteExecute=)."""
    path = tmp_path / "a.tif"
    argv = [sys.executable, "-c", _CLOSED_IN, str(path)]
    said = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={**os.environ, "MALLOC_ARENA_MAX": "2"}
    )
    if said.returncode == 3:
        pytest.skip("THE KERNEL HAS NO PR_SET_MDWE (it came with 6.3): left out")
    assert said.returncode == 0, said.stderr
    assert [tags[256] for tags in directories(path)] == [(24000 >> page,) for page in range(8)]
