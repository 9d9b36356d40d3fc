"""Patterns on names that others choose: as Python reads them, and never for long."""

from __future__ import annotations

import contextlib
import fnmatch
import random
import re
import time
from pathlib import Path

import pytest

from dittohead.system.patterns import MOST_S, Pattern, TooSlow

NAMES = [
    "", "a", "lab1-x", "lab1-x\n", "Lab1-2026_03", "a b", "ab12", "HBF_0012-access", "scan-2024-01-31", "1/a.tif",
    "x" * 200, "Müller-1", "Mu\u0308ller-1", "x\u00b2", "\u00bd", "tab\there", "\x1c", "\u00a0", "{e}", "a{2}", "aa", "]a[",
    "a-b_c.d", "Straße", "STRASSE", "\u212a", "k", "ǅ", "٣", "日本-1", "a\u200bb", "ab", "aab", "_", "[:alpha:]", "alpha",
]  # fmt: skip

PATTERNS = [
    ".*", r"(?P<study>[A-Za-z0-9]+)-.*", r"(?P<object>[A-Za-z]+_[0-9]+)(-(?P<purpose>preservation|access))?",
    r"(?P<folder>[^/]+)/(?P<path>.+)", r"\w+", r"\W+", r"[\w-]+", r"[^\w]+", r"\S+\s\S+", r"[\s]", r"\s", r"\d+", r"\w+-\d",
    r"\bMu.*", r"Mu\B.*", r".*\b", r"(?i)lab1-X", r"(?i)strasse", r"(?i)k", r"(?a)\w+", r"(?a:\w+)-1", r"(?s).*", r"a{2}",
    r"a{,2}b?", r"a{2,}b", r"{e}", r"(?:\{e\})", r"a{e}", r"a\{2}", r"[]a[]+", r"[^]]+", r"[[:alpha:]]+", r"(a)|(b)", r"(?P<x>a)?(?P<y>ab)",
    r"(?x) lab1 - x  # it's [a comment", r"(.)\1b?", r"(?P<q>a)(?P=q)", r"a(?=b)b", r"(?!lab).*", r"(?<=a)|a", r"(?>a+)b", r"a++b",
    r"(a)?(?(1)b|x.*)", r"(?-i:a)", r"[a-c--b]+", r"[\]a\[]+", r"\N{LATIN SMALL LETTER A}", r"\x61\u0062", r"$", r"a$", r"\Aa\Z",
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")
@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_means_what_it_means_to_python(pattern: str) -> None:
    """Which names fit, and what the groups hold: letters, spaces, sets, braces, flags, look-arounds."""
    ours, theirs = Pattern(pattern), re.compile(pattern)
    for name in NAMES:
        found = theirs.fullmatch(name)
        expected = None if found is None else {key: value or "" for key, value in found.groupdict().items()}
        assert ours.fullmatch(name) == expected, repr(name)
    assert ours.groups == set(theirs.groupindex)


@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")
def test_patterns_at_random_mean_the_same() -> None:
    """Put together from what patterns are made of."""
    chosen = random.Random(1)
    parts = [
        *r"ab-_.[]{}()|*+?^$1,",
        r"\w",
        r"\s",
        r"\d",
        r"\W",
        "[^",
        "(?:",
        "(?P<g>",
        "{2}",
        "{1,}",
        "{,2}",
        ".*",
        "[a-c]",
    ]
    tried = 0
    while tried < 1500:
        pattern = "".join(chosen.choices(parts, k=chosen.randint(1, 7)))
        try:
            theirs = re.compile(pattern)
        except re.error:
            with pytest.raises(re.error):
                Pattern(pattern)
            continue
        ours, tried = Pattern(pattern), tried + 1
        for name in chosen.choices([n for n in NAMES if len(n) < 20], k=5):
            assert (ours.fullmatch(name) is None) == (theirs.fullmatch(name) is None), (pattern, name)


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        (r"(?P<study>([A-Za-z0-9]+_?)+)-scans-.*", "a" * 48 + "!"),
        (r"(?P<study>([A-Za-z0-9]+_?)+)-scans-.*", "a" * 200 + "!-scans"),
        (r"(a|a)*b", "a" * 200 + "!b"),
        (r"(a|aa)+b", "a" * 200 + "!b"),
        (r"(\w+\s?)*:", "a" * 200 + "!:"),
        (r"(x+x+)+y", "x" * 200 + "!y"),
        (r"(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)=(.*)-", "=" * 250),
        (r"(?:(?:a?){30}){30}b", "a" * 200 + "!b"),
        (r"((a|b)(a|b)?)*(?=c)d", "ab" * 100 + "cd"),
        (r"([a-z]+)*-([0-9]+)*", "x" * 250 + "-!"),
        (r"(?i)((ä|Ä|a\w)*)*z", "ä" * 120 + "!z"),
    ],
)
def test_no_name_holds_a_pattern_for_long(pattern: str, name: str) -> None:
    """It does not fit, or it is given up; a second time it is known."""
    compiled = Pattern(pattern)
    began = time.process_time()
    for _ in range(20):
        with contextlib.suppress(TooSlow):
            assert compiled.fullmatch(name) is None
    # Far below the seconds, hours or years of Python's re; a busy machine counts no other's time.
    assert time.process_time() - began < 20 * MOST_S


@pytest.mark.parametrize("pattern", [r"(a|a)*b", r"x-(?P<s>(a|aa)+)-end"])
def test_a_pattern_that_may_take_too_long_is_found_without_a_folder(pattern: str) -> None:
    """By names made from the pattern itself."""
    name = Pattern(pattern).slow_name()
    assert name is not None
    with pytest.raises(TooSlow):
        Pattern(pattern).fullmatch(name)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.filterwarnings("ignore:Possible:FutureWarning")
def test_sound_patterns_are_not_suspected(pattern: str) -> None:
    """What sites write, and the awkward ones above."""
    assert Pattern(pattern).slow_name() is None


def test_the_patterns_of_files_take_no_time_either() -> None:
    """`*.tif` and its like: what fnmatch makes of them never tries a star again."""
    began = time.process_time()
    assert not fnmatch.fnmatchcase("a" * 250, "*a" * 60 + "b")
    assert time.process_time() - began < 5


def test_no_other_expression_of_the_package_is_a_sites() -> None:
    """One door: anyone who compiles what a site wrote, does so here."""
    top = Path(__file__).parent.parent / "dittohead"
    found = [
        f"{path.relative_to(top)}: {line.strip()}"
        for path in top.rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"\bre\.(compile|fullmatch|match|search)\((?!r?b?f?\"|r?b?f?'|[A-Z_]+,|$)", line)
        # Where our own expressions are written in tables.
        and path.name
        not in (
            "patterns.py",
            "scripts.py",
            "reasons.py",
            "process.py",
            "ssh_messages.py",
            "kinds.py",
        )
    ]
    assert found == []
