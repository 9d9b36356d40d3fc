"""Every page in every state that people see it in: jobs of all kinds, and how to come to each view in a browser.

For the tests, which look at each view with axe, and for tools/screenshots, which makes pictures of them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from playwright.sync_api import Browser, BrowserContext, Page, Route

from tests.support.daemon import Site
from tests.support.trees import tree

TOKEN = "operator-0123456789-abcdefghij"  # of a daemon that lives for seconds

CONFIG = """
root: .
http: {{listen: "127.0.0.1:{port}", tokens: people, read: open}}
space: {{floor: {floor}}}
watch: {{interval: 1s, stale_after: {stale}}}
limits: {{jobs: 6, command: 4, convert: 1}}
pipelines:
  scans:
    description: Scanned pages of a study
    example: lab1-scans-2026-07
    match: "(?P<study>[a-z0-9]+)-scans-.*"
    steps:
      - convert: {{format: pyramid-tiff, quality: 85}}
      - rsync: {{name: originals, to: "{root}/storage/{{study}}/raw/{{name}}/", mkpath: true}}
      - rsync: {{name: pyramids, from: convert, after: [convert], to: "{root}/storage/{{study}}/pyramids/{{name}}/", mkpath: true}}
  films:
    description: Films, scanned for viruses
    example: film-1931
    match: "film-.*"
    steps:
      - command: {{name: scan, argv: [sh, -c, "echo Looking at 1 of 3; echo Looking at 2 of 3; echo cannot read reel 3 >&2; exit 3"]}}
      - checksum: {{}}
  music:
    description: Sound carriers
    example: sound-0815
    match: "sound-.*"
    steps:
      - checksum: {{name: check}}
      - rsync: {{name: deliver, to: "{root}/storage/music/{{name}}/", mkpath: true, bwlimit: 2KiB}}
  maps:
    description: Maps of an atlas, for preservation and for readers
    example: atlas-1645
    match: "atlas-.*"
    steps:
      - checksum: {{name: masters, for: preservation}}
      - checksum: {{name: copies, for: access}}
  letters:
    description: Letters, a folder for each
    example: estate-mueller
    match: "estate-.*"
    each: folder
    steps:
      - command: {{name: count, argv: [sh, -c, "if ! test -e letter.txt; then echo there is no letter >&2; exit 1; fi"], cwd: payload}}
      - checksum: {{}}
  away:
    match: "away-.*"
    steps:
      - command: {{name: send, argv: [sh, -c, "exit 3"], target_exit: [3], target: "archive.example.org"}}
