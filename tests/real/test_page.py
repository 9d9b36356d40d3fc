"""The page in a real browser at the real daemon: what people see, do and drop; by mouse, keyboard, without scripts."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import socket
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import (
    Browser,
    BrowserContext,
    Dialog,
    Page,
    Route,
    async_playwright,
    expect,
)

import dittohead
from dittohead.model import units
from tests.support.daemon import Site, site
from tests.support.images import encode, pixels

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]

# The machine may be busy: a condition is waited for, however long it takes.
expect.set_options(timeout=120_000)

TOKEN = "operator-0123456789-abcdefghij"
HOSTILE = "<img src=x onerror=document.title='taken'>\u202egnp.exe"

CONFIG = """
root: .
http: {{listen: "127.0.0.1:{port}", tokens: people, read: open}}
space: {{floor: 0}}
watch: {{interval: 1s}}
limits: {{jobs: 4, command: 4}}
pipelines:
  held:
    match: "held.*"
    steps:
      - command: {{name: hold, argv: [sh, -c, "echo begun; until test -e {root}/go; do sleep 0.05; done; echo ended"]}}
      - checksum: {{}}
  fragile:
    match: "(bad|<).*"
    steps:
      - command: {{name: scan, argv: [sh, -c, "echo '<b>looked</b>'; test -e {root}/mended"]}}
      - checksum: {{}}
  pictures:
    match: "picture.*"
    steps:
      - convert: {{format: pyramid-tiff}}
  away:
    match: "away.*"
    steps:
      - command: {{name: send, argv: [sh, -c, "exit 3"], target_exit: [3], target: "the <i>archive</i>"}}
  works:
    match: "(?P<purpose>access|)-?set.*"
    steps:
      - checksum: {{name: first}}
      - checksum: {{name: second, after: []}}
      - checksum: {{name: third, for: access}}
