"""How the pages say things: templates, and the forms of names, sizes, moments and durations in them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import jinja2
from markupsafe import Markup

from dittohead.model import counted, rfc3339, visible

_TEMPLATES = Path(__file__).parent / "templates"

#: Line breaks and tabs are shown as such only where text keeps its lines; elsewhere `name` says them.
_KEPT = "\n\t"

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


def size(count: float) -> str:
    """Return bytes as people read them, in binary units."""
    if count < 1024:
        return counted(int(count), "byte")
    power = min((int(count).bit_length() - 1) // 10, 5)
    count, unit = count / 1024**power, ("", "KiB", "MiB", "GiB", "TiB", "PiB")[power]
    return f"{count:,.0f} {unit}" if count >= 100 else f"{count:,.1f} {unit}"


def duration(seconds: float) -> str:
    """Return a duration in at most two units."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


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


def amount(done: float, unit: str) -> str:
    """Return how much of something: bytes in their units, anything else counted."""
    return size(done) if unit == "bytes" else f"{done:,.0f} {unit}"


def rate(per_second: float, unit: str) -> str:
    """Return how fast something goes."""
    return f"{size(per_second) if unit == 'bytes' else f'{per_second:,.1f} {unit}'}/s"


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
            loader=jinja2.FileSystemLoader(_TEMPLATES),
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
            "amount": amount,
            "rate": rate,
            "link": link,
            "segment": part_of_url,
            "counted": counted,
        }
        for template in self._env.list_templates(extensions=["html", "svg"]):
            self._env.get_template(template)  # no reading of files while the daemon works

    def fill(self, template: str, **values: Any) -> str:
        """Return a template filled in."""
        return self._env.get_template(template).render(values)
