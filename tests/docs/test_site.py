"""The documentation as a site: it builds without a warning, fetches nothing, and reads as the plain pages do."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt

from tests.docs.pages import DOCS, PAPERS, TOP, anchors, pages, prose

#: What both readers must see alike; a list or table that one takes for a paragraph shows here.
COUNTED = ("li", "table", "td", "pre", "h1", "h2", "h3")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as `make docs` builds it."""
    built = tmp_path_factory.mktemp("site")
    said = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", built],
        cwd=TOP,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stdout + said.stderr
    return built


class Page(HTMLParser):
    """What a built page fetches, and what stands in its article."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.tags: Counter[str] = Counter()
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source") or (
            tag == "link" and given.get("rel") != "canonical"
        ):
            self.fetched.append(given.get("src") or given.get("href") or "")
        self._inside = self._inside or tag == "article"
        if self._inside:
            self.tags[tag] += 1

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "article"


def test_it_fetches_nothing_from_elsewhere(site: Path) -> None:
    """A reader without internet misses nothing."""
    for path in site.rglob("*.html"):
        for address in Page(path.read_text()).fetched:
            assert not urlsplit(address).netloc, (path.name, address)
            if address and not address.startswith(("data:", "/")):
                assert (path.parent / unquote(urlsplit(address).path)).exists(), (path.name, address)
    for path in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?https?:", path.read_text()), path.name


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_a_page_reads_alike_on_the_site_and_on_a_forge(site: Path, page: Path) -> None:
    """Python-Markdown wants four spaces and blank lines where CommonMark does not."""
    built = Page((site / page.relative_to(DOCS)).with_suffix(".html").read_text()).tags
    plain = Counter(
        token.tag
        for token in MarkdownIt("commonmark").enable("table").parse(page.read_text())
        if token.nesting >= 0
    )
    plain["pre"] = sum(
        token.type in ("fence", "code_block")
        for token in MarkdownIt("commonmark").enable("table").parse(page.read_text())
    )
    assert {tag: built[tag] for tag in COUNTED} == {tag: plain[tag] for tag in COUNTED}


@pytest.mark.parametrize(
    "page", [*pages(), *PAPERS, TOP / "CHANGELOG.md"], ids=lambda p: str(p.relative_to(TOP))
)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    """Relative ones, by a forge's rule for anchors."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if urlsplit(link).scheme:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_what_is_searched_for_is_found(site: Path) -> None:
    """The index holds every page's headings."""
    index = (site / "search" / "search_index.json").read_text()
    for words in ("RestrictSUIDSGID", "settled late", "object_lock", "dittohead thaw"):
        assert words in index, words


def test_the_index_leads_to_every_page() -> None:
    """Anyone who begins there finds all of them; the reference's parts are led to by the reference."""
    linked = set(re.findall(r"\(([\w-]+\.md)", (DOCS / "index.md").read_text()))
    assert {page.name for page in DOCS.glob("*.md")} - linked == {"index.md"}


def test_no_word_stands_for_two_things() -> None:
    """Each has one row, and the pages of one kind do not use the word of another."""
    words = re.findall(r"^\| ([^|]+) \|", (DOCS / "words.md").read_text(), re.MULTILINE)
    words = [word for word in words if word not in ("word", "old word", "---")]
    assert len(words) == len(set(words)) > 40
    for page in ("s3.md", "sources.md"):
        text = prose(DOCS / page)
        said = re.findall(r"[^.|]*\b(?:[Tt]he|a|A) store\b[^.|]*", text)
        assert [
            one for one in said if "recorded in the store" not in one and "(database)" not in one
        ] == [], page
