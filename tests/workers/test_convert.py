"""convert: every kind of image ends as a verified pyramid, or as a reason a technician understands."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from dittohead.model.errors import ItemError, TransientError
from dittohead.toolkit.images.options import ConvertOptions
from dittohead.toolkit.images.process import ImageChild, abilities
from dittohead.workers.convert import ConvertWorker
from tests.support.context import LoneContext, source_of
from tests.support.convert import Rig
from tests.support.images import by_vips, decoded, encode, jpeg, levels, pixels, tiff
from tests.support.trees import read_tree, symlink, tree


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


async def test_an_image_becomes_a_tiled_pyramid_that_looks_the_same(rig: Rig) -> None:
    """Levels halve down to a tile; tiles are 256; the picture is the source's within JPEG's loss."""
    path, output = await rig.one("a.tif", tiff(1500, 1000))
    assert path.name == "a.tif"
    assert levels(path) == [(1500, 1000), (750, 500), (375, 250), (187, 125)]
    with Image.open(path) as image:
        assert (image.tag_v2[322], image.tag_v2[323]) == (256, 256)  # TileWidth, TileLength
        assert image.tag_v2[259] == 7  # JPEG
    assert np.abs(decoded(path).astype(int) - pixels(1500, 1000)).mean() < 4
    assert output.detail["levels"] == 4
    assert {event.type.value for event in rig.ctx.events} == {"migration", "validation"}


@pytest.mark.parametrize("orientation", range(2, 9))
async def test_a_turned_image_is_turned_upright(rig: Rig, orientation: int) -> None:
    """All seven orientations, compared with another library's idea of them."""
    data = jpeg(90, 60, orientation=orientation)
    path, output = await rig.one("a.jpg", data, compression="deflate")
    with Image.open(rig.payload / "a.jpg") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert np.abs(decoded(path).astype(int) - upright).max() <= 2
    assert output.detail["changes"] == [f"turned upright (orientation {orientation})"]
    with Image.open(path) as image:
        assert image.tag_v2.get(274, 1) == 1


