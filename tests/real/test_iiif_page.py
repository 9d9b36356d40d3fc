"""The page of the iiif step in a real browser: what people see, and that nothing else is asked for."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Browser, Page, async_playwright

from dittohead.model.description import Described, Description, Object
from dittohead.workers.iiif.worker import IiifOptions, IiifWorker
from tests.support.context import LoneContext
from tests.support.convert import Rig
from tests.support.images import encode
from tests.support.static_site import serving

pytestmark = [pytest.mark.rest, pytest.mark.service]

HOSTILE = "<img src=x onerror=document.title='taken'></script><script>document.title='taken'</script>"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the URL it is served at, as any static web server would."""
    folder = tmp_path / "site"
    folder.mkdir()
    with serving(folder) as url:
        yield folder, url


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium")
    assert program, "chromium is missing: tools/setup test"
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        await started.close()


def flat(width: int, height: int, *colours: tuple[int, int, int]) -> bytes:
    """Return an image of upright stripes of these colours."""
    stripes = np.zeros((height, width, 3), np.uint8)
    for number, colour in enumerate(colours):
        stripes[:, width * number // len(colours) :] = colour
    return encode(stripes, "PNG")


RED, GREEN, BLUE = (250, 20, 20), (20, 200, 20), (20, 20, 250)


async def present(base: Path, site: Path, uri: str, images: dict[str | bytes, Any], **options: Any) -> None:
    """Make tiles and their presentation, and put both where the server has them."""
    rig = Rig(base)
    ctx = await rig.convert(images, format="iiif-static", tile=256, iiif_id=f"{uri}/{{path}}")
    to = LoneContext(base, rig.payload, step="presentation")
    to.others["tiles"] = rig.made()
    title = options.pop("title", HOSTILE)
    known = Description(identifier="x", title=title, abstract=HOSTILE, rights=HOSTILE)
    to.description = Described(objects=(Object(description=known),))
    await IiifWorker().run(to, IiifOptions.model_validate({"tiles": "tiles", "base": uri, **options}))
    for work in (ctx.work, to.work):
        shutil.copytree(work, site, dirs_exist_ok=True)


async def opened(browser: Browser, url: str, **how: Any) -> tuple[Page, list[str]]:
    """Return a page and what it complained of or asked for in vain."""
    context = await browser.new_context(**how)
    page, said = await context.new_page(), list[str]()
    # One complaint is about this test's own looking at pixels.
    page.on("console", lambda m: None if "getImageData" in m.text else said.append(m.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
    page.on(
        "response",
        lambda answer: said.append(f"{answer.status} {answer.url}") if answer.status > 399 else None,
    )
    await page.goto(url)
    await page.wait_for_load_state("networkidle")
    return page, said


async def colour(page: Page, across: float, wanted: tuple[int, int, int]) -> None:
    """Wait until the viewer shows a colour at a part of its width, half way down."""
    await page.wait_for_function(
        """([across, wanted]) => {
            const canvas = document.querySelector("#stage canvas"), pen = canvas.getContext("2d");
            const [r, g, b] = pen.getImageData(canvas.width * across, canvas.height / 2, 1, 1).data;
            return [r, g, b].every((value, i) => Math.abs(value - wanted[i]) < 40);
        }""",
        arg=[across, list(wanted)],
    )


async def test_people_see_the_images_zoom_and_turn_pages(
    tmp_path: Path, site: tuple[Path, str], browser: Browser
) -> None:
    """By tiles that exist, without a word in the console, whatever the title is."""
    folder, uri = site
    images: dict[str | bytes, Any] = {
        "a b.png": flat(3000, 2000, RED, GREEN, BLUE),
        "c#ü.png": flat(700, 900, BLUE),
        "tiny.png": flat(9, 7, GREEN),
    }
    await present(tmp_path, folder, uri, images)
    page, said = await opened(browser, f"{uri}/index.html", viewport={"width": 1000, "height": 800})
    assert await page.inner_text("h1") == HOSTILE
    assert await page.title() == HOSTILE
    await colour(page, 0.2, RED)
    await colour(page, 0.5, GREEN)
    await page.focus("#stage")
    for _ in range(12):
        await page.keyboard.press("+")
    await colour(page, 0.1, GREEN)  # the middle stripe alone is in sight
    assert await page.is_disabled("#larger")
    await page.keyboard.press("0")
    await colour(page, 0.2, RED)
    await page.keyboard.press("PageDown")
    await colour(page, 0.5, BLUE)
    assert page.url.endswith("#image=2")
    assert await page.inner_text("#said") == "Image 2 of 3"
    await page.fill("#number", "3")
    await page.keyboard.press("Enter")
    await colour(page, 0.5, GREEN)
    assert await page.is_disabled("#after")
    await page.click("#images li:first-child a")
    await colour(page, 0.2, RED)
    assert said == []


async def test_the_page_fits_a_phone_and_can_be_read_without_javascript(
    tmp_path: Path, site: tuple[Path, str], browser: Browser
) -> None:
    """No sideways scrolling; each image is a link to the whole of it."""
    folder, uri = site
    await present(tmp_path, folder, uri, {"a.png": flat(1200, 800, RED), "b.png": flat(800, 1200, BLUE)})
    for javascript in (True, False):
        page, said = await opened(
            browser,
            f"{uri}/index.html",
            viewport={"width": 360, "height": 740},
            has_touch=True,
            color_scheme="dark",
            java_script_enabled=javascript,
        )
        widths = [await element.bounding_box() for element in await page.locator("body *:visible").all()]
        assert max(box["x"] + box["width"] for box in widths if box is not None) <= 360
        assert await page.is_visible("#viewer") is javascript
        for image in await page.locator("#images img").all():
            await image.scroll_into_view_if_needed()
        await page.wait_for_load_state("networkidle")
        answer = await page.request.get(f"{uri}/{await page.get_attribute('#images a', 'href')}")
        assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
        assert said == []


async def test_text_of_twice_the_size_fits_the_smallest_screen(
    tmp_path: Path, site: tuple[Path, str], browser: Browser
) -> None:
    """Source: WCAG 2.2, 1.4.4 and 1.4.10."""
    folder, uri = site
    await present(tmp_path, folder, uri, {"a.png": flat(300, 200, RED), "b.png": flat(200, 300, BLUE)})
    page, said = await opened(browser, f"{uri}/index.html", viewport={"width": 320, "height": 600})
    await page.evaluate("document.documentElement.style.fontSize = '200%'")
    assert await page.evaluate("document.documentElement.scrollWidth") == 320
    assert said == []


async def test_names_are_there_and_begin_as_they_are_seen(
    tmp_path: Path, site: tuple[Path, str], browser: Browser
) -> None:
    """Of a title of spaces alone the identifier; of a button what stands on it (WCAG 2.2, 2.4.2 and 2.5.3)."""
    folder, uri = site
    await present(tmp_path, folder, uri, {"a.png": flat(300, 200, RED)}, title=" \u2003 ")
    page, _ = await opened(browser, f"{uri}/index.html")
    assert (await page.title(), await page.inner_text("h1")) == ("x", "x")
    for button in await page.locator("#bar button").all():
        seen, name = await button.inner_text(), await button.get_attribute("aria-label") or ""
        assert name.startswith(seen) or not seen.isalpha()


async def test_fingers_turn_and_zoom(tmp_path: Path, site: tuple[Path, str], browser: Browser) -> None:
    """A swipe turns to the next image, two fingers zoom where they are."""
    folder, uri = site
    images: dict[str | bytes, Any] = {"a.png": flat(900, 900, RED), "b.png": flat(900, 900, GREEN, BLUE)}
    await present(tmp_path, folder, uri, images)
    page, said = await opened(
        browser, f"{uri}/index.html", viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True
    )
    session = await page.context.new_cdp_session(page)
    box = await page.locator("#stage").bounding_box()
    assert box is not None
    middle, down = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    async def touch(kind: str, *across: float) -> None:
        points = [{"x": middle + x, "y": down, "id": number} for number, x in enumerate(across)]
        await session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    await colour(page, 0.25, RED)
    await touch("touchStart", 100)
    for x in range(80, -100, -20):
        await touch("touchMove", x)
    await touch("touchEnd")
    await colour(page, 0.25, GREEN)
    assert page.url.endswith("#image=2")
    await touch("touchStart", -130, -110)
    for x in range(10, 60, 10):
        await touch("touchMove", -130 - x / 5, -110 + x * 3)
    await touch("touchEnd")
    await colour(page, 0.75, GREEN)  # the left half has been zoomed into
    assert "zoomed" in (await page.get_attribute("#stage", "class") or "")
    assert said == []


async def test_what_could_be_smuggled_in_would_not_run(
    tmp_path: Path, site: tuple[Path, str], browser: Browser
) -> None:
    """The policy alone refuses it, were it not escaped."""
    folder, uri = site
    await present(tmp_path, folder, uri, {"a.png": flat(300, 200, RED)})
    path = folder / "index.html"
    path.write_text(path.read_text().replace("<main>", f"<main>{HOSTILE}", 1))
    page, said = await opened(browser, f"{uri}/index.html")
    assert await page.title() != "taken"
    assert any("Content Security Policy" in line for line in said)


async def test_text_has_contrast_in_light_and_dark(
    tmp_path: Path, site: tuple[Path, str], browser: Browser
) -> None:
    """At least 4.5 to 1 for every text. Source: WCAG 2.2, 1.4.3."""
    folder, uri = site
    await present(tmp_path, folder, uri, {"a.png": flat(300, 200, RED), "b.png": flat(300, 200, RED)})
    for scheme in ("light", "dark"):
        page, _ = await opened(browser, f"{uri}/index.html", color_scheme=scheme)
        found = await page.evaluate(_CONTRASTS)
        assert len(found) > 10
        assert [each for each in found if each[1] < 4.5] == []


_CONTRASTS = """() => {
    const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
        .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const found = numbers(getComputedStyle(one).backgroundColor);
            if (found.length < 4 || found[3] > 0) return found;
        }
        return [255, 255, 255];
    };
    return [...document.querySelectorAll("body *")]
        .filter((one) => [...one.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
        .filter((one) => !["SCRIPT", "STYLE"].includes(one.tagName) && one.checkVisibility())
        .map((one) => {
            const pair = [light(numbers(getComputedStyle(one).color)), light(behind(one))].sort((a, b) => b - a);
            return [one.outerHTML.slice(0, 80), (pair[0] + 0.05) / (pair[1] + 0.05)];
        });
}"""
