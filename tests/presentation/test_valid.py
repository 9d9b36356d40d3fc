"""Every manifest is valid by the specification, by the community's model of it and by its schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from dittohead.model.description import Dated, Description, Level, Named
from dittohead.model.errors import ItemError
from dittohead.toolkit.images.iiif import info
from dittohead.toolkit.uris import encoded
from dittohead.workers.iiif import manifest
from dittohead.workers.iiif.manifest import Manner, ShownObject
from dittohead.workers.iiif.pictures import Picture, of_info, served
from dittohead.workers.iiif.worker import IiifOptions
from tests.support import iiif, prezi
from tests.support.length import examples

BASE = "https://iiif.example.org/o"

#: What people, spreadsheets and other systems really leave in a field, and what only an attacker does.
ODD = [
    "", " ", "\t\r\n", "\x00", "\x1f", "\x85", "\N{NO-BREAK SPACE}", "100% wool", "a%20b", "%zz", "Box 1 #3",
    "what? now", "[x] (y)!", 'say "hi" \\ <b>', "<b>bold</b>", "<script>x</script>", "<", "a < b > c", "{name}",
    "ünï ⅓", "日本の手紙", "\u202eעברית\u202c", "رسائل", "👩‍👩‍👧 family", "\ud800", "caf\udce9", "\ufffe", "\u2028",
    "javascript:alert(1)", "https://", "http://[", "https://x y/z", "https://bücher.example/ä?[]=1#a#b",
    "HTTPS://Example.org/", "http://h:99999/", "https://1.2.3.4.5/", "https://u:p@h.example/", "//h.example/x",
    "https://h.example/100%", " https://h.example/x ", "https://a..b/", "http:///x", "https://h.example/\ud800",
    "1951-02-30", "circa 1951", "de", "text/html", "x" * 2000,
]  # fmt: skip

RIGHTS = [
    "https://creativecommons.org/licenses/by-nc-sa/4.0/deed.de", "http://creativecommons.org/licenses/by/2.0/uk/",
    "https://creativecommons.org/publicdomain/zero/1.0/legalcode", "creativecommons.org/licenses/by/4.0/",
    "https://creativecommons.org/publicdomain/mark/1.0/", "http://rightsstatements.org/vocab/InC-OW-EU/1.0/",
    "https://rightsstatements.org/page/UND/1.0/?language=fi", "https://rightsstatements.org/", "CC BY 4.0",
]  # fmt: skip

#: Every character there is, lone surrogates as well.
ANY = st.text(st.characters(exclude_categories=()), max_size=30)
TEXT = st.sampled_from(ODD) | ANY
ADDRESS = TEXT | st.builds("https://{}".format, ANY) | st.builds("http://h.example/{}".format, ANY)
NAME = st.sampled_from([odd for odd in ODD if 0 < len(odd) < 200]) | ANY.filter(bool)

DESCRIPTIONS = st.builds(
    Description,
    identifier=TEXT,
    title=TEXT,
    page=ADDRESS,
    other_identifiers=st.tuples(TEXT),
    ancestors=st.tuples(st.builds(Level, level=TEXT, title=TEXT, identifier=TEXT)),
    dates=st.tuples(st.builds(Dated, label=TEXT, expression=TEXT, begin=TEXT, end=TEXT)),
    creators=st.tuples(st.builds(Named, name=TEXT, role=TEXT, uri=ADDRESS)),
    subjects=st.tuples(st.builds(Named, name=TEXT)),
    languages=st.tuples(TEXT),
    extents=st.tuples(TEXT, TEXT),
    abstract=TEXT,
    rights=TEXT,
    rights_uri=ADDRESS | st.sampled_from(RIGHTS),
    publisher=TEXT,
    published=st.none() | st.booleans(),
)

MANNERS = st.builds(
    Manner,
    language=st.sampled_from(["none", "en", "de-AT", "zh-Hant", "sr-Latn-RS", "ar", "es-419", "de-1996"]),
    behavior=st.sampled_from(["individuals", "paged", "continuous", "unordered"]),
    viewing_direction=st.sampled_from(["left-to-right", "right-to-left", "top-to-bottom", "bottom-to-top"]),
    canvas_labels=st.sampled_from(["number", "name"]),
    structures=st.booleans(),
)


def raw(text: str) -> bytes:
    """Return a name as a disk may have it: of any bytes but two."""
    return text.encode("utf-8", "surrogatepass").replace(b"/", b"_").replace(b"\0", b"_")


def static(path: bytes, origin: bytes, size: tuple[int, int]) -> Picture:
    """Return the picture of tiles that were made of a file."""
    return of_info(
        info(*size, 512, encoded(f"{BASE}/{path.decode('utf-8', 'surrogateescape')}")), path, origin
    )


@st.composite
def pictures(draw: Callable[[Any], Any]) -> list[Picture]:
    """Return images in up to two folders within each other, from tiles or from an image server."""
    names = draw(st.lists(NAME.map(raw), min_size=1, max_size=4, unique=True))
    made = []
    for number, name in enumerate(names):
        origin = b"/".join(
            [*names[:number][:2], name + draw(st.sampled_from([b".tif", b".avif", b".png", b""]))]
        )
        size = draw(st.tuples(st.integers(1, 9000), st.integers(1, 9000)))
        level = draw(st.sampled_from(["level0", "level1", "level2"]))
        if level == "level0":
            made.append(static(origin + b".iiif", origin, size))
        else:
            made.append(served(f"https://img.example.org/3/{number}", level, size, origin + b".tif", origin))
    return made


def read(made: dict[str, Any]) -> dict[str, Any]:
    """Return a manifest as the public reads it, seen to be valid."""
    return iiif.see(json.loads(manifest.written(made)))


@settings(max_examples=examples(150), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(known=DESCRIPTIONS, manner=MANNERS, images=pictures())
def test_whatever_is_known_of_an_object_its_manifest_is_valid(
    known: Description, manner: Manner, images: list[Picture]
) -> None:
    """A row of a spreadsheet or a record may hold anything; names of files and folders may, too."""
    shown = ShownObject(
        description=known,
        pictures=images,
        base=BASE,
        thumbnail=(f"{BASE}/thumbnail.jpg", 200, 150),
        page=f"{BASE}/index.html",
        part_of=f"{BASE}/collection.json",
    )
    read(manifest.manifest(shown, manner))
    read(manifest.collection(known.title, BASE, [shown, replace(shown, base=f"{BASE}/2")], manner))


OPTIONS = st.fixed_dictionaries(
    {
        "base": ADDRESS | st.just(BASE),
        "language": st.sampled_from(["none", "en"]) | TEXT,
        "provider": st.none()
        | st.fixed_dictionaries(
            {"id": ADDRESS}, optional={"name": TEXT, "homepage": ADDRESS, "logo": ADDRESS}
        ),
        "see_also": st.lists(
            st.fixed_dictionaries({"id": ADDRESS}, optional={"label": TEXT, "format": TEXT, "type": TEXT}),
            max_size=2,
        ),
        "rendering": st.lists(
            st.fixed_dictionaries({"id": ADDRESS}, optional={"label": TEXT, "format": TEXT}), max_size=2
        ),
    }
)


def presented(options: IiifOptions) -> dict[str, Any]:
    """Return the manifest of one image by some options."""
    known = Description(identifier="a", title="a")
    base = encoded(options.base)
    return manifest.manifest(
        ShownObject(description=known, pictures=[static(b"p", b"p.tif", (300, 200))], base=base),
        options.manner(),
    )


@settings(max_examples=examples(300), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(options=OPTIONS)
def test_options_are_refused_or_make_a_valid_manifest(options: dict[str, Any]) -> None:
    """When they are read, or when they are filled in: a placeholder that is left then was in a name."""
    try:
        made = presented(IiifOptions.model_validate({"tiles": "tiles", **options}))
    except (ValidationError, ItemError) as refused:
        said = refused
    else:
        read(made)
        return
    assert isinstance(said, ValidationError) or (said.where.startswith("option ") and said.hint)


@pytest.mark.parametrize(
    "options",
    [
        {"provider": {"id": "https://Bücher.example/über uns [1]", "name": " "}},
        {"provider": {"id": "https://h.example/", "logo": "https://h.example/100%.png"}},
        {
            "see_also": [
                {"id": "https://h.example/?q=[a]#x#y", "format": "Text/XML; charset=utf-8", "label": " "}
            ]
        },
        {
            "rendering": [
                {"id": "https://[2001:db8::1]:8443/a.pdf", "label": "\t", "format": "application/pdf"}
            ]
        },
        {"base": "https://h.example/ä b"},
    ],
)
def test_options_that_are_meant_well_make_a_valid_manifest(options: dict[str, Any]) -> None:
    """Spaces and letters of all scripts are encoded, not refused."""
    read(presented(IiifOptions.model_validate({"tiles": "tiles", "base": BASE, **options})))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rendering": [{"id": "https://h.example/a.pdf", "format": "PDF"}]}, "rendering.0.format.*a media type such as"),
        ({"see_also": [{"id": "https://h.example/", "format": "x-y/z"}]}, "see_also.0.format.*a media type such as"),
        ({"provider": {"id": "https://"}}, "provider.id.*names a host"),
        ({"provider": {"id": "https://h:99999/"}}, "provider.id.*names a host"),
        ({"provider": {"id": "https://user:word@h.example/"}}, "provider.id.*without a user's name"),
        ({"base": "https://[::1/x"}, "base.*names a host"),
        ({"base": ""}, "base.*names a host"),
        ({"provider": {"id": ""}}, "provider.id.*names a host"),
    ],
)  # fmt: skip
def test_options_that_would_make_no_valid_manifest_say_so(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        IiifOptions.model_validate({"tiles": "tiles", "base": BASE, **options})
    (error,) = caught.value.errors()
    assert re.search(says, f"{'.'.join(map(str, error['loc']))}: {error['msg']}")


def right() -> dict[str, Any]:
    """Return a manifest with something of everything."""
    known = Description(
        identifier="a",
        title="A",
        abstract="words",
        extents=("1 leaf",),
        rights="ask",
        rights_uri="http://rightsstatements.org/vocab/InC/1.0/",
        page="https://h.example/a",
    )
    manner = Manner(
        structures=True,
        providers=[{"id": "https://h.example/", "name": "H", "logo": "https://h.example/logo.png"}],
        rendering=[{"id": "https://h.example/a.pdf", "format": "application/pdf"}],
    )
    images = [static(f"s/{n}".encode(), f"s/{n}.tif".encode(), (300, 200)) for n in (1, 2)]
    return read(manifest.manifest(ShownObject(description=known, pictures=images, base=BASE), manner))


BROKEN: list[tuple[str, Any, str, str]] = [
    # path, what is put there (None: it is taken away), by what it is found, what is said
    ("label", "A", "iiif-prezi3", "label: given 'A', understood as"),
    ("label", None, "iiif-prezi3", "label: Field required"),
    ("label", {"deutsch!": ["A"]}, "iiif-prezi3", "label/.*: String should match pattern"),
    ("label", {"none": "A"}, "iiif-prezi3", "label/.*: Input should be a valid"),
    ("type", "Manifesto", "specification", "type: 'Manifest' was expected"),
    ("id", "iiif.example.org/manifest.json", "iiif-prezi3", "id: Input should be a valid URL"),
    ("id", "https://h.example/100% wool", "specification", "id: .*is not a URI"),
    ("id", "https://h.example/it%27s%", "specification", "id: .*is not a URI"),
    ("behavior", ["page"], "iiif-prezi3", "behavior/"),
    ("viewingDirection", "rtl", "iiif-prezi3", "viewingDirection/"),
    ("rights", "https://creativecommons.org/licenses/by/4.0/", "specification", "rights: .*does not match"),
    ("summary", {"none": [" "]}, "specification", "summary/none/0: ' ' does not match"),
    ("summary", {"none": ["<script>x</script>"]}, "specification", "markup that may not be there"),
    ("requiredStatement", {"label": {"en": ["Rights"]}}, "iiif-prezi3", "requiredStatement/value: Field required"),
    ("metadata/0/value", ["x"], "iiif-prezi3", "metadata/0/value"),
    ("rendering/0/format", "PDF", "iiif-prezi3", "rendering/0/format: String should match pattern"),
    ("rendering/0/label", None, "specification", "rendering/0: 'label' is a required"),
    ("homepage/0/id", "javascript:x", "specification", "homepage/0/id: .*is not a URI"),
    ("provider/0/type", "Organization", "iiif-prezi3", "provider/0/type: String should match"),
    ("navDate", "1951", "specification", "'navDate' was unexpected"),
    ("items", [], "specification", "items: \\[\\] should be non-empty"),
    ("items/0/width", "300", "iiif-prezi3", "items/0/width: given '300', understood as 300"),
    ("items/0/height", 0, "specification", "items/0/height: 0 is less than the minimum"),
    ("items/0/height", 199, "specification", "is of another size than its image"),
    ("items/0/id", f"{BASE}/canvas/s/2", "specification", "is there 2 times"),
    ("items/0/items", None, "specification", "items/0: 'items' is a required"),
    ("items/0/items/0/type", "Page", "iiif-prezi3", "items/0/items/0/type: String should match"),
    ("items/0/items/0/items/0/target", "https://h.example/", "specification", "what is painted is not on it"),
    ("items/0/items/0/items/0/motivation", "showing", "specification", "motivation: 'painting' was expected"),
    ("items/0/items/0/items/0/body/service/0/profile", 2, "iiif-prezi3", "body/.*profile: Input should be a valid str"),
    ("items/0/items/0/items/0/body/service/0/id", None, "iiif-prezi3", "body/.*service"),
    ("structures/0/items/0/id", "https://h.example/", "specification", "a range names a canvas that is not there"),
    ("structures/0/items/0/type", "Picture", "iiif-prezi3", "structures/0/items/0"),
    ("colour", "red", "iiif-prezi3", "colour: given 'red', understood as None"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("path", "value", "by", "says"), BROKEN, ids=[f"{b[0]}-{n}" for n, b in enumerate(BROKEN)]
)
def test_a_manifest_that_is_broken_is_found(path: str, value: Any, by: str, says: str) -> None:
    """By whom, where and why; all that was not touched is right."""
    made = right()
    *to, last = [int(part) if part.isdecimal() else part for part in path.split("/")]
    place: Any = made
    for part in to:
        place = place[part]
    if value is None:
        del place[last]
    else:
        place[last] = value
    said = list(iiif.faults(made))
    assert any(re.search(rf"^{by}: .*{says}", line) for line in said), "\n".join(said)
    with pytest.raises(AssertionError, match="this is not valid IIIF Presentation 3:"):
        iiif.see(made)


def test_languages_with_digits_are_the_one_thing_that_is_known_better() -> None:
    """BCP 47 has them; the published schema, and so the model, lets letters in alone."""
    assert not list(iiif.faults({**right(), "label": {"es-419": ["x"]}}))
    assert list(iiif.faults({**right(), "label": {"es_419": ["x"]}}))


def test_the_published_schema_finds_what_is_wrong() -> None:
    """Where it is; it is not kept here: see tests/support/prezi.py."""
    if not prezi.PUBLISHED.exists():
        pytest.skip(
            f"{prezi.PUBLISHED} is not there: schema/iiif_3_0.json of the repository IIIF/presentation-validator"
        )
    assert not list(prezi.by_published_schema(right()))
    (line,) = prezi.by_published_schema({**right(), "rights": "https://example.org/"})
    assert line.startswith("published schema: rights: 'https://example.org/' ")
