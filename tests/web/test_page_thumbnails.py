"""Small pictures: of the job's own images alone, by children that may die, within bounds."""

from __future__ import annotations

import asyncio
import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dittohead.model.states import Station
from dittohead.system.process import sweep
from dittohead.web.pages import thumbnails
from dittohead.web.pages.thumbnails import SourceImage, Thumbnailer, ThumbnailLimits, pictures, trim
from tests.support.harness import Harness
from tests.support.images import encode
from tests.support.web_harness import READER, WebHarness, call

pytestmark = pytest.mark.service


def flat(width: int, height: int, colour: tuple[int, int, int], kind: str = "PNG") -> bytes:
    return encode(np.full((height, width, 3), colour, np.uint8), kind)


def picture(folder: Path, name: str, number: int = 0) -> SourceImage:
    return SourceImage(number, folder, os.fsencode(name), name, f"{number:032}")


async def finished(harness: Harness, name: str, what: dict[str | bytes, Any]) -> Any:
    harness.arrive(name, what)
    async with harness.running():
        return await harness.until_over(name)


async def test_a_jobs_images_are_shown_small_and_kept(tmp_path: Path) -> None:
    """In their colours, no larger than they are; asked for again they are the same, by their tag."""
    made = WebHarness(tmp_path / "root")
    what: dict[str | bytes, Any] = {
        "a.png": flat(900, 300, (250, 20, 20)),
        "d": {"small.tif": flat(40, 40, (20, 20, 250), "TIFF")},
        b"not\xffutf8.png": flat(10, 10, (1, 2, 3)),
        "broken.jpg": b"\xff\xd8\xffjunk",
        "notes.txt": "x",
    }
    job = await finished(made.harness, "n", what)
    async with made.serving() as client:
        steps = made.harness.steps(job)
        found = pictures(made.harness.stations, job, steps)
        assert [one.label for one in found] == ["a.png", "broken.jpg", "not%FFutf8.png", "d/small.tif"]
        headers = {"Authorization": f"Bearer {READER}"}
        async with client.get(f"/jobs/{job.id}/thumbnails/0", headers=headers) as answer:
            image = Image.open(io.BytesIO(await answer.read()))
            tag = answer.headers["ETag"]
        assert (image.format, image.size) == ("JPEG", (320, 107))
        async with client.get(f"/jobs/{job.id}/thumbnails/0?large", headers=headers) as answer:
            assert answer.headers["ETag"] != tag
            assert Image.open(io.BytesIO(await answer.read())).size == (900, 300)
        red, green, blue = image.convert("RGB").getpixel((100, 50))  # type: ignore[misc]
        assert red > 200 > 80 > max(green, blue)
        async with client.get(f"/jobs/{job.id}/thumbnails/3", headers=headers) as answer:
            assert Image.open(io.BytesIO(await answer.read())).size == (40, 40)
        async with client.get(f"/jobs/{job.id}/thumbnails/2", headers=headers) as answer:
            assert answer.content_type == "image/jpeg"
        again = {**headers, "If-None-Match": tag}
        async with client.get(f"/jobs/{job.id}/thumbnails/0", headers=again) as answer:
            assert answer.status == 304
        # One that is damaged takes none of the others along, and says so by a sign.
        async with client.get(f"/jobs/{job.id}/thumbnails/1", headers=headers) as answer:
            assert answer.content_type == "image/svg+xml"
        for number in ("4", "-1", "x", "²", "0" * 40, "..%2f0"):
            assert (await call(client, f"/jobs/{job.id}/thumbnails/{number}", token=READER))[0] == 404
        assert (await call(client, f"/jobs/{job.id}/thumbnails/0"))[0] == 401
    assert sweep(made.harness.root) == []  # no child is left


async def test_links_in_a_folder_lead_nowhere(tmp_path: Path) -> None:
    """A link is not an image of the job, and one that comes in between is not opened."""
    secret = tmp_path / "secret.png"
    secret.write_bytes(flat(50, 50, (9, 9, 9)))
    harness = Harness(tmp_path / "root")
    job = await finished(harness, "n", {"a.png": flat(50, 50, (1, 1, 1))})
    folder = harness.stations.folder(Station.DONE, b"n")
    (folder / "b.png").symlink_to(secret)
    assert [one.label for one in pictures(harness.stations, job, [])] == ["a.png"]
    maker = Thumbnailer(harness.root, tmp_path / "kept")
    (folder / "a.png").unlink()
    (folder / "a.png").symlink_to(secret)
    assert await maker.get(picture(folder, "a.png")) is None
    await maker.close()
    harness.store.close()


