"""Write the page that shows an object: one file, whole without JavaScript, that asks only the tiles' host.

What it says is that of the manifest. Its own style and script are allowed by their digests (Content
Security Policy level 3, 2.3.1), nothing else is, so that a title can bring nothing to run even if it
were not escaped.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from urllib.parse import urlsplit

from dittohead.workers.iiif import manifest
from dittohead.workers.iiif.manifest import Manner, ShownObject, clean
from dittohead.workers.iiif.pictures import Picture

#: Sizes of the whole image that the list offers to a browser: up to so many pixels.
_LARGEST_LISTED = 1200


def page(shown: ShownObject, manner: Manner, root: str) -> bytes:
    """Return an object's page.

    Args:
        root: URL of the folder below which its page lies; what is below it is asked for by relative
            address, so that the page works wherever the whole is put.
    """
    known = shown.description
    labels = [_label(picture, number, manner) for number, picture in enumerate(shown.pictures)]
    places = [_relative(picture.uri, shown.base, root) for picture in shown.pictures]
    data = {
        "backwards": manner.viewing_direction == "right-to-left",
        "pages": [
            {"l": label, "u": place, "w": p.width, "h": p.height, "t": p.tile, "f": p.factors, "p": p.profile}
            for label, place, p in zip(labels, places, shown.pictures, strict=True)
        ],
    }
    above = "".join(f"<li>{_text(level.title)}</li>" for level in known.ancestors)
    body = [
        '<a class="skip" href="#images">Skip to the list of images</a>',
        "<header>",
        f'<ol class="above"{_lang(manner)}>{above}</ol>' if above else "",
        f"<h1{_lang(manner)}>{_text(shown.title)}</h1></header>",
        "<main>",
        _viewer(len(shown.pictures)),
        *_about(shown, manner),
        f'<section id="images"><h2>Images ({len(labels)})</h2><ol>',
        *map(_listed, shown.pictures, labels, places),
        "</ol></section>",
        "</main>",
        f"<footer><ul>{_links(shown)}</ul></footer>",
        f'<script type="application/json" id="data">{_json(data)}</script>',
        f"<script>{_own('viewer.js')}</script>",
    ]
    return _document(shown.title, body, shown.pictures)


def contents(title: str, objects: Sequence[ShownObject], manner: Manner, base: str) -> bytes:
    """Return the page that leads to the pages of several objects: HTML in UTF-8.

    Args:
        title: the page's title, as text.
        objects: in the order in which they are shown.
        manner: the language of the titles.
        base: URI of the directory that the page goes into; links below it are made relative.
    """
    items = []
    for shown in objects:
        picture = ""
        if shown.thumbnail:
            uri, width, height = shown.thumbnail
            size = f'width="{width}" height="{height}"'
            picture = f'<img src="{_text(_relative(uri, base, base))}" {size} alt="" loading="lazy">'
        place = _relative(shown.page, base, base)
        items.append(
            f'<li><a href="{_text(place)}">{picture}<span{_lang(manner)}>{_text(shown.title)}</span></a></li>'
        )
    body = [
        f"<header><h1{_lang(manner)}>{_text(title)}</h1></header>",
        f'<main><section id="images"><h2>Objects ({len(items)})</h2><ol>',
        *items,
        "</ol></section></main>",
        '<footer><ul><li><a href="collection.json">IIIF collection</a></li></ul></footer>',
    ]
    return _document(title, body, [picture for shown in objects for picture in shown.pictures[:1]])


# -- parts -----------------------------------------------------------------------------------


def _document(title: str, body: Iterable[str], pictures: Iterable[Picture]) -> bytes:
    style, script = _own("page.css"), _own("viewer.js")
    hosts = sorted({"{0.scheme}://{0.netloc}".format(urlsplit(picture.uri)) for picture in pictures})
    policy = "; ".join(
        (
            "default-src 'none'",
            f"img-src 'self' data: {' '.join(hosts)}",
            f"style-src '{_digest(style)}'",
            f"script-src '{_digest(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    head = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{_text(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_text(title)}</title>",
        '<link rel="icon" href="data:,">',  # else every browser asks for one that is not there
        f"<style>{style}</style></head><body>",
    ]
    return "\n".join((*head, *body, "</body></html>", "")).encode()


def _viewer(count: int) -> str:
    buttons = (
        ("before", "Previous image", "‹", ""),
        ("after", "Next image", "›", ""),
        ("smaller", "Zoom out", "−", ""),
        ("larger", "Zoom in", "+", ""),
        ("whole", "Fit whole image", "Fit", ""),
        ("full", "Full screen", "Full screen", " hidden"),
    )
    row = "".join(
        f'<button type="button" id="{i}" aria-label="{name}"{more}>{sign}</button>'
        for i, name, sign, more in buttons
    )
    help_text = (
        "Arrow keys move the image or turn to the next, plus and minus zoom, 0 shows the whole image, "
        "Page Up and Page Down turn to another."
    )
    return (
        '<section id="viewer" aria-label="Viewer" hidden>'
        f'<div id="stage" tabindex="0" role="group" aria-label="Image" aria-describedby="keys">'
        '<canvas role="img"></canvas>'
        '<p id="trouble" role="status" hidden>A part of this image could not be loaded.</p></div>'
        '<div id="bar"><label>Image <input id="number" type="number" min="1" '
        f'max="{count}" value="1"> of {count}</label>'
        f"{row}</div>"
        f'<p id="keys" class="unseen">{help_text}</p>'
        '<p id="said" class="unseen" aria-live="polite"></p></section>'
    )


def _about(shown: ShownObject, manner: Manner) -> Iterable[str]:
    known = shown.description
    yield '<section id="about"><h2>About</h2>'
    if known.abstract.strip():
        yield f'<p class="summary"{_lang(manner)}>{_text(known.abstract)}</p>'
    yield "<dl>"
    for label, values, spoken in manifest.facts(known):
        yield f"<dt>{_text(label)}</dt>"
        yield from (f"<dd{_lang(manner) if spoken else ''}>{_text(value)}</dd>" for value in values)
    statement, uri = known.rights.strip(), known.rights_uri
    if statement or uri:
        yield "<dt>Rights</dt>"
    if statement:
        yield f'<dd class="words"{_lang(manner)}>{_text(statement)}</dd>'
    if uri:
        yield f"<dd>{_link(uri, uri)}</dd>"
    yield "</dl></section>"


def _listed(picture: Picture, label: str, place: str) -> str:
    """Return a picture of the list: a link to the whole of it, with the sizes a browser may choose from."""
    there = [size for size in picture.sizes if max(size) <= _LARGEST_LISTED] or picture.sizes[:1]
    uri = picture.uri

    def at(size: tuple[int, int] | None) -> str:
        return _text(place + picture.at(size).removeprefix(uri))

    first = there[0] if there else None
    width, height = first or (picture.width, picture.height)
    choice = (
        ", ".join(f"{at(size)} {size[0]}w" for size in there)
        if len(there) > 1 and picture.profile == "level0"
        else ""
    )
    # A comma within an address would end it where srcset is read; each is followed by white space here.
    offered = f' srcset="{choice}" sizes="(max-width: 40rem) 45vw, 14rem"' if choice else ""
    return (
        f'<li><a href="{at(None)}"><img src="{at(first)}"{offered} width="{width}" height="{height}" alt="" '
        f'loading="lazy"><span>{_text(label)}</span></a></li>'
    )


def _links(shown: ShownObject) -> str:
    found = ['<li><a href="manifest.json">IIIF manifest</a></li>']
    if shown.part_of:
        found.append('<li><a href="../index.html">All objects of this folder</a></li>')
    if record := manifest.public_page(shown.description):
        found.insert(0, f"<li>{_link(record, 'Record in the catalogue')}</li>")
    return "".join(found)


def _link(uri: str, text: str) -> str:
    """Return a link, of what is not a web address the text alone: `javascript:` is an address, too."""
    if not uri.startswith(("https://", "http://")):
        return _text(text)
    return f'<a href="{_text(uri)}" rel="noopener">{_text(text)}</a>'


def _label(picture: Picture, number: int, manner: Manner) -> str:
    label = manifest.label_of(picture, number, manner)
    return label if manner.canvas_labels == "name" else f"Image {label}"


def _lang(manner: Manner) -> str:
    return "" if manner.language == "none" else f' lang="{_text(manner.language)}"'


def _relative(uri: str, base: str, root: str) -> str:
    """Return an address as it is written in a page at `base`; what is not below `root` stays whole."""
    if not uri.startswith(root + "/"):
        return uri
    up = base.removeprefix(root).count("/")
    return ("../" * up or "./") + uri[len(root) + 1 :]


def _text(text: str) -> str:
    return html.escape(clean(text))


def _json(value: object) -> str:
    # "</script>" and "<!--" would end or change the element, whatever type it says.
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _own(name: str) -> str:
    return "\n" + resources.files(__package__).joinpath(name).read_text("utf-8")


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
