"""Pages, messages and comments are in plain English: phrases that a reader with another first language stumbles over."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import dittohead
from tests.docs.pages import DOCS, TOP, prose

WEB = Path(dittohead.__file__).parent / "web" / "pages"
SCREENS = sorted([*WEB.rglob("templates/**/*.html"), *WEB.glob("static/*.js")])
PAGES = [*(TOP / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")), *sorted(DOCS.glob("*.md"))]

PACKAGES = sorted(path for path in (TOP / "dittohead").iterdir() if path.is_dir() or path.suffix == ".py")

#: (regular expression, what to write). Only what is wrong wherever it stands.
AVOID = [
    (r"(?<!there )\b(?:is|are|was|were) no (?!longer\b|more\b)", "is not a ..., has no ..."),
    (r"\b(?:is|are|was|were) wanted\b", "is needed, is required"),
    (r"\banew\b", "again"),
    (r"\bheed(?:s|ed|ing)?\b", "respect, support"),
    (r"\b(?:told|tells?) of\b", "notified of, reports"),
    (r"\btake[ns]? for\b", "treated as, mistaken for"),
    (r"\bso long\b", "as long as, for that time"),
    (r"\bwhoever\b", "everybody who, a person who"),
    (r"\bmend(?:s|ed|ing)?\b", "fix, repair, correct"),
    (r"\bin (?:its|his|her|their) stead\b", "instead"),
    (r"\b(?:be|is|are) had (?:for|from|again)\b", "available"),
    (r"\bnobody's\b", "ignored names; belongs to nobody"),
    (r"\b(?:is|are|was) said of\b", "is true of, applies to"),
    (r"\bbe it\b", "whether it is"),
    (r"\bere\b", "before"),
    (
        r"\b(?:where|there)(?:of|in|upon)\b|\b(?:lest|hitherto|henceforth)\b",
        "of which, in which; simpler words",
    ),
    (r"\bbeside each other\b", "in parallel; next to each other"),
    (r"\bin turns\b", "alternately, one after the other"),
    (r"\bfor ever\b", "permanently, without end"),
    (r"\bfar side\b", "remote system"),
    (r"\b(?:is|are) looked\b(?! up\b| at\b)", "is checked"),
    (r"\b(?:this|that|the|its) very (?:job|file|options?|name|tick|step)\b", "exactly this, the same"),
    (r"\bcut short\b", "truncated"),
    (r"\bpassing (?:fault|error|trouble|reason)s?\b", "temporary error"),
    (r"\bgrowing waits\b", "increasing waits"),
    (r"\btoday's configuration\b", "the current configuration"),
    (r"\b(?:do|does|done) (?:it|one|them|those) again\b", "run again, retry"),
    (r"[,;] else\b", "otherwise"),
    (r"\b(?:is|are) over(?=[ ,.;:)|]|$)", "has ended"),
    (r"\bas ever\b", "as usual"),
    (r"\bno whole\b", "incomplete"),
    (r"\b(?:can|could|cannot|not|to) be had\b", "is (not) available"),
    (r"\bdo the folder again\b", "run the folder again"),
    (r"\bspeaks? of\b", "name, mention"),
    (r"\bcalled like\b", "named like"),
    (r"\b(?:it|this|that) wants (?:a|no|the|to)\b", "it needs"),
    (r"\bmeant by\b", "refers to, matches"),
    (r"\b(?:has|have|would) become of\b|\bbecomes of\b", "happened to, happens to"),
]
#: Words that only the builders of earlier versions knew.
FORMER = [
    (r"\bdoorways?\b", "control socket"),
    (r"\bthe desk\b", "request queue"),
    (r"\blookout\b", "monitor"),
    (r"\bnotebooks?\b", "intent log"),
    (r"\bledgers?\b", "intent log"),
    (r"\boverheard\b", "library messages"),
    (r"\bfault points?\b", "fail point"),
    (r"\bpassage through\b", "job, run"),
]
ALL = [*AVOID, *FORMER]


def checked(page: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of the lines that people wrote: no code, no generated tables, no list of former words."""
    text = prose(page)
    if page.name == "words.md":
        text = text.partition("## No longer used")[0]
    generated = False
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("<!-- "):
            generated = "made by tools/reference" in line
        elif not generated:
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", "`", line)


def found(
    lines: Iterator[tuple[int, str]], avoided: Sequence[tuple[str, str]] = ALL
) -> Iterator[tuple[int, str, str]]:
    """Yield (number of the line, phrase, what to write), also for a phrase that a line break divides."""
    numbered = list(lines)
    text = "\n".join(line for _, line in numbered).lower()  # many times as fast as to ignore the case
    for pattern, better in avoided:
        for match in re.finditer(pattern.replace(" ", r"\s"), text, re.MULTILINE):
            number, _ = numbered[text.count("\n", 0, match.start())]
            yield number, " ".join(match.group().split()), better


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))
def test_a_page_is_in_plain_english(page: Path) -> None:
    """The message names the line, the phrase, and what to write in its place."""
    wrong = [
        f'{page.relative_to(TOP)}:{number}: "{phrase}": write: {better}'
        for number, phrase, better in found(checked(page))
    ]
    assert not wrong, "\n".join(wrong)


def on_screen(source: Path) -> Iterator[tuple[int, str]]:
    """Yield (number, text) of what a template or script of the web page shows: no names in code, no comments."""
    text = source.read_text()
    if source.suffix == ".js":
        kept = re.compile(r'"[^"\n]* [^"\n]*"|`[^`\n]* [^`\n]*`')
        yield from ((n, " ".join(kept.findall(line))) for n, line in enumerate(text.splitlines(), 1))
        return
    # Of code, the words between quotation marks may be shown.
    shown = re.sub(r"\{[{%].*?[}%]\}", lambda code: " ".join(re.findall(r'"[^"]*"', code[0])), text)
    yield from enumerate(re.sub(r'(?:class|id|href|action)="[^"]*"', "", shown).splitlines(), 1)


@pytest.mark.parametrize("source", SCREENS, ids=lambda source: str(source.relative_to(WEB)))
def test_a_screen_is_in_plain_english(source: Path) -> None:
    """What the web page itself says, as the documents do."""
    wrong = [
        f'{source.relative_to(WEB)}:{number}: "{phrase}": write: {better}'
        for number, phrase, better in found(on_screen(source))
    ]
    assert not wrong, "\n".join(wrong)


def written(module: Path) -> Iterator[tuple[int, str]]:
    """Yield (number of the line, text) of what a module says to people: its strings, docstrings and comments."""
    code = module.read_text()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, f"{node.value} ."  # it is not one sentence with the next
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_a_package_speaks_plain_english(package: Path) -> None:
    """Messages, descriptions of options, docstrings and comments."""
    wrong = []
    for module in [package] if package.is_file() else sorted(package.rglob("*.py")):
        texts = [
            (number, " ".join(re.sub(r"`[^`\n]*`", "`", text).split())) for number, text in written(module)
        ]
        wrong += [
            f'{module.relative_to(TOP)}:{number}: "{phrase}": write: {better}'
            for number, phrase, better in found(iter(texts), AVOID)
        ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("A link is no file.", ["is no"]),
        ("There is no file, and it is no longer held.", []),
        ("People are\ntold of it.", ["told of"]),
        ("We recommend amendments.", []),
        ("The job is over; all overlap is overwritten.", ["is over"]),
        ("It takes the name, else the id.", [", else"]),
    ],
)
def test_a_phrase_is_found_and_its_neighbours_are_not(text: str, phrases: list[str]) -> None:
    """Across line breaks, and not within other words."""
    assert [phrase.strip() for _, phrase, _ in found(iter(enumerate(text.split("\n"), 1)))] == phrases
