"""Every page in every state: axe finds nothing, in light and in dark, on a telephone and at a desk."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support import page_views
from tests.support.daemon import Site, site
from tests.support.page_views import EMPTY, MORE, SCHEMES, VIEWS, View

pytestmark = pytest.mark.service

#: What looks wrong without being wrong for axe: something sticks out of the window, or is cut off.
_STICKS_OUT = """() => {
  const wide = document.documentElement.clientWidth;
  const inner = (e) => e.closest("pre, .files, .unseen, .skip, svg, dialog:not([open]), [hidden], thead");
  return [...document.querySelectorAll("main *, .bar *")]
    .filter((e) => !inner(e) && e.getBoundingClientRect().right > wide + 1)
    .map((e) => e.outerHTML.slice(0, 200));
}"""


@dataclass
class Shown:
    """A daemon with its page, and browsers by width and scheme."""

    daemon: Site
    port: int
    browser: Browser
    contexts: dict[tuple[int, str], dict[bool, BrowserContext]] = field(default_factory=dict)
    filled: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def fill(self) -> None:
        """Have jobs of all kinds, once."""
        if not self.filled:
            self.filled = True
            page_views.fill(self.daemon)
            page_views.fill_more(self.daemon, self.port)

    def visit(self, view: View, width: int) -> Page:
        key = (width, "light")
        if key not in self.contexts:
            self.contexts[key] = page_views.readers(self.browser, self.url, width, "light")
        return page_views.visit(self.contexts[key][view.signed_in], self.url, view)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    chromium = shutil.which("chromium")
    assert chromium, "chromium is missing: tools/setup test"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    root = tmp_path_factory.mktemp("views") / "root"
    page_views.prepare(root)
    with site(root, page_views.config(root, port, stale="2s")) as daemon, sync_playwright() as playwright:
        daemon.start()
        yield Shown(daemon, port, playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"]))


def see(page: Page) -> None:
    """See that axe finds nothing in either scheme, and that nothing sticks out of the window."""
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page, options={"resultTypes": ["violations"]})
        wrong = found.response["violations"]
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in wrong] == [], scheme
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.evaluate(_STICKS_OUT) == []


@pytest.mark.parametrize("name", EMPTY)
def test_a_page_before_anything_has_happened(shown: Shown, name: str) -> None:
    """A new installation: it says that nothing is there."""
    assert not shown.filled, "to be run before the others"
    for width in page_views.WIDTHS:
        page = shown.visit(EMPTY[name], width)
        see(page)
        page.close()


@pytest.mark.parametrize("name", [*VIEWS, *MORE])
def test_a_page_in_each_state(shown: Shown, name: str) -> None:
    """With everything opened that can be opened there."""
    shown.fill()
    for width in page_views.WIDTHS:
        page = shown.visit((VIEWS | MORE)[name], width)
        see(page)
        page.close(run_before_unload=False)