"""


class Here:
    """A daemon and its page's address."""

    def __init__(self, daemon: Site, port: int) -> None:
        self.daemon, self.url = daemon, f"http://127.0.0.1:{port}"

    def ask(self, path: str, **form: str) -> Any:
        """Ask as a program does; with a form, for something to be done."""
        data = urlencode(form).encode() if form else None
        request = urllib.request.Request(self.url + path, data, {"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.read()

    def jobs(self, name: str) -> list[dict[str, Any]]:
        found = json.loads(self.ask(f"/api/v1/jobs?name={quote(name)}"))
        items: list[dict[str, Any]] = found["items"] if isinstance(found, dict) else found
        return items

    def until_state(self, name: str, state: str) -> dict[str, Any]:
        def look() -> Any:
            return next((job for job in self.jobs(name) if job["state"] == state), None)

        found: dict[str, Any] = self.daemon.until(look)
        return found


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    root = tmp_path_factory.mktemp("page") / "root"
    (root / "credentials").mkdir(parents=True)
    (root / "credentials" / "people").write_text(f"operator alice {TOKEN}\n")
    with site(root, CONFIG.format(port=port, root=root)) as daemon:
        daemon.start()
        yield Here(daemon, port)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    program = shutil.which("chromium")
    assert program, "chromium is missing: tools/setup test"
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        await started.close()


async def test_scripts_write_sizes_as_everything_else_does(browser: Browser) -> None:
    """From a byte to what no disk holds; where a half is rounded, too."""
    chance = random.Random(3)
    counts = [0, 1, 2, 1023, 1024, 1280, 1408, 102_912, 104_448, (1 << 20) - 1, 5 << 60 >> 12]
    counts += [chance.randrange(1 << chance.randrange(1, 49)) for _ in range(3000)]
    counts += [(count >> 9) << 9 for count in counts]
    script = (
        (Path(dittohead.__file__).parent / "web/pages/static/units.js").read_text().replace("export ", "")
    )
    page = await browser.new_page()
    said = await page.evaluate(f"(counts) => {{ {script}; return counts.map(size); }}", counts)
    await page.close()
    assert said == [units.size(count) for count in counts]


async def opened(browser: Browser, here: Here, **how: Any) -> tuple[Page, list[str]]:
    """Return a page of somebody who is signed in, and what it complains of: scripts, policy, answers."""
    context: BrowserContext = await browser.new_context(**how)
    page, said = await context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    await page.goto(f"{here.url}/login?next=/")
    await page.get_by_label("Token").fill(TOKEN)
    await page.get_by_role("button", name="Sign in").click()
    await page.wait_for_url(f"{here.url}/")
    return page, said


async def accessible(page: Page) -> None:
    """See that axe finds nothing, in light and in dark, and that nothing scrolls sideways on a phone."""
    for scheme, options in (("dark", {"runOnly": ["color-contrast"]}), ("light", {})):
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        found = await Axe().run(page, options={"resultTypes": ["violations"], **options})
        wrong = found.response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in wrong] == []
    size = page.viewport_size
    await page.set_viewport_size({"width": 360, "height": 740})
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
    wide = "[...document.querySelectorAll('.wide')].filter(e => e.scrollWidth > e.clientWidth).length"
    assert await page.evaluate(wide) == 0
    if size:
        await page.set_viewport_size(size)


async def test_a_job_is_watched_live_frozen_and_failed_ones_are_retried(here: Here, browser: Browser) -> None:
    """Without a reload: it runs, its log grows, a button retries; a foreign name is text."""
    page, said = await opened(browser, here)
    await expect(page.get_by_text("All is well")).to_be_visible()
    await accessible(page)

    here.daemon.drop("held-1", {"a.txt": "1"})
    running = page.locator("#running")
    await expect(running.get_by_role("link", name="held-1")).to_be_visible()
    here.daemon.drop(HOSTILE, {"a.txt": "1"})
    attention = page.locator("#attention")
    await expect(attention.get_by_role("link")).to_have_text(HOSTILE.replace("\u202e", "\\u202e"))
    await expect(page.locator("#glance")).to_contain_text("1 job failed")
    assert await page.title() == "Needs attention · dittohead"
    await accessible(page)

    await running.get_by_role("link", name="held-1").click()
    await expect(page.locator("#verdict")).to_contain_text("Step 1 of 2")
    await accessible(page)
    await page.get_by_role("link", name="Log of hold").click()
    await expect(page.locator("#log")).to_have_text("begun\n")
    await accessible(page)
    (here.daemon.root / "go").touch()
    await expect(page.locator("#log")).to_have_text("begun\nended\n")
    await page.get_by_role("link", name="held-1").click()
    await expect(page.locator("#verdict")).to_contain_text("Every step is done")
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Download the receipt").click()
    assert '"held-1"' in Path(await (await download.value).path()).read_text()

    await page.goto(here.url)
    (here.daemon.root / "mended").touch()
    await page.get_by_role("button", name=f"Retry: {HOSTILE}"[:12]).click()
    await expect(page.locator(".said", has_text="tried again from step scan")).to_be_visible()
    await expect(page.locator("#verdict")).to_contain_text("Every step is done")
    await expect(page.locator("#asked")).to_contain_text("alice (signed in)")
    assert said == []


async def test_keys_alone_find_freeze_thaw_and_cancel(here: Here, browser: Browser) -> None:
    """Tab and Enter reach everything, the focus is seen, and it stays while the page changes."""
    (here.daemon.root / "go").unlink(missing_ok=True)
    here.daemon.drop("held-2", {"a.txt": "1"})
    job = here.until_state("held-2", "running")
    page, said = await opened(browser, here)
    await page.goto(f"{here.url}/jobs?q=held-2")
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    await page.keyboard.press("Enter")
    await page.locator("#q").focus()
    await page.keyboard.press("Enter")
    link = page.get_by_role("link", name="held-2")
    while not await link.evaluate("link => link === document.activeElement"):
        await page.keyboard.press("Tab")
    outline = await link.evaluate("link => getComputedStyle(link).outlineStyle")
    assert outline == "solid"
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"{here.url}/jobs/{job['id']}")

    summary = page.locator("#d-freeze summary")
    await summary.focus()
    await page.keyboard.press("Enter")
    reason = page.get_by_label("Reason")
    await reason.focus()
    await page.keyboard.type("the committee ")
    # What is shown changes under the reader's hands, and takes nothing out of them.
    here.ask(f"/jobs/{job['id']}/freeze", reason="by another")
    await expect(page.locator("#verdict")).to_contain_text("Nothing happens until it is thawed")
    await page.get_by_role("button", name="Thaw").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(".said", has_text="held-2: thawed")).to_be_visible()
    await expect(page.locator("#verdict")).to_contain_text("Step 1 of 2")
    await page.locator("#d-freeze summary").focus()
    await page.keyboard.press("Enter")
    await page.get_by_label("Reason").fill("half a word")
    (here.daemon.root / "go").touch()
    await expect(page.locator("#verdict")).to_contain_text("Every step is done")
    assert said == []


