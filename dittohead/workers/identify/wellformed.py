"""Whether files are well-formed and valid, as the programs say that know their formats.

Each program is given an open file as /proc/self/fd/N: its name cannot be read as an option, and no link is
followed. How each says that a file is bad is data here:

- jpylyzer writes XML with `<isValid format="jp2">True</isValid>`, and exits 0 (jpylyzer 2.1, user manual).
- qpdf --check exits 0, 2 with errors, 3 with warnings (qpdf 11 manual, "Exit Status").
- xmllint exits 0; anything else is an error (xmllint(1)). Entities that grow are refused by libxml2 itself.
- exiftool -validate writes `Validate: OK`, or errors and warnings and their number (exiftool(1)).
- mediainfo says `IsTruncated` or `ConformanceErrors` in its JSON (MediaInfoLib 23).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from dittohead.contract import placeholders
from dittohead.contract.options import Duration
from dittohead.model.errors import ItemError
from dittohead.model.text import visible
from dittohead.system import files
from dittohead.system.process import Completed, run
from dittohead.workers.identify.policy import Conditions
from dittohead.workers.identify.process import Identified

Judgement = Literal["valid", "warning", "invalid", "unknown"]

#: Stands in argv for the open file, and for its path.
_FILE = "{file}"

#: Lines of what a program says that are kept, and characters of each.
_LINES, _LONGEST = 10, 300

#: Bytes of standard output that are kept.
_OUTPUT = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What a program says of one file."""

    tool: str
    judgement: Judgement
    findings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON fields."""
        return {"tool": self.tool, "judgement": self.judgement, "findings": list(self.findings)}


@dataclass(frozen=True, kw_only=True)
class _Known:
    """A program of which it is known how it is asked, and how it answers."""

    package: str  #: of Debian
    argv: tuple[str, ...]
    version: tuple[str, ...]
    judge: Callable[[Completed, str], tuple[Judgement, Sequence[str]]]
    knows: Conditions
    named: Conditions  #: files of no known format that it checks, by their names


class Check(Conditions):
    """One program that checks files of some formats."""

    tool: Literal["jpylyzer", "qpdf", "xmllint", "exiftool", "mediainfo", ""] = Field(
        "", description="A program that is known; without conditions it checks the formats that it knows."
    )
    name: str = Field("", description="Of a program of the site's own; the name of the program by default.")
    argv: list[str] = Field(
        default_factory=list,
        description="A program of the site's own and its arguments. `{file}` stands for the open file, as a "
        "path below /proc; `{path}` for where it lies, for programs that look at the name.",
    )
    good: list[int] = Field(default=[0], description="Exit statuses that say that a file is valid.")
    warns: list[int] = Field(default=[], description="Exit statuses that say that there are warnings.")
    invalid: Literal["refuse", "warn"] = Field(
        "refuse", description="What an invalid file does: the folder fails, or the receipt has a warning."
    )
    timeout: Duration = Field(300.0, gt=0, description="The longest time for one file.")

    @field_validator("argv")
    @classmethod
    def _with_a_file(cls, value: list[str]) -> list[str]:
        if not value:
            return value
        named = {name for part in value[1:] for name in placeholders.named(part)}
        if not named & {"file", "path"}:
            raise ValueError("one argument has to hold {file} or {path}")
        if others := named & placeholders.FILE - {"file", "path"}:
            raise ValueError(f"there is no {{{min(others)}}} here; write {{file}} or {{path}}")
        return value

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if bool(self.tool) == bool(self.argv):
            raise ValueError("name either a tool, or argv of a program of your own")
        if self.argv and self.is_empty:
            raise ValueError("name the formats it checks: puid, mime, extension or warning")
        return self

    @property
    def called(self) -> str:
        """What it is called in lists and events."""
        return self.tool or self.name or Path(self.argv[0]).name

    @property
    def program(self) -> str:
        """The program's name or path."""
        return self.tool or self.argv[0]

    def meant(self, path: bytes, found: Identified) -> bool:
        """Tell whether it checks a file, by its own conditions or by the formats that its program knows."""
        if not self.is_empty:
            return self.fits(path, found)
        known = _TOOLS[self.tool]
        if known.knows.fits(path, found):
            return True
        # A file that is cut off may have no known format any more; its name says what it was to be.
        return known.named.fits(path, found) and all(one.id == "UNKNOWN" for one in found.matches)

    def missing(self) -> str:
        """Return what to do where its program is not there; "" where it is."""
        if shutil.which(self.program) is not None:
            return ""
        if self.tool:
            return f"{self.tool} is not installed; type: sudo apt-get install {_TOOLS[self.tool].package}"
        return f"{self.program} is not there; install it, or write its path"


