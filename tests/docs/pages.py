"""The pages of the documentation, and what stands in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent.parent
DOCS = TOP / "docs"
#: What people read on the forge, beside docs/.
PAPERS = [
    *(TOP / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CODE_OF_CONDUCT")),
    TOP / "systemd" / "README.md",
]


def pages() -> list[Path]:
    """Return all pages of docs/, the generated ones too."""
    return sorted(DOCS.rglob("*.md"))


@dataclass(frozen=True)
class Block:
    """A block of code."""

    page: Path
    line: int  #: of its first line, from 1
    language: str  #: "" for an indented one
    text: str

    @property
    def place(self) -> str:
        """Where it stands, for messages."""
        return f"{self.page.relative_to(TOP)}:{self.line}"


@cache
def blocks(page: Path) -> list[Block]:
    """Return a page's blocks of code, fenced and indented, as CommonMark has them."""
    from markdown_it import MarkdownIt

    return [
        Block(page, (token.map or [0])[0] + 1, token.info.split(" ")[0], token.content)
        for token in MarkdownIt("commonmark").parse(page.read_text())
        if token.type in ("fence", "code_block")
    ]


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    lines = page.read_text().splitlines()
    from markdown_it import MarkdownIt

    for token in MarkdownIt("commonmark").parse(page.read_text()):
        if token.type in ("fence", "code_block") and token.map:
            for number in range(*token.map):
                lines[number] = ""
    return "\n".join(lines)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges make them."""
    found = set()
    for title in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|[`*]", r"\1", title).lower()
        found.add(re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", plain)))
    return found