async def test_what_is_typed_stays_while_the_page_changes(here: Here, browser: Browser) -> None:
    """Focus, text and what was opened, on a page that is told of another job's end each moment."""
    (here.daemon.root / "go").unlink(missing_ok=True)
    here.daemon.drop("held-3", {"a.txt": "1"})
    job = here.until_state("held-3", "running")
    page, said = await opened(browser, here)
    await page.goto(f"{here.url}/jobs/{job['id']}")
    await expect(page.locator("body")).to_have_attribute("data-live", "yes")
    await page.locator("#d-cancel summary").click()
    await page.locator("#d-freeze summary").click()
    await page.get_by_label("Reason").fill("not yet")
    here.ask(f"/jobs/{job['id']}/freeze", reason="x")
    await expect(page.locator("#verdict")).to_contain_text("Nothing happens until it is thawed")
    here.ask(f"/jobs/{job['id']}/thaw", now="yes")
    await expect(page.locator("#asked")).to_contain_text("thaw")
    await expect(page.locator("#verdict")).to_contain_text("Step 1 of 2")
    assert await page.locator("#d-cancel").evaluate("details => details.open")
    await page.get_by_role("button", name="Yes, cancel it").click()
    await expect(page.locator(".said", has_text="the folder is in failed/")).to_be_visible()
    await expect(page.locator("#verdict")).to_contain_text("It was cancelled before it was finished")
    assert said == []


async def test_a_paused_target_is_shown_and_resumed(here: Here, browser: Browser) -> None:
    """With its reason, the job that waits for it, and a button."""
    here.daemon.drop("away-1", {"a.txt": "1"})
    page, said = await opened(browser, here)
    row = page.locator("#attention li", has_text="the <i>archive</i>")
    await expect(row).to_contain_text("1 job waiting for it")
    await accessible(page)
    await row.get_by_role("button", name="Resume").click()
    await expect(page.locator(".said", has_text="its jobs go on")).to_be_visible()
    here.ask("/jobs/away-1/cancel", now="yes")
    assert said == []


async def test_a_folder_is_dropped_by_the_script(here: Here, browser: Browser, tmp_path: Path) -> None:
    """A name no pipeline fits is told before; paths are kept; a broken-off upload is taken up."""
    folder = tmp_path / "set one"
    (folder / "in ner").mkdir(parents=True)
    (folder / "a é.txt").write_bytes(b"alpha")
    (folder / "in ner" / "b.bin").write_bytes(bytes(range(256)) * 70_000)  # more than one piece
    (folder / "empty").touch()
    page, said = await opened(browser, here)
    await page.get_by_role("link", name="Drop").click()
    name = page.get_by_label("Name of the folder")
    await name.fill("nothing fits")
    await expect(page.locator("#match")).to_contain_text("no pipeline's match fits the folder's name")
    await name.fill("")
    await page.get_by_label("A folder").set_input_files(folder)
    await expect(name).to_have_value("set one")
    await expect(page.locator("#match")).to_have_text("Pipeline works: first, second, third")
    await expect(page.locator("#chosen")).to_contain_text("3 files")
    await page.get_by_label("access").check()
    await accessible(page)

    # The way breaks within the second piece of a file.
    async def broken(route: Any) -> None:
        await route.fulfill(status=403, body="{}")

    await page.route("**/file?*at=8388608", broken)
    await page.get_by_role("button", name="Upload").click()
    await expect(page.locator("#told")).to_contain_text("answer 403")
    said.clear()  # the browser says so too
    await page.unroute("**/file?*at=8388608")
    await page.reload()
    await expect(page.get_by_text("8.0 MiB of 17.1 MiB in 3 files received")).to_be_visible()
    assert not (here.daemon.root / "inbox" / "set one").exists()
    await page.get_by_role("button", name="Continue: set one").click()
    await page.get_by_label("A folder").set_input_files(folder)
    await page.get_by_role("button", name="Continue upload").click()
    await page.wait_for_url(f"{here.url}/jobs/*")
    await expect(page.locator("#verdict")).to_contain_text("Every step is done")
    await expect(page.locator("#asked")).to_contain_text(
        "uploaded through the page, 3 files, 17,920,005 bytes"
    )
    (receipt,) = (found for found in here.daemon.receipts() if found["name"] == "set one")
    transfers = [event["detail"] for event in receipt["events"] if event["type"] == "transfer"]
    assert transfers == ["uploaded through the page by alice (signed in)"]
    done = here.daemon.root / "done" / "set one"
    for path in ("a é.txt", "in ner/b.bin", "empty"):
        assert (done / path).read_bytes() == (folder / path).read_bytes()
    assert (done / "dittohead.yaml").read_text() == "purpose:\n- access\n"
    assert said == []