@dataclass
class Checker:
    """Asks programs about files, some at once.

    Args:
        checks: the programs.
        root: below which the files lie.
        env: of the programs.
        parallel: programs that run at once.
    """

    checks: Sequence[Check]
    root: Path
    env: Mapping[str, str]
    parallel: int = 2
    versions: dict[str, str] = field(default_factory=dict)  #: tool -> what it says of itself

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.parallel)

    async def of(self, path: bytes, found: Identified) -> list[Judged]:
        """Return what each program says that knows a file's format, in the order of the checks."""
        meant = [check for check in self.checks if check.meant(path, found)]
        return list(await asyncio.gather(*(self._one(check, path) for check in meant)))

    async def _one(self, check: Check, path: bytes) -> Judged:
        async with self._slots:
            if check.called not in self.versions:
                self.versions[check.called] = await self._version(check)
            try:
                with files.opened_beneath(self.root, path) as fd:
                    ended, output = await self._run(check, path, fd)
            except TimeoutError:
                return _unknown(check, f"it took longer than {check.timeout:g} s")
            except (OSError, ItemError) as error:
                return _unknown(check, str(error))
        place = f"/proc/self/fd/{fd}"
        judgement, said = _judged(check, ended, output)
        lines = (visible(line.replace(place, "the file").strip())[:_LONGEST] for line in said)
        findings = tuple(line for line in lines if line)[:_LINES]
        return Judged(tool=check.called, judgement=judgement, findings=findings)

    async def _run(self, check: Check, path: bytes, fd: int) -> tuple[Completed, str]:
        program = shutil.which(check.program)
        if program is None:
            raise FileNotFoundError(check.missing())
        arguments = list(_TOOLS[check.tool].argv) if check.tool else check.argv[1:]
        values = {"file": f"/proc/self/fd/{fd}", "path": os.fsdecode(bytes(self.root) + b"/" + path)}
        argv = [os.fsencode(placeholders.fill(part, values)) for part in arguments]
        kept = bytearray()

        def keep(data: bytes) -> None:
            kept.extend(data[: max(_OUTPUT - len(kept), 0)])

        ended = await run([program, *argv], env=self.env, timeout_s=check.timeout, on_stdout=keep, fds=[fd])
        return ended, kept.decode("utf-8", "replace")

    async def _version(self, check: Check) -> str:
        program = shutil.which(check.program)
        if program is None or not check.tool:
            return check.called
        try:
            ended = await run([program, *_TOOLS[check.tool].version], env=self.env, timeout_s=60)
        except (TimeoutError, OSError):
            return check.called
        found = re.search(rb"\d[\w.+-]*", ended.stdout or ended.stderr)
        return f"{check.called} {found[0].decode()}" if found else check.called


def _unknown(check: Check, why: str) -> Judged:
    return Judged(tool=check.called, judgement="unknown", findings=(visible(why)[:_LONGEST],))


def _judged(check: Check, ended: Completed, output: str) -> tuple[Judgement, Sequence[str]]:
    if ended.returncode < 0:
        return "unknown", [f"{check.called} was ended by signal {-ended.returncode}"]
    if check.tool:
        return _TOOLS[check.tool].judge(ended, output)
    said = (output + ended.stderr.decode("utf-8", "replace")).splitlines()
    if ended.returncode in check.good:
        return "valid", []
    if ended.returncode in check.warns:
        return "warning", said
    return "invalid", said or [f"exit status {ended.returncode}"]


# -- how the known programs answer ---------------------------------------------------------------