"""

#: What each job becomes.
_BECOMES = {
    "lab1-scans-2026-07": "done",
    "lab2-scans-2026-07": "failed",
    "film-1931": "failed",
    "film-1932": "failed",
    "Letters of 1887": "failed",
    "sound-0815": "running",
    "away-1": "paused",
    "atlas-1645": "done",
    "estate-mueller/1887-01": "done",
    "estate-mueller/1887-02": "failed",
}


def config(root: Path, port: int, *, soon: bool) -> str:
    """Return config.yaml. Args: soon: uploads are stale soon, and the disk may be nearly full."""
    stale, floor = ("2s", "1MiB") if soon else ("1d", "1GiB")
    return CONFIG.format(root=root, port=port, stale=stale, floor=floor)


def prepare(root: Path) -> None:
    """Make what is there before the daemon starts: the people who may use it."""
    (root / "credentials").mkdir(parents=True)
    (root / "credentials" / "people").write_text(f"operator alice {TOKEN}\n")
    (root / "inbox").mkdir()


def fill(daemon: Site) -> None:
    """Have jobs of several kinds. The daemon runs."""
    inbox, demo = daemon.root / "inbox", Path(__file__).resolve().parents[2] / "tools" / "demo"
    subprocess.run([sys.executable, demo, "--samples", inbox / ".lab1-scans-2026-07"], check=True)
    torn = inbox / ".lab2-scans-2026-07"
    shutil.copytree(inbox / ".lab1-scans-2026-07", torn)
    first = min(torn.glob("*.tif"))
    first.write_bytes(first.read_bytes()[:2000])
    for name in ("lab1-scans-2026-07", "lab2-scans-2026-07"):
        (inbox / f".{name}").rename(inbox / name)
    daemon.drop("sound-0815", {"side-1.wav": b"x" * 2_000_000, "notes.txt": "y" * 900})
    for name in ("film-1931", "film-1932", "Letters of 1887", "away-1", "atlas-1645"):
        daemon.drop(name, {"a.wav": "x" * 70_000, "notes.txt": "y" * 900})
    daemon.drop("estate-mueller", {"1887-01": {"letter.txt": "Dear"}, "1887-02": {"envelope.txt": "To"}})

    def settled() -> bool:
        return {job["name"]: job["state"] for job in daemon.json("list")} == _BECOMES

    daemon.until(settled, 600)
    daemon.run("dismiss", "film-1932", "--reason", "scanned again as film-1931")


def fill_more(daemon: Site, port: int) -> None:
    """Have what is seldom there: a frozen and a cancelled job, things in the inbox that nobody can take."""
    inbox = daemon.root / "inbox"
    for name in ("sound-0816", "sound-0817"):
        daemon.drop(name, {"side-1.wav": b"z" * 2_000_000})
    states = ("running", "waiting")
    daemon.until(lambda: sum(job["state"] in states for job in daemon.json("list")) >= 3, 600)
    daemon.run("freeze", "sound-0816", "--reason", "The committee decides on Tuesday")
    daemon.run("cancel", "sound-0817")
    daemon.run("delete", "atlas-1645", "--reason", "It is the same as atlas-1644")
    tree(inbox / ".sound-0818", {"side-1.wav": "x" * 50_000})
    (inbox / "scan of the map.pdf").write_bytes(b"%PDF-1.7")
    files = [{"path": "reel-1.mov", "size": 5_000_000}, {"path": "reel-2.mov", "size": 900_000}]
    body = json.dumps({"name": "film-1940", "purposes": [], "files": files}).encode()
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    begun = urllib.request.Request(f"http://127.0.0.1:{port}/drop/uploads", body, headers)
    urllib.request.urlopen(begun, timeout=60).close()

    def noticed() -> bool:
        live = daemon.json("status")["live"]
        frozen = {job["name"]: job["state"] for job in daemon.json("list")}.get("sound-0816") == "frozen"
        return bool(frozen and live["stale"] and live["overdue"])

    daemon.until(noticed, 600)


# -- in a browser ---------------------------------------------------------------------------------


def _nothing(page: Page) -> None:
    """Leave the page as it is."""


def _open(*which: str) -> Callable[[Page], None]:
    """Return what opens parts of a page."""

    def do(page: Page) -> None:
        for one in which:
            page.locator(f"{one} summary").click()

    return do


def _viewer(page: Page) -> None:
    page.locator(".pictures a").first.click()
    page.locator("#viewer-image").evaluate("image => image.decode()")


def _other_file(page: Page) -> None:
    good = {"name": "scan 7.tif", "mimeType": "image/tiff", "buffer": b"II*\0" + bytes(200_000)}
    page.get_by_label("New file").set_input_files(good)  # type: ignore[arg-type]  # of playwright's own shape
    page.get_by_role("button", name="Upload").click()
    page.get_by_role("button", name="Replace and run").wait_for()


def _empty_file(page: Page) -> None:
    empty = {"name": "scan 7.tif", "mimeType": "image/tiff", "buffer": b""}
    page.get_by_label("New file").set_input_files(empty)  # type: ignore[arg-type]  # of playwright's own shape
    page.get_by_role("button", name="Upload").click()
    page.locator("#sent.bad").wait_for()


def _sending(page: Page) -> None:
    """Stop in the midst of an upload."""
    page.route("**/file?*", lambda route: None)
    film = {"name": "reel-1.mov", "mimeType": "video/quicktime", "buffer": bytes(3_000_000)}
    page.get_by_label("or files").set_input_files([film])  # type: ignore[list-item]  # of playwright's own shape
    with page.expect_request("**/file?*"):
        page.get_by_role("button", name="Upload").click()


def _typed(text: str, told: str = "#match") -> Callable[[Page], None]:
    def do(page: Page) -> None:
        page.locator("#name").fill(text)
        page.locator(f"{told}:not(:empty)").wait_for()

    return do


def _wrong_token(page: Page) -> None:
    page.get_by_label("Token").fill("operator-of-somewhere-else-0123")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").wait_for()


def _answered(page: Page) -> None:
    page.get_by_role("button", name="Look now").click()
    page.locator(".said").wait_for()


def _collection(page: Page) -> None:
    page.get_by_role("link", name="estate-mueller").click()
    page.get_by_role("heading", name="estate-mueller").wait_for()


@dataclass(frozen=True)
class View:
    """A page, and what is done there before it is looked at."""

    path: str
    do: Callable[[Page], None] = _nothing
    signed_in: bool = True


#: Before anything has happened.
EMPTY = {
    "empty-front": View("/"),
    "empty-jobs": View("/jobs"),
    "empty-collections": View("/batches"),
    "empty-statistics": View("/statistics"),
}

_TORN = "/jobs/lab2-scans-2026-07"

VIEWS = {
    "sign-in": View("/login", signed_in=False),
    "sign-in-wrong": View("/login", _wrong_token, signed_in=False),
    "front": View("/"),
    "front-reader": View("/", signed_in=False),
    "jobs": View("/jobs"),
    "jobs-none": View("/jobs?q=nothing+of+that+name"),
    "jobs-wrong": View("/jobs?since=yesterday"),
    "collections": View("/batches"),
    "collection": View("/batches", _collection),
    "statistics": View("/statistics"),
    "statistics-table": View("/statistics", _open("details.table")),
    "drop": View("/drop"),
    "drop-known": View("/drop", _typed("film-1931")),
    "drop-refused": View("/drop", _typed("Letters of 1888")),
    "drop-sending": View("/drop?name=film-1950", _sending),
    "dropped": View("/drop/done?name=sound-0819&ino=1"),
    "done": View("/jobs/lab1-scans-2026-07"),
    "rerun": View("/jobs/lab1-scans-2026-07", _open("#d-rerun")),
    "viewer": View("/jobs/lab1-scans-2026-07", _viewer),
    "image": View("/jobs/lab1-scans-2026-07/images/1"),
    "files": View("/jobs/lab1-scans-2026-07/files"),
    "failed": View(_TORN),
    "failed-files": View(f"{_TORN}/files"),
    "failed-reader": View(_TORN, signed_in=False),
    "replace": View(f"{_TORN}/replace"),
    "replace-one": View(f"{_TORN}/replace?path=plate-001.tif"),
    "replace-empty": View(f"{_TORN}/replace?path=plate-001.tif", _empty_file),
    "replace-compare": View(f"{_TORN}/replace?path=plate-001.tif", _other_file),
    "replace-missing": View(f"{_TORN}/replace?path=plate-009.tif"),
    "replace-done": View("/jobs/lab1-scans-2026-07/replace?path=plate-001.tif"),
    "failed-log": View("/jobs/film-1931", _open("#d-dismiss")),
    "log": View("/jobs/film-1931/steps/scan/log"),
    "dismissed": View("/jobs/film-1932"),
    "refused": View("/jobs/Letters of 1887"),
    "rename": View("/jobs/Letters of 1887/rename"),
    "rename-refused": View("/jobs/Letters of 1887/rename", _typed("Letters of 1888")),
    "running": View("/jobs/sound-0815", _open("#d-freeze", "#d-cancel")),
    "paused": View("/jobs/away-1"),
    "answered": View("/jobs/away-1", _answered),
    "not-found": View("/jobs/nobody"),
}

#: Those that only `fill_more` makes.
MORE = {
    "frozen": View("/jobs/sound-0816"),
    "cancelled": View("/jobs/sound-0817"),
    "to-approve": View("/jobs/atlas-1645"),
    "front-more": View("/"),
    "delete": View("/jobs/film-1931", _open("#d-delete")),
    "drop-interrupted": View("/drop"),
}

#: Pixels: a telephone and a desk.
WIDTHS = {390: 844, 1280: 860}

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def readers(browser: Browser, url: str) -> dict[bool, BrowserContext]:
    """Return browsers of an operator who is signed in (True), and of somebody who is not (False)."""
    made = {}
    for signed_in in (True, False):
        context = browser.new_context(reduced_motion="reduce")
        if signed_in:
            page = context.new_page()
            page.goto(f"{url}/login?next=/jobs")
            page.get_by_label("Token").fill(TOKEN)
            page.get_by_role("button", name="Sign in").click()
            page.wait_for_url(f"{url}/jobs")
            page.close()
        made[signed_in] = context
    return made


def visit(context: BrowserContext, url: str, view: View) -> Page:
    """Return a page that shows a view, with all its images."""
    page = context.new_page()
    page.set_default_timeout(120_000)  # the machine may be busy
    page.on("dialog", lambda dialog: dialog.accept())
    page.route("**/drop/done?*", _once)
    page.goto(url + view.path)
    page.wait_for_load_state("load")
    if page.locator("body[data-events]").count():
        page.locator("body[data-live=yes]").wait_for()
    view.do(page)
    for image in page.locator("img:visible").all():
        image.scroll_into_view_if_needed()
        image.evaluate("image => image.decode().catch(() => 0)")
    return page


def _once(route: Route) -> None:
    """Answer without the header that has a page loaded again while it is looked at."""
    answer = route.fetch()
    headers = {name: value for name, value in answer.headers.items() if name != "refresh"}
    route.fulfill(response=answer, headers=headers)


def look(page: Page, width: int, scheme: Any) -> None:
    """Have a page drawn. Args: width: one of `WIDTHS`. scheme: "light" or "dark"."""
    page.set_viewport_size({"width": width, "height": WIDTHS[width]})
    page.emulate_media(color_scheme=scheme)
    page.evaluate("window.scrollTo(0, 0)")