async def test_the_browser_asks_before_leaving_only_while_bytes_are_on_their_way(
    here: Here, browser: Browser, tmp_path: Path
) -> None:
    """Not after one upload or the next, not after a broken one or one that was given up."""
    folder = tmp_path / "set-asks"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"alpha")
    page, _ = await opened(browser, here)
    asked: list[str] = []

    async def stay(dialog: Dialog) -> None:
        asked.append(dialog.type)
        await dialog.dismiss()

    page.on("dialog", stay)

    async def upload(name: str) -> None:
        await page.goto(f"{here.url}/drop")
        await page.get_by_label("A folder").set_input_files(folder)
        await page.get_by_label("Name of the folder").fill(name)
        await page.get_by_role("button", name="Upload").click()

    for name in ("set-asks-1", "set-asks-2"):
        await upload(name)
        await page.wait_for_url(f"{here.url}/jobs/*")

    held: list[Route] = []
    await page.route("**/file?*", lambda route: held.append(route))
    async with page.expect_request("**/file?*"):
        await upload("set-asks-3")
    async with page.expect_event("dialog"):
        await page.get_by_role("link", name="Jobs").click()
    assert page.url == f"{here.url}/drop"
    await held[0].fulfill(status=403, body="{}")
    await expect(page.locator("#told")).to_contain_text("answer 403")
    await page.get_by_role("link", name="Jobs").click()
    await page.wait_for_url(f"{here.url}/jobs")
    await page.goto(f"{here.url}/drop")
    await page.get_by_role("button", name="Give up: set-asks-3").click()
    await expect(page.locator(".said")).to_contain_text("given up")
    await page.get_by_role("link", name="Jobs").click()
    await page.wait_for_url(f"{here.url}/jobs")
    assert asked == ["beforeunload"]


async def test_everything_goes_without_scripts(here: Here, browser: Browser, tmp_path: Path) -> None:
    """Signing in, dropping a folder, its job's page, and a button."""
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "x.txt").write_bytes(b"without")
    page, _ = await opened(browser, here, java_script_enabled=False)
    await page.goto(f"{here.url}/drop")
    await page.get_by_label("Name of the folder").fill("nothing fits")
    await page.get_by_label("or files").set_input_files(tmp_path / "plain" / "x.txt")
    await page.get_by_role("button", name="Upload").click()
    await expect(page.get_by_role("alert")).to_contain_text("no pipeline's match fits the folder's name")
    await page.get_by_label("Name of the folder").fill("set-plain")
    await page.get_by_label("or files").set_input_files(tmp_path / "plain" / "x.txt")
    await page.get_by_role("button", name="Upload").click()
    await page.wait_for_url(f"{here.url}/jobs/*")
    here.until_state("set-plain", "done")
    await page.reload()
    await expect(page.locator("#verdict")).to_contain_text("Every step is done")
    assert (here.daemon.root / "done" / "set-plain" / "x.txt").read_bytes() == b"without"
    await page.locator("#d-rerun summary").click()
    await page.get_by_label("From").select_option("second")
    await page.get_by_role("button", name="Run again").click()
    await expect(page.locator(".said", has_text="run again from step second")).to_be_visible()


async def test_images_open_in_a_viewer_and_files_in_a_list(here: Here, browser: Browser) -> None:
    """By mouse and by keys, over the job's page; without scripts as pages of their own."""
    names = ["a.png", "b.png", "c.png"]
    here.daemon.drop("set-images", {name: encode(pixels(900, 600), "PNG") for name in names})
    job = here.until_state("set-images", "done")
    page, said = await opened(browser, here)
    await page.goto(f"{here.url}/jobs/{job['id']}")
    await page.get_by_role("link", name="a.png").click()
    label, dialog = page.locator("#viewer-label"), page.get_by_role("dialog")
    await expect(label).to_have_text("a.png (1 of 3)")
    await expect(dialog.get_by_role("img", name="a.png")).to_have_js_property("naturalWidth", 900)
    await expect(dialog.get_by_role("button", name="Previous")).to_be_disabled()
    await accessible(page)
    for _ in range(3):  # there is none behind the last
        await page.keyboard.press("ArrowRight")
    await expect(label).to_have_text("c.png (3 of 3)")
    await page.keyboard.press("ArrowLeft")
    await expect(label).to_have_text("b.png (2 of 3)")
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(page.get_by_role("link", name="b.png")).to_be_focused()

    await page.get_by_role("link", name="List of files").click()
    made = ["manifest-sha256.txt"] * 3  # of the steps
    await expect(page.get_by_role("rowheader")).to_have_text([*names, *made])
    await accessible(page)
    await page.goto(f"{here.url}/jobs/{job['id']}/images/1")
    await accessible(page)
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("heading", name="c.png")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.wait_for_url(f"{here.url}/jobs/{job['id']}#pictures")
    assert said == []

    page, _ = await opened(browser, here, java_script_enabled=False)
    await page.goto(f"{here.url}/jobs/{job['id']}")
    await page.get_by_role("link", name="a.png").click()
    await page.get_by_role("link", name="Next").click()
    await expect(page.get_by_role("heading", name="b.png")).to_be_visible()