async def test_a_child_that_hangs_or_dies_is_followed_by_another(tmp_path: Path) -> None:
    """What hung it is given up, and the next picture is made."""
    fifo = tmp_path / "a.png"
    (tmp_path / "b.png").write_bytes(flat(50, 50, (1, 1, 1)))
    # As much as a child has to decode takes longer than it is given.
    fifo.write_bytes(encode(np.zeros((6000, 6000, 3), np.uint8), "PNG"))
    maker = Thumbnailer(tmp_path, tmp_path / "kept", ThumbnailLimits(timeout=0.0001))
    assert await maker.get(picture(tmp_path, "a.png", 1)) is None
    maker.bounds = ThumbnailLimits()
    assert await maker.get(picture(tmp_path, "b.png", 2)) is not None
    await maker.close()


async def test_few_are_made_at_once_and_the_same_one_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of pictures starts two children; too many in the queue are refused."""
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(flat(60, 60, (number, 0, 0)))
    maker = Thumbnailer(tmp_path, tmp_path / "kept")
    children: list[int] = []
    real = thumbnails._child

    def counted(*given: Any) -> Any:
        children.append(1)
        return real(*given)

    monkeypatch.setattr(thumbnails, "_child", counted)
    wanted = [picture(tmp_path, f"{number}.png", number) for number in range(6)]
    made = await asyncio.gather(*(maker.get(one) for one in [*wanted, *wanted]))
    assert all(made)
    assert len(children) == thumbnails.CHILDREN
    assert maker._made == 6
    await maker.close()


def test_what_was_looked_at_longest_ago_goes_first(tmp_path: Path) -> None:
    """Until what is kept is no more than may be."""
    for number in range(5):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(bytes(100))
        os.utime(path, (number, number))
    trim(tmp_path, 250)
    assert sorted(os.listdir(tmp_path)) == ["3.jpg", "4.jpg"]


async def test_a_job_shows_no_images_of_the_folder_that_came_after_it(tmp_path: Path) -> None:
    """Of the same name, in the same place, when its own was moved away."""
    made = WebHarness(tmp_path / "root")
    first = await finished(made.harness, "n", {"a.png": flat(10, 10, (1, 2, 3))})
    assert len(pictures(made.harness.stations, first, made.harness.steps(first))) == 1
    (made.harness.root / "done" / "n").rename(tmp_path / "kept")
    made.harness.arrive("n", {"b.png": flat(10, 10, (1, 2, 3))})
    async with made.harness.running():
        await made.harness.until(lambda: len(made.harness.jobs("n")) == 2)
        second = await made.harness.until_over("n")
    assert pictures(made.harness.stations, first, made.harness.steps(first)) == []
    (found,) = pictures(made.harness.stations, second, made.harness.steps(second))
    assert found.label == "b.png"


async def test_images_lead_to_larger_ones_and_from_one_to_the_next(tmp_path: Path) -> None:
    """As links, whole without scripts; there is none before the first and behind the last."""
    made = WebHarness(tmp_path / "root")
    what: dict[str | bytes, Any] = {f"{name}.png": flat(9, 9, (1, 2, 3)) for name in "abc"}
    job = await finished(made.harness, "n", what)
    async with made.serving() as client:
        _, page = await call(client, f"/jobs/{job.id}", token=READER, headers={"Accept": "text/html"})
        at, names = f"/jobs/{job.id}/images", []
        assert [f'href="{at}/{number}"' in page for number in range(4)] == [True, True, True, False]
        here = f"{at}/0"
        while here:
            status, page = await call(client, here, token=READER, headers={"Accept": "text/html"})
            assert status == 200
            names += re.findall(r"<h1><bdi>([^<]+)</bdi>", page)
            following = re.search(r'href="([^"]+)" rel="next"', page)
            assert ('rel="prev"' in page) is (len(names) > 1)
            here = following[1] if following else ""
        assert names == ["a.png", "b.png", "c.png"]
        for wrong in ("3", "-1", "x", "99999"):
            assert (await call(client, f"{at}/{wrong}", token=READER))[0] == 404
        assert (await call(client, f"{at}/0"))[0] == 401
