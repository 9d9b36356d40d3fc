"""Every page in every state: axe finds nothing, in light and in dark, on a telephone and at a desk."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import BrowserContext, sync_playwright

from tests.support import page_views
from tests.support.daemon import Site, site
from tests.support.length import budget
from tests.support.page_views import EMPTY, MORE, SCHEMES, VIEWS, WIDTHS, View

pytestmark = [pytest.mark.rest, pytest.mark.service]

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
    """A daemon with its page, and browsers of people."""

    daemon: Site
    port: int
    people: dict[bool, BrowserContext]
    filled: bool = False

    def fill(self) -> None:
        """Have jobs of all kinds, once."""
        if not self.filled:
            self.filled = True
            page_views.fill(self.daemon)
            page_views.fill_more(self.daemon, self.port)

    def see(self, view: View) -> None:
        """See that axe finds nothing in either scheme, and that nothing sticks out of the window."""
        page = page_views.visit(self.people[view.signed_in], f"http://127.0.0.1:{self.port}", view)
        rules: dict[str, Any] = {}
        for width in WIDTHS:
            for scheme in SCHEMES:
                page_views.look(page, width, scheme)
                found = Axe().run(page, options={"resultTypes": ["violations"], **rules})
                wrong = found.response["violations"]
                told = [(one["id"], [node["html"] for node in one["nodes"]]) for one in wrong]
                assert told == [], f"{width} {scheme}"
                rules = {"runOnly": ["color-contrast"]}  # the others are the same in every colour and width
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), width
            assert page.evaluate(_STICKS_OUT) == [], width
        page.close()


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    chromium = shutil.which("chromium")
    assert chromium, "chromium is missing: tools/setup test"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    root = tmp_path_factory.mktemp("views") / "root"
    page_views.prepare(root)
    with site(root, page_views.config(root, port, soon=True)) as daemon, sync_playwright() as playwright:
        daemon.start()
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield Shown(daemon, port, page_views.readers(browser, f"http://127.0.0.1:{port}"))


@pytest.mark.parametrize("name", EMPTY)
def test_a_page_before_anything_has_happened(shown: Shown, name: str) -> None:
    """A new installation: it says that nothing is there."""
    assert not shown.filled, "to be run before the others"
    shown.see(EMPTY[name])


#: A page of each kind.
FIRST = ("sign-in", "front", "jobs", "drop", "done", "failed", "running", "to-approve")


@pytest.mark.parametrize("name", budget([*VIEWS, *MORE], *FIRST))
def test_a_page_in_each_state(shown: Shown, name: str) -> None:
    """With everything opened that can be opened there."""
    shown.fill()
    shown.see((VIEWS | MORE)[name])