async def test_a_name_that_fits_nothing_is_changed_in_the_browser(here: Here, browser: Browser) -> None:
    """What would come of it is said while it is typed; the new job's page follows."""
    here.daemon.drop("nothing fits", {"a.txt": "1"})
    here.until_state("nothing fits", "failed")
    page, said = await opened(browser, here)
    await page.get_by_role("link", name="Rename and run: nothing fits").click()
    name, told = page.get_by_label("New name of the folder"), page.locator("#match")
    await name.fill("nothing else")
    await expect(told).to_contain_text("no pipeline's match fits the folder's name")
    await name.fill("set-renamed")
    await expect(told).to_have_text("Pipeline works: first, second, third")
    await accessible(page)
    await page.get_by_role("button", name="Rename and run").click()
    await page.wait_for_url(f"{here.url}/jobs/*")
    await expect(page.locator("#verdict")).to_contain_text("Every step is done")
    await expect(page.locator("#events")).to_contain_text("renamed from nothing fits by alice (signed in)")
    assert said == []


async def test_a_damaged_image_is_replaced_in_the_browser(
    here: Here, browser: Browser, tmp_path: Path
) -> None:
    """Chosen from the failed step, refused while it is empty, looked at beside the earlier one; then it is done."""
    whole = encode(pixels(300, 200), "PNG")
    here.daemon.drop("picture-1", {"a.png": whole[:9000], "b.png": whole})
    job = here.until_state("picture-1", "failed")
    page, said = await opened(browser, here)
    await expect(page.get_by_role("link", name="Replace a file: picture-1")).to_be_visible()
    await page.goto(f"{here.url}/jobs/{job['id']}")
    await accessible(page)
    await page.locator("#steps").get_by_role("link", name="Replace a.png").click()
    empty, scan = tmp_path / "empty.png", tmp_path / "scan 7.png"
    empty.touch()
    scan.write_bytes(whole)
    await accessible(page)
    await page.get_by_label("New file").set_input_files(empty)
    await page.get_by_role("button", name="Upload").click()
    await expect(page.locator("#sent")).to_contain_text("the new file is empty")
    said.clear()  # the browser says so too
    await page.get_by_label("New file").set_input_files(scan)
    await page.get_by_role("button", name="Upload").click()
    await expect(page.get_by_role("rowheader", name="new")).to_be_visible()
    await expect(page.get_by_text(hashlib.sha256(whole).hexdigest())).to_be_visible()
    await accessible(page)
    await page.get_by_label("Reason").fill("scanned again")
    await page.get_by_role("button", name="Replace and run").click()
    await page.wait_for_url(lambda url: "/jobs/" in url and job["id"] not in url)
    await expect(page.locator("#verdict")).to_contain_text("Every step is done")
    await expect(page.locator("#events")).to_contain_text(
        "a.png replaced by alice (signed in): scanned again"
    )
    assert said == []


async def test_a_reader_sees_everything_and_may_do_nothing(here: Here, browser: Browser) -> None:
    """No buttons, no form; numbers and lists that axe finds nothing wrong with; errors are pages too."""
    here.daemon.drop("set-read", {"a.txt": "1"})
    job = here.until_state("set-read", "done")
    context = await browser.new_context()
    page, said = await context.new_page(), list[str]()
    page.on("console", lambda message: said.append(message.text))
    for path in ("/", "/jobs", "/statistics", f"/jobs/{job['id']}"):
        await page.goto(here.url + path)
        assert await page.locator("main form[method=post]").count() == 0
        await accessible(page)
    assert said == []
    await page.goto(f"{here.url}/drop")
    assert "/login" in page.url
    await accessible(page)
    answer = await page.goto(f"{here.url}/jobs/nobody")
    assert answer is not None
    assert answer.status == 404
    await expect(page.get_by_role("heading", name="Not found")).to_be_visible()
