"""Which arguments of a program are scripts: what stands in them is run, not only read."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from dittohead.contract import placeholders


@dataclass(frozen=True, kw_only=True)
class Script:
    """An argument that an interpreter runs."""

    index: int  #: of the argument
    program: str  #: the interpreter, as it is written
    takes: str  #: how the script takes its first argument
    rest: tuple[str, ...]  #: what stands between the script and its first argument


@dataclass(frozen=True, kw_only=True)
class _Kind:
    names: str  #: of programs, a regular expression
    letters: str  #: options after which, or in which, comes a script
    takes: str = '"$1"'  #: how the script takes its first argument
    words: tuple[str, ...] = ()  #: the same options in full
    attached: bool = True  #: the script may stand in the option's own argument
    once: bool = False  #: all that follows the script are its arguments
    values: str = ""  #: options whose value is the next argument
    own: str = ""  #: options that the rest of their argument belongs to
    ends: str = ""  #: options after which all arguments are somebody else's
    anywhere: bool = False  #: options may stand behind other arguments
    rest: tuple[str, ...] = ()  #: what stands between the script and its first argument


_SH = ("sh",)
_KINDS = (
    _Kind(names="(ba|da|k|mk|z|a|fi)?sh", letters="c", attached=False, once=True, values="oO", rest=_SH),
    # What these run is for a shell.
    _Kind(names="su|runuser|script|flock", letters="c", words=("--command",), anywhere=True, rest=_SH),
    _Kind(names="env", letters="S", words=("--split-string",), values="uC", rest=_SH),
    _Kind(names=r"(python|pypy)[\d.]*", letters="c", once=True, values="WX", ends="m", takes="sys.argv[1]"),
    _Kind(names=r"perl[\d.]*", letters="eE", values="I", own="iFx0CDMm", takes="$ARGV[0]"),
    _Kind(names=r"ruby[\d.]*", letters="e", values="IrC", own="iFx0EKTW", takes="ARGV[0]"),
    _Kind(names="node(js)?", letters="ep", words=("--eval", "--print"), values="r", takes="process.argv[1]"),
    _Kind(names=r"php[\d.]*", letters="r", words=("--run",), once=True, values="cd", takes="$argv[1]"),
    _Kind(names=r"lua[\d.]*", letters="e", values="l", takes="arg[1]"),
)


def scripts(argv: Sequence[str]) -> Iterator[Script]:
    """Yield the arguments that are scripts: of `sh -c`, `python3 -c`, `perl -e` and their like.

    An interpreter is found wherever it stands, also behind env, sudo, nice, timeout or xargs.
    """
    for index, word in enumerate(argv):
        for kind in _KINDS:
            if re.fullmatch(kind.names, os.path.basename(word)):
                for found in _of(kind, argv, index + 1):
                    yield Script(index=found, program=word, takes=kind.takes, rest=kind.rest)


def mistakes(argv: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Yield (where, what, hint) for each placeholder inside a script: what it stands for would be run.

    Args:
        argv: a program and its arguments, with placeholders.
    """
    for script in scripts(argv):
        for name in dict.fromkeys(placeholders.named(argv[script.index])):
            what = f"{{{name}}} stands inside a script of {script.program}, which would run what it holds"
            after = "".join(f'"{word}", ' for word in (*script.rest, f"{{{name}}}")).removesuffix(", ")
            hint = f"Write {script.takes} there, and add to argv, behind the script: {after}"
            yield script.index, what, hint


def _of(kind: _Kind, argv: Sequence[str], start: int) -> Iterator[int]:
    """Yield where the scripts of an interpreter stand, whose arguments begin at `start`."""
    expected = Meaning.OPTION
    for index in range(start, len(argv)):
        found = _read(kind, argv[index], expected)
        if found is Meaning.HERE:
            yield index
        if found is Meaning.END or (found is Meaning.HERE and kind.once):
            return
        expected = Meaning.OPTION if found is Meaning.HERE else found


def _read(kind: _Kind, word: str, expected: Meaning) -> Meaning:
    """Return what an argument is (HERE, END), or what is expected of the next one."""
    is_option = len(word) > 1 and word[0] in "-+"
    if expected is Meaning.SCRIPT and not (is_option and not kind.attached):
        return Meaning.HERE
    if expected is Meaning.VALUE:
        return Meaning.OPTION
    if is_option:
        meaning = _meaning(kind, word)
        return expected if meaning is Meaning.OPTION else meaning
    # The file of a script, with arguments of its own.
    return expected if kind.anywhere else Meaning.END


class Meaning(Enum):
    """What an argument is, or what comes after it."""

    OPTION, VALUE, SCRIPT, HERE, END = range(5)


def _meaning(kind: _Kind, word: str) -> Meaning:
    """Return what follows an option, or HERE where the script stands in it."""
    if word.startswith("--"):
        if word in kind.words:
            return Meaning.SCRIPT
        return Meaning.HERE if word.partition("=")[0] in kind.words else Meaning.OPTION
    found = Meaning.OPTION
    for at, letter in enumerate(word[1:], 2):
        more = word[at:]
        if letter in kind.letters and kind.attached:
            return Meaning.HERE if more else Meaning.SCRIPT
        if letter in kind.letters:
            found = Meaning.SCRIPT
        elif letter in kind.values and found is Meaning.OPTION:
            return Meaning.OPTION if more and kind.attached else Meaning.VALUE
        elif letter in kind.own:
            return found
        elif letter in kind.ends:
            return Meaning.END
    return found