KINDS: dict[str, tuple[str, Any, tuple[int, ...]]] = {
    "grey": ("PNG", lambda: pixels(60, 40, 1), (40, 60)),
    "one bit": ("TIFF", lambda: Image.fromarray(pixels(60, 40, 1)).convert("1"), (40, 60)),
    "palette": ("PNG", lambda: Image.fromarray(pixels(60, 40)).convert("P"), (40, 60, 3)),
    "alpha": ("PNG", lambda: Image.fromarray(pixels(60, 40)).convert("RGBA"), (40, 60, 3)),
    "grey with alpha": ("PNG", lambda: Image.fromarray(pixels(60, 40, 1)).convert("LA"), (40, 60)),
    "16 bit grey": ("TIFF", lambda: pixels(60, 40, 1, np.uint16), (40, 60)),
    "cmyk": ("TIFF", lambda: Image.fromarray(pixels(60, 40)).convert("CMYK"), (40, 60, 3)),
    "one pixel": ("PNG", lambda: pixels(1, 1), (1, 1, 3)),
    "three by two": ("JPEG", lambda: pixels(3, 2), (2, 3, 3)),
    "webp": ("WEBP", lambda: pixels(60, 40), (40, 60, 3)),
    "lzw": ("TIFF", lambda: pixels(60, 40), (40, 60, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_every_kind_becomes_8_bit_grey_or_colour(rig: Rig, kind: str) -> None:
    """What JPEG tiles cannot hold is brought to what they can, and the change is recorded."""
    form, make, shape = KINDS[kind]
    options = {"compression": "tiff_lzw"} if kind == "lzw" else {}
    path, output = await rig.one(f"a.{form.lower()}", encode(make(), form, **options))
    found = decoded(path)
    assert found.shape == shape
    assert found.dtype == np.uint8
    if kind in ("alpha", "16 bit grey", "cmyk"):
        assert output.detail["changes"]


async def test_lab_becomes_srgb(rig: Rig, tmp_path: Path) -> None:
    """Lab TIFFs, as colour laboratories deliver them."""
    (tmp_path / "rgb.png").write_bytes(encode(pixels(60, 40), "PNG"))
    subprocess.run(["vips", "colourspace", "rgb.png", "lab.tif", "lab"], cwd=tmp_path, check=True)
    path, output = await rig.one("a.tif", (tmp_path / "lab.tif").read_bytes())
    assert np.abs(decoded(path).astype(int) - pixels(60, 40)).mean() < 6
    assert output.detail["changes"] == ["lab made sRGB"]


async def test_floating_point_pixels_are_refused(rig: Rig, tmp_path: Path) -> None:
    """Their range is unknown; deflate keeps them as they are."""
    subprocess.run(["vips", "gaussnoise", "f.tif", "60", "40"], cwd=tmp_path, check=True)
    with pytest.raises(ItemError, match="floating-point numbers"):
        await rig.one("a.tif", (tmp_path / "f.tif").read_bytes())
    await rig.convert(compression="deflate")


async def test_16_bits_are_scaled_not_clipped(rig: Rig) -> None:
    """A 16-bit ramp stays a ramp."""
    ramp = np.tile(np.linspace(0, 65535, 256).astype(np.uint16), (64, 1))
    path, _ = await rig.one("a.tif", encode(ramp, "TIFF"))
    found = decoded(path).astype(int).mean(axis=0)
    assert found[0] < 4
    assert found[-1] > 251
    assert abs(found[128] - 128) < 4


async def test_lossless_keeps_every_pixel_and_16_bits(rig: Rig) -> None:
    """Deflate changes nothing, and the result says that it was compared."""
    source = pixels(300, 200, 1, np.uint16)
    path, output = await rig.one("a.tif", encode(source, "TIFF"), compression="deflate")
    assert np.array_equal(decoded(path), source)
    assert output.detail["lossless"] is True


async def test_profile_and_resolution_are_kept(rig: Rig) -> None:
    """No colour is reinterpreted and no resolution invented."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encode(pixels(60, 40), "TIFF", icc_profile=profile, dpi=(400, 400))
    path, _ = await rig.one("a.tif", data)
    with Image.open(path) as image:
        assert image.info["icc_profile"] == profile
        assert round(float(image.info["dpi"][0])) == 400


async def test_a_tiff_of_several_pages_is_warned_of(rig: Rig) -> None:
    """Pages are not lost silently: the output and the event say so."""
    pages = [Image.fromarray(pixels(60, 40, seed=i)) for i in range(3)]
    _, output = await rig.one("a.tif", encode(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert output.detail["warnings"] == ["only the first of 3 pages was converted"]
    assert [e.outcome for e in rig.ctx.events if e.type.value == "migration"] == ["warning"]


async def test_cmyk_is_turned_by_its_own_profile(rig: Rig, tmp_path: Path) -> None:
    """Viewers show CMYK in JPEG tiles with wrong colours; a lossless result keeps it."""
    (tmp_path / "rgb.png").write_bytes(encode(pixels(60, 40), "PNG"))
    by_vips(tmp_path, ["icc_transform", "rgb.png", "cmyk.tif", "cmyk"], "cmyk.tif")
    data = (tmp_path / "cmyk.tif").read_bytes()
    path, output = await rig.one("a.tif", data)
    assert output.detail["changes"] == ["CMYK made sRGB by its profile"]
    assert np.abs(decoded(path).astype(int) - pixels(60, 40)).mean() < 12
    path, output = await rig.one("a.tif", data, compression="deflate")
    assert output.detail["bands"] == 4
    assert "changes" not in output.detail


async def test_transparency_is_laid_on_white(rig: Rig) -> None:
    """Not on black, which is what lies under it in many files."""
    clear = np.zeros((40, 60, 4), np.uint8)
    path, output = await rig.one("a.png", encode(clear, "PNG"))
    assert decoded(path).min() >= 254
    assert output.detail["changes"] == ["transparency laid on white"]


async def test_floats_are_kept_losslessly_and_refused_otherwise(rig: Rig) -> None:
    """Nobody knows what white is in them; not-a-number is not a difference."""
    data = pixels(60, 40, 1).astype(np.float32)
    data[3, 3] = np.nan
    with pytest.raises(ItemError, match=r"floating-point numbers.*with compression: deflate"):
        await rig.one("a.tif", encode(data, "TIFF"))
    path, _ = await rig.one("a.tif", encode(data, "TIFF"), compression="deflate")
    assert np.array_equal(decoded(path), data, equal_nan=True)


@pytest.mark.parametrize("form", ["jp2", "pdf", "gif", "bmp", "webp"])
async def test_what_other_libraries_write_is_read(rig: Rig, form: str) -> None:
    """JPEG 2000 by OpenJPEG, the rest by Pillow; by descriptor, whatever the loader."""
    kind = {"jp2": "JPEG2000"}.get(form, form.upper())
    path, _ = await rig.one(f"a [page=1].{form}", encode(pixels(60, 40), kind), match=["*"])
    with Image.open(path) as image:
        assert image.size == ((250, 167) if form == "pdf" else (60, 40))


async def test_webp_tiles_hold_grey_as_colour(rig: Rig) -> None:
    """The image library 8.14 crashes when asked for grey ones."""
    _, output = await rig.one("a.png", encode(pixels(60, 40, 1), "PNG"), compression="webp")
    assert output.detail["bands"] == 3


async def test_garbage_within_a_jpeg_is_found(rig: Rig) -> None:
    """A whole file, right by its manifest, that decodes to garbage for a third of the picture."""
    data = bytearray(jpeg(800, 600))
    data[len(data) // 2 : len(data) // 2 + 200] = b"\xaa" * 200
    with pytest.raises(ItemError, match="ends early or is damaged"):
        await rig.one("a.jpg", bytes(data))


async def test_an_unknown_tiff_tag_is_no_failure(rig: Rig) -> None:
    """Scanners write private tags; libtiff warns of them."""
    await rig.one("a.tif", encode(pixels(60, 40), "TIFF", tiffinfo={65000: "private", 40000: "x"}))


BAD = {
    "half jpeg": ("a.jpg", lambda: jpeg(800, 600)[:20_000], "ends early or is damaged"),
    "half png": ("a.png", lambda: encode(pixels(300, 200), "PNG")[:40_000], "ends early or is damaged"),
    "half tiff": ("a.tif", lambda: tiff(300, 200)[:50_000], "ends early or is damaged|no image"),
    "empty": ("a.tif", lambda: b"", "no image"),
    "text": ("a.jpg", lambda: b"this is a text\n" * 50, "no image"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_image_fails_with_words(rig: Rig, kind: str) -> None:
    """Half an image is never saved silently; the others are converted all the same."""
    name, make, words = BAD[kind]
    with pytest.raises(ItemError, match=words) as caught:
        await rig.convert({name: make(), "good.png": encode(pixels(60, 40), "PNG")})
    assert f"1 of 2 images cannot be converted: {name}: " in str(caught.value)
    assert sorted(read_tree(rig.ctx.work)) == [b"good.tif"]


async def test_damage_inside_an_lzw_tiff_is_found(rig: Rig) -> None:
    """Flipped bytes in compressed strips."""
    data = bytearray(encode(pixels(800, 600), "TIFF", compression="tiff_lzw"))
    for i in range(1000, 200_000, 500):
        data[i] ^= 0x55
    with pytest.raises(ItemError, match="cannot be converted"):
        await rig.one("a.tif", bytes(data))


async def test_a_bit_flipped_since_the_claim_is_found_by_its_digest(rig: Rig) -> None:
    """A decoder does not see it in a JPEG; the manifest does."""
    tree(rig.payload, {"a.jpg": jpeg()})
    source = source_of(rig.payload)
    data = bytearray((rig.payload / "a.jpg").read_bytes())
    data[len(data) // 2] ^= 1
    (rig.payload / "a.jpg").write_bytes(bytes(data))
    with pytest.raises(ItemError, match="not what it was at the claim"):
        await rig.convert(ctx=LoneContext(rig.base, rig.payload, source=source))


async def test_a_link_put_in_an_images_place_is_not_followed(rig: Rig, tmp_path: Path) -> None:
    """Nothing outside the folder is ever read into a result."""
    (tmp_path / "secret.jpg").write_bytes(jpeg())
    tree(rig.payload, {"a.jpg": jpeg()})
    source = source_of(rig.payload)
    (rig.payload / "a.jpg").unlink()
    tree(rig.payload, {"a.jpg": symlink(str(tmp_path / "secret.jpg"))})
    with pytest.raises(ItemError, match="no regular file"):
        await rig.convert(ctx=LoneContext(rig.base, rig.payload, source=source))


async def test_awkward_names_are_kept(rig: Rig) -> None:
    """Also those that libvips would read as options."""
    data = encode(pixels(20, 10), "PNG")
    names: list[str | bytes] = [
        "a b.png",
        "new\nline.png",
        "-x.png",
        "ü😀.png",
        "a.png[page=1].png",
        b"bad\xff.png",
        "UPPER.PNG",
    ]
    ctx = await rig.convert(dict.fromkeys(names, data))
    made = {os.path.splitext(os.fsencode(name))[0] + b".tif" for name in names}
    assert {output.path for output in ctx.outputs} == made
    assert set(read_tree(ctx.work)) == made


async def test_names_that_differ_only_in_their_ending_do_not_collide(rig: Rig) -> None:
    """a.jpg, a.png and A.TIF, in one folder and in two."""
    data = encode(pixels(20, 10), "PNG")
    ctx = await rig.convert(
        {"a.jpg": jpeg(20, 10), "a.png": data, "A.TIF": tiff(20, 10), "sub": {"a.png": data}}
    )
    assert sorted(read_tree(ctx.work)) == [b"A.TIF.tif", b"a.jpg.tif", b"a.png.tif", b"sub/a.tif"]


async def test_other_files_are_left_and_counted(rig: Rig) -> None:
    """Notes and junk are not images; with others: fail a note fails the step, junk does not."""
    what = {"a.png": encode(pixels(20, 10), "PNG"), "note.txt": "x", "._a.png": "x", "Thumbs.db": "x"}
    await rig.convert(what)
    assert rig.result.detail == "1 images, 3 other files left: ._a.png, Thumbs.db, note.txt"
    with pytest.raises(ItemError, match=r"note.txt: this is not an image"):
        await rig.convert(others="fail")


async def test_thumbnails_of_a_file_server_are_no_images(rig: Rig) -> None:
    """Synology and macOS leave folders of them."""
    data = encode(pixels(20, 10), "PNG")
    ctx = await rig.convert({"a.png": data, "@eaDir": {"a.png": {"SYNOPHOTO_THUMB_M.jpg": jpeg(20, 10)}}})
    assert set(read_tree(ctx.work)) == {b"a.tif"}


async def test_a_result_never_takes_the_name_of_another_or_of_a_folder(rig: Rig) -> None:
    """a.jpg.bmp is not to become what a.jpg beside a.png becomes; nor b.png the folder b.tif."""
    data = encode(pixels(20, 10), "PNG")
    names = ("a.jpg", "a.png", "a.jpg.png", "b.png")
    ctx = await rig.convert({**dict.fromkeys(names, data), "b.tif": {"c.png": data}})
    assert set(read_tree(ctx.work)) == {
        b"a.jpg.tif",
        b"a.png.tif",
        b"a.jpg.png.tif",
        b"b.png.tif",
        b"b.tif/c.tif",
    }


async def test_names_as_long_as_a_file_system_holds(rig: Rig) -> None:
    """Made longer by a clash they are cut, within no character, and stay apart."""
    data = encode(pixels(20, 10), "PNG")
    stem = "ü" * 125
    ctx = await rig.convert({f"{stem}.png": data, f"{stem}.tif": data, "x" * 251 + ".png": data})
    made = read_tree(ctx.work)
    assert len(made) == 3
    assert all(len(name) <= 255 and name.decode().endswith(".tif") for name in made)


async def test_the_same_name_with_other_content_is_made_again(rig: Rig) -> None:
    """The image library would show the former picture from its cache; the journal knows the input's digest."""
    ctx = await rig.convert({"a.png": encode(pixels(20, 10), "PNG")})
    data = encode(pixels(30, 15, seed=5), "PNG")
    tree(rig.payload, {"a.png": data})
    again = LoneContext(rig.base, rig.payload)
    await rig.convert(ctx=again, compression="deflate")
    assert np.array_equal(decoded(ctx.work / "a.tif"), pixels(30, 15, seed=5))


async def test_a_half_written_journal_line_costs_one_image(rig: Rig) -> None:
    """A kill in the middle of a line."""
    ctx = await rig.convert({f"{i}.png": encode(pixels(20, 10, seed=i), "PNG") for i in range(3)})
    journal = ctx.work.parent / "step.journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    for detail in ("3 images, 2 of them from before", "3 images, 3 of them from before"):
        ctx.again()
        await rig.convert(ctx=ctx)
        assert rig.result.detail == detail


async def test_nothing_but_results_is_left(rig: Rig) -> None:
    """Not libvips' temporary files either, nor after a crash of it."""
    with pytest.raises(ItemError):
        await rig.convert({"a.jpg": jpeg(800, 600)[:20_000], "b.jpg": jpeg(800, 600)})
    left = {path.name for path in rig.ctx.work.parent.iterdir()}
    assert left == {"step", "step.journal.jsonl", "step.log"}


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "none"},
        {"format": "jpeg", "quality": 100, "subsampling": "off"},
        {"format": "png"},
        {"format": "jp2"},
        {"format": "iiif-static", "iiif_id": "https://x/{path}", "quality": 100, "subsampling": "off"},
    ],
    ids=["pyramid", "jpeg", "png", "jp2", "iiif"],
)
async def test_a_full_disk_is_waited_for_not_blamed_on_an_image(rig: Rig, options: dict[str, Any]) -> None:
    """The image library crashes when it cannot write; the reason is found all the same."""
    rig.base.joinpath("work").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(rig.base / "work")]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount")
    try:
        noise = np.random.default_rng(1).integers(90, 110, (2000, 2500, 3), np.uint8)
        with pytest.raises(TransientError, match=r"the disk of work/ takes no more data") as caught:
            await rig.convert({"a.tif": encode(noise, "TIFF")}, **options)
        assert caught.value.retry_after_s == 60
    finally:
        subprocess.run(["umount", str(rig.base / "work")], check=True)


