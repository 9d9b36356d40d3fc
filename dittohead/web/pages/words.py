"""How the pages say things: templates, and the forms of names, sizes, moments and durations in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import jinja2
from markupsafe import Markup, escape

from dittohead.model.text import counted, rfc3339, visible
from dittohead.model.units import age, amount, duration, rate, size

_TEMPLATES = Path(__file__).parent / "templates"

#: Line breaks and tabs are shown as such only where text keeps its lines; elsewhere `name` says them.
_KEPT = "\n\t"

#: A moment as `moment` writes it, and as `ago` does. Names are escaped, and cannot look like either.
_MOMENT = re.compile(r'<time datetime="([^"]+)">([^<]+)</time>')
_AGE = re.compile(r'(<time class="age" datetime="([^"]+)" title="[^"]+">)[^<]+</time>')

#: What is to be typed, as hints have it.
_COMMAND = re.compile(r"`([^`\n]+)`")

#: What a link may lead to; anything else, such as javascript:, stays text.
_LINKS = frozenset({"http", "https"})


def _finalize(value: Any) -> Any:
    """Show control and bidirectional characters of whatever comes into a page, before it is escaped."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return visible(value, but=_KEPT)
    return value


def name(text: str) -> Markup:
    """Return a name of somebody's, set apart from the direction of the text around it."""
    return Markup("<bdi>{}</bdi>").format(visible(text))


def moment(at: datetime | float | str | None) -> Markup:
    """Return a moment as an element that the page's script shows in the reader's zone; "" for none."""
    if at is None or at == "":
        return Markup("")
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    elif not isinstance(at, datetime):
        at = datetime.fromtimestamp(at, UTC)
    at = at.astimezone(UTC)
    return Markup('<time datetime="{}">{} UTC</time>').format(
        rfc3339(at) or "", at.strftime("%Y-%m-%d %H:%M:%S")
    )


def ago(at: datetime | float | str | None) -> Markup:
    """Return a moment as an element that says how long ago it was; "" for none.

    What many readers share holds the moment alone, so that it stays the same: `aged` puts the age in when a
    page is sent, and the page's script does so from then on.
    """
    said = str(moment(at))
    return Markup(_MOMENT.sub(r'<time class="age" datetime="\1" title="\2">\2</time>', said))  # noqa: S704  # of our own element


def aged(html: str, now: datetime) -> str:
    """Put the ages of moments into a page."""

    def said(found: re.Match[str]) -> str:
        seconds = (now - datetime.fromisoformat(found[2])).total_seconds()
        return f"{found[1]}{age(max(seconds, 0))}{' ago' if seconds >= 1 else ''}</time>"

    return _AGE.sub(said, html)


def typed(text: str) -> Markup:
    """Return text whose parts between backticks are to be typed: these as code, everything escaped."""
    shown = visible(text, but=_KEPT)
    parts = _COMMAND.split(shown)  # each second one is a command
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )


def sentence(text: str) -> str:
    """Return an error's words with a capital letter; the others, of names too, as they are."""
    return text[:1].upper() + text[1:]


def link(uri: str) -> Markup:
    """Return a place as a link where a browser can follow it; as text otherwise."""
    try:
        leads = urlsplit(uri).scheme in _LINKS
    except ValueError:
        leads = False
    shown = visible(uri)
    if not leads:
        return Markup("<code>{}</code>").format(shown)
    return Markup('<a href="{}" rel="noreferrer">{}</a>').format(uri, shown)


def part_of_url(text: str) -> str:
    """Return text as one segment of a URL's path."""
    return quote(text, safe="", errors="surrogatepass")


class Words:
    """The templates, read once, with what all of them use."""

    def __init__(self, static: Mapping[str, str]) -> None:
        """Read every template. Args: static: asset -> the path it is served at."""
        self._env = jinja2.Environment(
            loader=jinja2.DictLoader(_read()),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            finalize=_finalize,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
            cache_size=-1,
        )
        self._env.globals["static"] = static
        self._env.filters |= {
            "name": name,
            "size": size,
            "duration": duration,
            "moment": moment,
            "ago": ago,
            "amount": amount,
            "rate": rate,
            "link": link,
            "typed": typed,
            "sentence": sentence,
            "segment": part_of_url,
            "counted": counted,
        }

    def fill(self, template: str, **values: Any) -> str:
        """Return a template filled in. To be called in a thread: it is compiled at its first use."""
        return self._env.get_template(template).render(values)


def _read() -> dict[str, str]:
    """Return the text of every template, by its name; read once: a newer version may be installed later."""
    found = (path for path in _TEMPLATES.rglob("*") if path.suffix in (".html", ".svg"))
    return {path.relative_to(_TEMPLATES).as_posix(): path.read_text(encoding="utf-8") for path in found}