def _jpylyzer(ended: Completed, output: str) -> tuple[Judgement, Sequence[str]]:
    if "<isValid" not in output:
        return "unknown", _errors(ended) or ["jpylyzer gave no answer"]
    if re.search(r"<isValid[^>]*>True<", output):
        return "valid", []
    tests = re.search(r"<tests>(.*?)</tests>", output, re.DOTALL)
    failed = re.findall(r"<(\w+)>False</", tests[1]) if tests else []
    return "invalid", [f"failed: {', '.join(dict.fromkeys(failed))}"] if failed else ["it is not valid"]


def _qpdf(ended: Completed, output: str) -> tuple[Judgement, Sequence[str]]:
    if ended.returncode == 0:
        return "valid", []
    return ("warning" if ended.returncode == 3 else "invalid"), _errors(ended) or output.splitlines()


def _xmllint(ended: Completed, output: str) -> tuple[Judgement, Sequence[str]]:
    return ("invalid", _errors(ended)) if ended.returncode else ("valid", [])


def _exiftool(ended: Completed, output: str) -> tuple[Judgement, Sequence[str]]:
    said = [line for line in output.splitlines() if line.startswith(("Error:", "Warning:"))]
    if re.search(r"^Validate: OK", output, re.MULTILINE):
        return "valid", []
    if any(line.startswith("Error:") for line in said) or ended.returncode:
        return "invalid", said or _errors(ended)
    return ("warning", said) if "Validate:" in output else ("unknown", ["exiftool gave no answer"])


def _mediainfo(ended: Completed, output: str) -> tuple[Judgement, Sequence[str]]:
    try:
        tracks = json.loads(output)["media"]["track"]
        extras = [track.get("extra") or {} for track in tracks]
    except (ValueError, TypeError, KeyError, AttributeError):
        return "unknown", _errors(ended) or ["mediainfo gave no answer"]
    said = []
    if any(extra.get("IsTruncated") == "Yes" for extra in extras):
        said.append("it is truncated")
    errors = [extra["ConformanceErrors"] for extra in extras if extra.get("ConformanceErrors")]
    said += [f"conformance errors: {json.dumps(one)}" for one in errors]
    if not any(track.get("@type") in ("Video", "Audio", "Image") for track in tracks):
        said.append("it holds no track")
    return ("invalid", said) if said else ("valid", [])


def _errors(ended: Completed) -> list[str]:
    return ended.stderr.decode("utf-8", "replace").splitlines()


_TOOLS = {
    "jpylyzer": _Known(
        package="python3-jpylyzer",
        argv=(_FILE,),
        version=("--version",),
        judge=_jpylyzer,
        knows=Conditions(puid=["x-fmt/392"]),
        named=Conditions(extension=["jp2"]),
    ),
    "qpdf": _Known(
        package="qpdf",
        argv=("--check", _FILE),
        version=("--version",),
        judge=_qpdf,
        knows=Conditions(mime=["application/pdf"]),
        named=Conditions(extension=["pdf"]),
    ),
    "xmllint": _Known(
        package="libxml2-utils",
        argv=("--noout", "--nonet", "--nocatalogs", _FILE),
        version=("--version",),
        judge=_xmllint,
        knows=Conditions(mime=["text/xml", "application/xml", "*+xml"]),
        named=Conditions(extension=["xml"]),
    ),
    "exiftool": _Known(
        package="libimage-exiftool-perl",
        argv=("-validate", "-warning", "-error", "-a", "-S", "-charset", "utf8", _FILE),
        version=("-ver",),
        judge=_exiftool,
        knows=Conditions(mime=["image/tiff", "image/jpeg", "image/png", "image/gif"]),
        named=Conditions(extension=["tif", "tiff", "jpg", "jpeg", "png", "gif"]),
    ),
    "mediainfo": _Known(
        package="mediainfo",
        argv=("--Output=JSON", _FILE),
        version=("--Version",),
        judge=_mediainfo,
        knows=Conditions(mime=["video/*", "audio/*"]),
        named=Conditions(extension=["wav", "mp3", "flac", "mkv", "mov", "mp4", "avi", "mxf"]),
    ),
}