async def test_spare_slots_are_used_and_progress_reaches_the_total(rig: Rig) -> None:
    """Each slot is one child; every image is done once."""
    tree(rig.payload, {f"{i}.png": encode(pixels(200, 100, seed=i), "PNG") for i in range(6)})
    ctx = LoneContext(rig.base, rig.payload, spare=2)
    await rig.convert(ctx=ctx)
    assert ctx.spare == 0
    assert sorted(done for done, _, _ in ctx.progressed) == [1, 2, 3, 4, 5, 6]
    assert ctx.progressed[-1] == (6, 6, "images")


async def test_a_folder_without_images_is_refused(rig: Rig) -> None:
    """Rather than done with nothing."""
    with pytest.raises(ItemError, match="there are no images"):
        await rig.convert({"note.txt": "x"})


async def test_what_an_earlier_try_finished_is_not_made_again(rig: Rig) -> None:
    """Resumed after a kill: finished images are kept if their bytes are still right."""
    data = {f"{i}.png": encode(pixels(20, 10, seed=i), "PNG") for i in range(4)}
    ctx = await rig.convert(data)
    before = {p.name: p.stat().st_ino for p in ctx.work.iterdir()}
    (ctx.work / "1.tif").write_bytes(b"damaged")
    (ctx.work / ".2.tif.tmp").write_bytes(b"left by a kill")
    (ctx.work / "stranger.tif").write_bytes(b"of no image")
    ctx.again()
    await rig.convert(ctx=ctx)
    after = {p.name: p.stat().st_ino for p in ctx.work.iterdir()}
    assert set(after) == {"0.tif", "1.tif", "2.tif", "3.tif"}
    assert {n for n in after if after[n] == before[n]} == {"0.tif", "2.tif", "3.tif"}
    assert rig.result.detail == "4 images, 3 of them from before"
    assert len(ctx.outputs) == 4
    ctx.again()
    await rig.convert(ctx=ctx, quality=60)
    assert rig.result.detail == "4 images"


