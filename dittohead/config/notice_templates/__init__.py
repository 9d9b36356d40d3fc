"""The words of notices: a template for each event, ours or the site's, over facts that are plain data.

A template is a text file: its first line is the subject, the rest the body. Source: Jinja's "Template
Designer Documentation"; it is run in Jinja's sandbox, and a variable that is not there is an error.
"""

from __future__ import annotations

import datetime
import difflib
import functools
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dittohead.config.notice_templates.samples import SAMPLES, bare
from dittohead.model.text import counted, visible
from dittohead.model.units import duration, size
from dittohead.system import log

if TYPE_CHECKING:
    from jinja2 import Template
    from jinja2.sandbox import SandboxedEnvironment

#: The events that have words: those a rule may ask for, and those that come unasked.
EVENTS = tuple(SAMPLES)

#: Characters of a subject and of a body at most; what is more is cut.
_SUBJECT, _BODY = 200, 60_000

#: Characters of one fact at most.
_FACT = 4000


class BadTemplate(Exception):
    """A template cannot be used: the message says why, `line` where (0: nowhere in particular)."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class Wording:
    """The templates in use."""

    #: a site's own, by event: where each stands, and its text
    own: Mapping[str, tuple[Path, str]] = field(default_factory=dict)

    def words(self, event: str, facts: Mapping[str, Any]) -> tuple[str, str]:
        """Return (subject, body) in plain words. A template of the site's that fails is passed over."""
        if event in self.own:
            path, text = self.own[event]
            try:
                return _render(_compiled(text, str(path)), facts)
            except Exception as error:  # noqa: BLE001  # a template may raise anything
                log.get().error(
                    log.NOTIFY_TEMPLATE, template=str(path), error=f"{type(error).__name__}: {error}"
                )
        return _render(_built_in(event), facts)


def read(directory: Path) -> tuple[Wording, list[tuple[str, str]]]:
    """Read a site's templates: EVENT.txt for each event that is to have other words. Blocking.

    Returns: the wording, and what is wrong with it: (FILE or FILE:LINE, statement).
    """
    own: dict[str, tuple[Path, str]] = {}
    wrong: list[tuple[str, str]] = []
    try:
        found = sorted(directory.glob("*.txt")) if directory.is_dir() else None
    except OSError:
        found = None
    if found is None:
        return Wording(), [(str(directory), "there is no such directory of templates")]
    for path in found:
        if path.stem not in EVENTS:
            near = difflib.get_close_matches(path.stem, EVENTS, n=1, cutoff=0.6)
            hint = f'did you mean "{near[0]}.txt"?' if near else f"there are {', '.join(EVENTS)}"
            wrong.append((str(path), f'"{path.stem}" is not an event: {hint}'))
            continue
        try:
            text = path.read_text(encoding="utf-8")
            check(path.stem, text, str(path))
        except (OSError, UnicodeDecodeError) as error:
            wrong.append((str(path), f"this template cannot be read ({type(error).__name__})"))
        except BadTemplate as error:
            wrong.append((f"{path}:{error.line}" if error.line else str(path), str(error)))
        else:
            own[path.stem] = (path, text)
    return Wording(own), wrong


def check(event: str, text: str, name: str = "template") -> None:
    """Verify that a template can be used for an event.

    Args:
        event: such as "failed".
        text: the template: its first line is the subject, the rest the body.
        name: what the template is called in messages.

    Raises: BadTemplate: it does not parse, names a variable that does not exist, or has no subject.
    """
    from jinja2 import TemplateError

    try:
        tree = _environment().parse(text, name, name)
        for line, what in _unknown(tree, SAMPLES[event]):
            raise BadTemplate(f"there is no variable {what} in a notice of {event}", line)
        template = _compiled(text, name)
    except TemplateError as error:
        line = getattr(error, "lineno", 0) or 0
        raise BadTemplate(f"this is not a template: {error.message}", line) from error
    for sample in (SAMPLES[event], bare(SAMPLES[event])):
        try:
            subject, _ = _render(template, sample)
        except Exception as error:
            raise BadTemplate(f"it cannot be filled in: {error}", _line_in(error, name)) from error
        if not subject:
            raise BadTemplate("it says nothing: its first line is the subject", 1)


def _line_in(error: BaseException, name: str) -> int:
    lines = [
        frame.lineno or 0 for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name
    ]
    return lines[-1] if lines else 0


def _unknown(tree: Any, known: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield (line, name) of each variable, or part of one, that a notice of this event does not have."""
    from jinja2 import nodes

    local = {node.name for node in tree.find_all(nodes.Name) if node.ctx != "load"}
    local |= {"loop", *_environment().globals, *(macro.name for macro in tree.find_all(nodes.Macro))}
    for node in tree.find_all((nodes.Name, nodes.Getattr, nodes.Getitem)):
        path = _path(node)
        if path is None or path[0] in local:
            continue
        here: Any = known
        for part in path:
            if not isinstance(here, Mapping) or (here is not known and hasattr(here, part)):
                break
            if part not in here:
                yield node.lineno, ".".join(path)
                break
            here = here[part]


def _path(node: Any) -> list[str] | None:
    """Return ["job", "name"] for job.name and job["name"]; None for what is not so simple."""
    from jinja2 import nodes

    if isinstance(node, nodes.Name):
        return [node.name]
    if isinstance(node, nodes.Getattr):
        before, part = _path(node.node), node.attr
    elif isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const):
        before, part = _path(node.node), node.arg.value
    else:
        return None
    return None if before is None or not isinstance(part, str) else [*before, part]


def _render(template: Template, facts: Mapping[str, Any]) -> tuple[str, str]:
    subject, _, body = template.render(facts).strip("\n").partition("\n")
    # Whatever a template makes of the facts: one line of a header, and text.
    subject, body = visible(subject.strip()), visible(body.strip("\n"), but="\n")
    return (
        subject if len(subject) <= _SUBJECT else subject[: _SUBJECT - 3] + "...",
        body if len(body) <= _BODY else body[: _BODY - 3] + "...",
    )


@functools.cache
def _built_in(event: str) -> Template:
    name = f"{event}.txt"
    return _compiled(
        files("dittohead.config.notice_templates").joinpath(name).read_text(encoding="utf-8"), name
    )


@functools.lru_cache(maxsize=64)
def _compiled(text: str, name: str) -> Template:
    environment = _environment()
    template: Template = environment.template_class.from_code(
        environment, environment.compile(text, name, name), environment.globals
    )
    return template


@functools.cache
def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined  # only where somebody gets notices
    from jinja2.sandbox import SandboxedEnvironment

    # Plain text: nothing is to be escaped for HTML.
    environment = SandboxedEnvironment(
        autoescape=False, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(counted=counted, size=size, duration=duration, number="{:,.0f}".format)
    return environment


def warm() -> None:
    """Load and compile what the first notice would have to wait for. Blocking."""
    for event in EVENTS:
        _built_in(event)


def plain(value: Any) -> Any:
    """Return facts as data that can be stored, sent and written, whatever bytes names hold.

    A control character is shown as an escape: it would forge lines of a mail. Moments are RFC 3339.
    """
    if isinstance(value, str):
        text = visible(str(value))
        return text if len(text) <= _FACT else text[: _FACT - 3] + "..."
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, datetime.datetime):
        from dittohead.model.text import rfc3339

        return rfc3339(value)
    return value