@pytest.mark.usefixtures("real_image_children")
async def test_a_child_that_is_killed_costs_no_image(rig: Rig) -> None:
    """SIGKILL in the middle (the kernel's memory killer): the image is done by a fresh child."""
    tree(rig.payload, {f"{i}.tif": tiff(2500, 2500) for i in range(3)})
    task = asyncio.create_task(rig.convert(compression="deflate"))
    async with asyncio.timeout(60):
        while not (found := _children(rig.base)):
            await asyncio.sleep(0.01)
    os.kill(found[0], signal.SIGKILL)
    await task
    assert len(rig.ctx.outputs) == 3


async def test_an_image_whose_child_is_killed_each_time_is_not_called_a_bad_one(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory that others use up is not a fault of the image: it is tried again, and the reason says what was."""

    async def killed(child: ImageChild, request: dict[str, Any], timeout_s: float) -> dict[str, Any] | None:
        os.kill(child._child.process.pid, signal.SIGKILL)
        await child._child.exited()
        return None

    monkeypatch.setattr(ImageChild, "ask", killed)
    with pytest.raises(TransientError, match="was killed, most likely for want of memory") as raised:
        await rig.convert({"a.tif": tiff(20, 10)})
    assert raised.value.where == "a.tif"


async def test_an_image_beyond_the_memory_limit_is_one_bad_image(rig: Rig) -> None:
    """The limit ends a child, not the daemon; the reason names memory."""
    big = encode(Image.new("RGB", (16000, 12000)), "WEBP", method=0, quality=1)  # decoded as a whole
    with pytest.raises(ItemError, match=r"1 of 2 images.*more than 600 MiB of memory"):
        await rig.convert({"big.webp": big, "ok.png": encode(pixels(20, 10), "PNG")}, memory="600MiB")
    assert len(rig.ctx.outputs) == 1


@pytest.mark.usefixtures("real_image_children")
async def test_cancelling_leaves_no_child(rig: Rig) -> None:
    """A stop ends the image processes at once."""
    tree(rig.payload, {f"{i}.tif": tiff(2500, 2500) for i in range(3)})
    task = asyncio.create_task(
        rig.convert(compression="deflate", ctx=LoneContext(rig.base, rig.payload, spare=1))
    )
    async with asyncio.timeout(60):
        while len(_children(rig.base)) < 2:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert _children(rig.base) == []


async def test_an_image_that_takes_too_long_is_one_bad_image(rig: Rig) -> None:
    """The time limit is per image."""
    with pytest.raises(ItemError, match=r"it took longer than 0\.3 s"):
        await rig.convert({"a.tif": tiff(4000, 4000)}, compression="deflate", timeout="300ms")


def test_what_this_libvips_cannot_write_is_refused_at_the_check() -> None:
    """Not when the first folder comes."""
    assert ConvertWorker().check(ConvertOptions()) == []
    known = abilities()
    assert "jpeg" in known["compressions"]
    known["compressions"].remove("webp")
    try:
        (problem,) = ConvertWorker().check(ConvertOptions(compression="webp"))
        assert "cannot write webp" in problem
    finally:
        known["compressions"].append("webp")


def test_the_daemon_does_not_load_the_image_library() -> None:
    """Its memory and its crashes stay in child processes."""
    script = "import sys, dittohead.daemon, dittohead.workers.convert; print('pyvips' in sys.modules)"
    import sys

    said = subprocess.check_output([sys.executable, "-c", script], text=True)
    assert said.strip() == "False"


def _children(base: Path) -> list[int]:
    """Return the image processes that work for this test, by their environment's mark."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                environ = Path(f"/proc/{entry}/environ").read_bytes()
                command = Path(f"/proc/{entry}/cmdline").read_bytes()
            except OSError:
                continue
            if (
                f"DITTOHEAD_ROOT={base}".encode() in environ.split(b"\0")
                and b"dittohead.toolkit.images" in command
            ):
                found.append(int(entry))
    return found
