"""iiif: manifests that keep the specification's rules, of images that are there; pages that are safe."""

from __future__ import annotations

import hashlib
import html.parser
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from urllib.request import urlopen

import jsonschema
import pytest
from pydantic import ValidationError

from dittohead.config.loader import load
from dittohead.contract import placeholders
from dittohead.contract.worker import Made
from dittohead.model.description import Dated, Described, Description, Level, Named, Object
from dittohead.model.errors import ItemError
from dittohead.model.records import Output
from dittohead.system.files import sha256_file
from dittohead.workers.convert import ConvertWorker
from dittohead.workers.iiif.worker import IiifOptions, IiifWorker
from tests.support import iiif
from tests.support.context import LoneContext
from tests.support.convert import Rig
from tests.support.images import decoded, jpeg, tiff
from tests.support.static_site import serving
from tests.support.trees import tree

BASE = "https://iiif.example.org/o"

RICH = Description(
    identifier="ABC_12_3",
    title="Briefe aus Zürich",
    ref="/repositories/2/archival_objects/7",
    page="https://archives.example.org/repositories/2/archival_objects/7",
    other_identifiers=("ark:/12345/x", "ABC_12_3"),
    ancestors=(Level(level="collection", title="Papers", identifier="ABC"), Level(level="", title="Letters")),
    dates=(Dated(label="creation", expression="circa 1951"), Dated(label="copyright", begin="1952")),
    creators=(Named(name="Person, A.", role="cre"), Named(name="Foto, B.", role="pht")),
    subjects=(Named(name="Physics"),),
    languages=("de",),
    extents=("12 leaves",),
    abstract="A run of letters.",
    rights="Ask the archives.",
    rights_uri="https://rightsstatements.org/page/InC/1.0/",
    publisher="Example Archives",
)


class Show:
    """The worker alone, on tiles that are told of."""

    def __init__(self, base: Path) -> None:
        self.base, self.worker = base, IiifWorker()
        (base / "payload").mkdir()

    async def run(
        self,
        made: Made | None,
        *known: Object | Description,
        **options: Any,
    ) -> dict[str, Any]:
        """Return the manifest (or the collection); it has kept the rules."""
        self.ctx = ctx = LoneContext(self.base, self.base / "payload", step="presentation")
        if made is not None:
            ctx.others["tiles"] = made
        if known:
            objects = tuple(o if isinstance(o, Object) else Object(description=o) for o in known)
            ctx.description = Described(objects=objects)
        given = {"tiles": "tiles", "base": BASE, **options}
        self.result = await self.worker.run(ctx, IiifOptions.model_validate(given))
        for path in ctx.work.rglob("*.json"):
            iiif.see(json.loads(path.read_text()))
        name = "collection.json" if (ctx.work / "collection.json").exists() else "manifest.json"
        found: dict[str, Any] = json.loads((ctx.work / name).read_text())
        return found

    def tiles(self, pictures: dict[str, tuple[int, int]], uri: str = BASE) -> Made:
        return iiif.tiles(self.base / "tiles", pictures, uri)


@pytest.fixture
def show(tmp_path: Path) -> Show:
    return Show(tmp_path)


def labels(manifest: dict[str, Any]) -> list[str]:
    return [canvas["label"]["none"][0] for canvas in manifest["items"]]


async def test_everything_known_of_an_object_is_said(show: Show) -> None:
    """In the words and places of the specification."""
    made = await show.run(
        show.tiles({"p1.tif": (3000, 2000)}),
        RICH,
        language="de",
        provider={"id": "https://example.org/"},
        see_also=[{"id": "https://example.org/mets.xml", "format": "text/xml"}],
        rendering=[{"id": "https://example.org/a.pdf", "format": "application/pdf"}],
    )
    assert made["id"] == f"{BASE}/manifest.json"
    assert made["label"] == {"de": ["Briefe aus Zürich"]}
    assert made["summary"] == {"de": ["A run of letters."]}
    pairs = {pair["label"]["en"][0]: pair["value"] for pair in made["metadata"]}
    assert pairs == {
        "Date": {"none": ["circa 1951", "1952 (copyright)"]},
        "Creator": {"de": ["Person, A.", "Foto, B. (pht)"]},
        "Extent": {"de": ["12 leaves"]},
        "Subject": {"de": ["Physics"]},
        "Language": {"none": ["de"]},
        "Collection": {"de": ["Papers (ABC)"]},
        "Part of": {"de": ["Letters"]},
        "Repository": {"de": ["Example Archives"]},
        "Identifier": {"none": ["ABC_12_3", "ark:/12345/x"]},
    }
    assert made["rights"] == "http://rightsstatements.org/vocab/InC/1.0/"
    assert made["requiredStatement"]["value"] == {"de": ["Ask the archives."]}
    assert made["provider"][0]["label"] == {"de": ["Example Archives"]}
    assert [page["id"] for page in made["homepage"]] == [RICH.page]
    pdf = {"id": "https://example.org/a.pdf", "type": "Text", "format": "application/pdf"}
    assert made["rendering"] == [{**pdf, "label": {"en": ["application/pdf"]}}]
    assert made["seeAlso"] == [
        {"id": "https://example.org/mets.xml", "type": "Dataset", "format": "text/xml"}
    ]
    assert (made["behavior"], made["viewingDirection"]) == (["individuals"], "left-to-right")


@pytest.mark.parametrize(
    ("uri", "wanted"),
    [
        ("https://creativecommons.org/licenses/by/4.0/", "http://creativecommons.org/licenses/by/4.0/"),
        (
            "http://creativecommons.org/publicdomain/zero/1.0/",
            "http://creativecommons.org/publicdomain/zero/1.0/",
        ),
        (
            "https://creativecommons.org/licenses/by-sa/4.0/deed.de",
            "http://creativecommons.org/licenses/by-sa/4.0/",
        ),
        (
            "https://creativecommons.org/licenses/BY/4.0?ref=chooser-v1",
            "http://creativecommons.org/licenses/by/4.0/",
        ),
        (
            "https://creativecommons.org/licenses/by/4.0/legalcode.zh-hans#s3",
            "http://creativecommons.org/licenses/by/4.0/",
        ),
        (
            "https://www.creativecommons.org/licenses/by-nc/3.0/at/deed.de",
            "http://creativecommons.org/licenses/by-nc/3.0/at/",
        ),
        (
            "http://creativecommons.org/licenses/by/3.0/igo/",
            "http://creativecommons.org/licenses/by/3.0/igo/",
        ),
        (
            "https://creativecommons.org/publicdomain/mark/1.0/deed.en",
            "http://creativecommons.org/publicdomain/mark/1.0/",
        ),
        (
            "https://rightsstatements.org/page/InC/1.0/?language=de",
            "http://rightsstatements.org/vocab/InC/1.0/",
        ),
        (
            "http://rightsstatements.org/vocab/noc-cr/1.0?relatedURL=https://a.example",
            "http://rightsstatements.org/vocab/NoC-CR/1.0/",
        ),
        ("http://rightsstatements.org/vocab/Mine/1.0/", None),
        ("https://creativecommons.org/about/", None),
        ("https://example.org/terms", None),
        ("http://creativecommons.org.evil.example/licenses/by/4.0/", None),
        ("", None),
    ],
)
async def test_rights_are_only_what_the_specification_lets_in(
    show: Show, uri: str, wanted: str | None
) -> None:
    """Others are still told to people."""
    made = await show.run(
        show.tiles({"p1.tif": (300, 200)}), Description(identifier="a", title="a", rights_uri=uri)
    )
    assert made.get("rights") == wanted
    said = made.get("requiredStatement", {"value": {"none": [""]}})["value"]["none"][0]
    assert said == ("" if wanted else uri)


async def test_every_address_is_that_of_a_file_that_exists(tmp_path: Path) -> None:
    """On tiles that were really made, with names of all kinds; the thumbnail is a picture of its size."""
    rig = Rig(tmp_path)
    ctx = LoneContext(tmp_path, tmp_path / "payload", step="tiles") if rig.payload.exists() else None
    names = {"a b#1?.jpg": (900, 700), "ü%2F.jpg": (1300, 300), "tiny.jpg": (5, 4)}
    ctx = await rig.convert(
        {name: jpeg(*size) for name, size in names.items()},
        ctx=ctx,
        format="iiif-static",
        iiif_id=f"{BASE}/{{path}}",
        tile=256,
    )
    to = LoneContext(tmp_path, rig.payload, step="presentation")
    to.others["tiles"] = rig.made()
    await IiifWorker().run(to, IiifOptions(tiles="tiles", base=BASE))
    manifest = iiif.see(json.loads((to.work / "manifest.json").read_text()))
    assert len(manifest["items"]) == 3
    for canvas in manifest["items"]:
        service = canvas["items"][0]["items"][0]["body"]["service"][0]["id"]
        said = json.loads((ctx.work / unquote(service.removeprefix(BASE + "/")) / "info.json").read_text())
        assert (said["id"], said["width"], said["height"]) == (service, canvas["width"], canvas["height"])
        for picture in (canvas["thumbnail"][0], canvas["items"][0]["items"][0]["body"]):
            path = ctx.work / unquote(picture["id"].removeprefix(BASE + "/"))
            assert decoded(path).shape[:2] == (picture["height"], picture["width"])
    (thumbnail,) = manifest["thumbnail"]
    assert thumbnail["id"] == f"{BASE}/thumbnail.jpg"
    assert decoded(to.work / "thumbnail.jpg").shape[:2] == (thumbnail["height"], thumbnail["width"])
    assert {output.detail["use"]: output.detail["uri"] for output in to.outputs} == {
        "manifest": f"{BASE}/manifest.json",
        "page": f"{BASE}/index.html",
        "thumbnail": f"{BASE}/thumbnail.jpg",
    }


NAMES = [
    "100% wool", "a%20b", "Box 1 #3", "what? now", "ünï ⅓", "a+b&c;d=1", "[x] (y)!", 'say "hi" \\ <b>',
    "{name}", "~a:b@c,d'e", "-n", "Mappe\N{NO-BREAK SPACE}1",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
async def test_a_web_server_finds_every_address_whatever_the_folder_is_called(
    tmp_path: Path, name: str
) -> None:
    """As a viewer asks: manifest, page, thumbnail, information documents, tiles; image names of the same kinds."""
    site = tmp_path / "site"
    (site / name).mkdir(parents=True)
    with serving(site) as url:
        values, rig = {"name": name}, Rig(tmp_path)
        given = {"format": "iiif-static", "tile": 256, "iiif_id": f"{url}/{{name}}/{{path}}"}
        given = placeholders.render_options(given, values, ConvertWorker())
        ctx = await rig.convert({f"{name}.jpg": jpeg(300, 200)}, **given)
        to = LoneContext(tmp_path, rig.payload, step="presentation")
        to.others["tiles"] = rig.made()
        given = {"tiles": "tiles", "base": f"{url}/{{name}}"}
        given = placeholders.render_options(given, values, IiifWorker())
        await IiifWorker().run(to, IiifOptions.model_validate(given))
        for work in (ctx.work, to.work):
            shutil.copytree(work, site / name, dirs_exist_ok=True)
        asked = set(_asked_for(to, url))
        assert len(asked) == 7
        for address in asked:
            with urlopen(address) as answer:
                assert answer.status == 200, address


def _asked_for(to: LoneContext, url: str) -> Iterator[str]:
    """Yield what a viewer of IIIF asks for, from the outputs' own addresses on."""
    for output in to.outputs:
        yield output.detail["uri"]
    with urlopen(next(o.detail["uri"] for o in to.outputs if o.detail["use"] == "manifest")) as answer:
        manifest = json.load(answer)
    yield from (picture["id"] for picture in manifest["thumbnail"])
    yield from (page["id"] for page in manifest["homepage"])
    for canvas in manifest["items"]:
        body = canvas["items"][0]["items"][0]["body"]
        service = body["service"][0]["id"]
        yield from (body["id"], canvas["thumbnail"][0]["id"], f"{service}/info.json")
        with urlopen(f"{service}/info.json") as answer:
            info = json.load(answer)
        assert info["id"] == service
        yield from (
            f"{service}/full/{size['width']},{size['height']}/0/default.jpg" for size in info["sizes"]
        )
        yield from (f"{service}/full/max/0/default.jpg", f"{service}/0,0,256,200/256,200/0/default.jpg")


async def test_images_are_in_the_order_people_count_in(show: Show) -> None:
    """2 before 10, a folder's own before those of folders in it; named if the option says so."""
    files = ["p10.tif", "p2.tif", "P1.tif", "b/p1.tif", "a/p11.tif", "a/p9.tif", "a/deep/p1.tif"]
    made = show.tiles(dict.fromkeys(files, (300, 200)))
    assert labels(await show.run(made)) == [str(n) for n in range(1, 8)]
    manifest = await show.run(made, canvas_labels="name", structures=True, behavior="paged")
    assert labels(manifest) == ["P1", "p2", "p10", "p9", "p11", "p1", "p1"]
    tops = manifest["structures"]
    assert [top["label"]["none"][0] for top in tops] == ["a", "b"]
    kinds = [(item["type"], item.get("label", {}).get("none")) for item in tops[0]["items"]]
    assert kinds == [("Canvas", None), ("Canvas", None), ("Range", ["deep"])]


async def test_ids_stay_when_an_image_comes_before(show: Show, tmp_path: Path) -> None:
    """Others may have made notes on a canvas."""
    before = await show.run(show.tiles({"p2.tif": (300, 200)}))
    made = iiif.tiles(tmp_path / "again", {"p1.tif": (300, 200), "p2.tif": (300, 200)}, BASE)
    after = await show.run(made)
    assert before["items"][0]["id"] == after["items"][1]["id"]


async def test_the_same_gives_the_same_bytes(show: Show) -> None:
    """Whatever an earlier try has left."""
    made = show.tiles({"p1.tif": (3000, 2000), "s/p2.tif": (200, 200)})
    await show.run(made, RICH)
    first = {output.path: output.sha256 for output in show.ctx.outputs}
    (show.ctx.work / "old").mkdir()
    (show.ctx.work / "old/manifest.json").write_text("{}")
    await show.run(made, RICH)
    assert {output.path: output.sha256 for output in show.ctx.outputs} == first
    assert not (show.ctx.work / "old").exists()


async def test_several_objects_have_a_manifest_each_and_a_collection(show: Show) -> None:
    """Each in a folder named like it; what belongs to none is left out, and told."""
    made = show.tiles(dict.fromkeys(["a/1.tif", "a/2.tif", "b/1.tif", "x.tif"], (300, 200)))
    one = Object(description=Description(identifier="A 1/ü", title="One"), files=("a/1.tif", "a/2.tif"))
    two = Object(description=Description(identifier="A_2", title="Two"), files=("b/1.jpg",))  # a copy of it
    none = Object(description=Description(identifier="A_3", title="Three"), files=("c.tif",))
    collection = await show.run(made, one, two, none)
    assert collection["type"] == "Collection"
    assert [item["label"]["none"] for item in collection["items"]] == [["One"], ["Two"]]
    for item, images in zip(collection["items"], (2, 1), strict=True):
        path = show.ctx.work / item["id"].removeprefix(BASE + "/")
        inner = json.loads(path.read_text())
        assert (inner["id"], len(inner["items"])) == (item["id"], images)
        assert inner["partOf"][0]["id"] == collection["id"]
        assert (path.parent / "index.html").exists()
    assert collection["items"][1]["id"] == f"{BASE}/A_2/manifest.json"
    (event,) = show.ctx.events
    assert event.outcome == "warning"
    assert "1 images of no object left out, 1 objects without images left out" in event.detail
    assert {output.detail.get("object") for output in show.ctx.outputs} == {"A 1/ü", "A_2", None}


async def test_a_thousand_images_are_no_trouble(show: Show) -> None:
    """Every one has its canvas and its place in the page."""
    made = show.tiles({f"{n}.tif": (300, 200) for n in range(1, 1001)})
    manifest = await show.run(made, RICH)
    assert labels(manifest) == [str(n) for n in range(1, 1001)]
    assert manifest["items"][999]["id"] == f"{BASE}/canvas/1000.iiif"
    assert (show.ctx.work / "index.html").read_text().count('loading="lazy"') == 1000


async def test_an_image_server_is_asked_by_its_template(show: Show, tmp_path: Path) -> None:
    """Slashes within an identifier are encoded, as Image API 3.0 section 9 wants; sizes are the outputs'."""
    data = tiff(3000, 2001)
    tree(tmp_path / "pyramids", {"s": {"ä b.tif": data}})
    output = Output(
        path="s/ä b.tif".encode(),
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        source="s/ä b.jpg".encode(),
        detail={"width": 3000, "height": 2001, "levels": 4},
    )
    made = Made(
        name="tiles",
        worker="convert",
        source="",
        root=tmp_path / "pyramids",
        outputs=lambda: iter([output]),
        locations=lambda: iter(()),
    )
    manifest = await show.run(made, service="https://img.example.org/iiif/3/{path}")
    (thumbnail,) = manifest["thumbnail"]
    assert (thumbnail["id"], thumbnail["width"]) == (f"{BASE}/thumbnail.jpg", 200)
    assert decoded(show.ctx.work / "thumbnail.jpg").shape[:2] == (thumbnail["height"], thumbnail["width"])
    assert (show.ctx.outputs[0].sha256, show.ctx.outputs[0].detail["use"]) == (
        sha256_file(show.ctx.work / "thumbnail.jpg")[0],
        "thumbnail",
    )
    (canvas,) = manifest["items"]
    body = canvas["items"][0]["items"][0]["body"]
    uri = "https://img.example.org/iiif/3/s%2F%C3%A4%20b.tif"
    assert body["service"] == [{"id": uri, "type": "ImageService3", "profile": "level2"}]
    assert (canvas["width"], canvas["height"]) == (3000, 2001)
    assert canvas["thumbnail"][0]["id"] == f"{uri}/full/375,251/0/default.jpg"
    assert "https://img.example.org" in (show.ctx.work / "index.html").read_text().split("script-src")[0]


async def test_images_are_traced_back_through_the_steps_between(show: Show) -> None:
    """Which object an image belongs to is known by the folder's own file."""
    tiles = show.tiles({"masters/x1.jp2": (300, 200), "masters/x2.jp2": (300, 200)})
    made = Made(**{**vars_of(tiles), "source": "masters"})
    between = [
        Output(path=f"masters/x{n}.jp2".encode(), size=1, sha256="2" * 64, source=f"in/{n}.tif".encode())
        for n in (1, 2)
    ]
    described = [
        Object(description=Description(identifier=str(n), title=str(n)), files=(f"in/{n}.tif",))
        for n in (2, 1)
    ]
    ctx = LoneContext(show.base, show.base / "payload", step="presentation")
    ctx.others = {
        "tiles": made,
        "masters": Made(**{**vars_of(tiles), "name": "masters", "outputs": lambda: iter(between)}),
    }
    ctx.description = Described(objects=tuple(described))
    await IiifWorker().run(ctx, IiifOptions(tiles="tiles", base=BASE, canvas_labels="name"))
    for n in (1, 2):
        manifest = json.loads((ctx.work / str(n) / "manifest.json").read_text())
        assert labels(manifest) == [str(n)]


def vars_of(made: Made) -> dict[str, Any]:
    return {
        name: getattr(made, name) for name in ("name", "worker", "source", "root", "outputs", "locations")
    }


# -- the page --------------------------------------------------------------------------------


class _Seen(html.parser.HTMLParser):
    """What a page is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>\x00\ud800<!--</title>'


async def test_nothing_of_the_metadata_becomes_markup(show: Show) -> None:
    """Neither in the page nor, by viewers that obey HTML, in the manifest."""
    hostile = Description(
        identifier=HOSTILE,
        title=HOSTILE,
        page="javascript:alert(3)",
        abstract="<img src=x onerror=alert(4)>",
        rights="<script>x</script>",
        rights_uri="javascript:alert(5)",
        publisher=HOSTILE,
        ancestors=(Level(level=HOSTILE, title=HOSTILE),),
        creators=(Named(name="<b>x</b>", role=HOSTILE),),
    )
    manifest = await show.run(show.tiles({"<script>x.tif": (300, 200)}), hostile, canvas_labels="name")
    assert manifest["summary"]["none"] == ["<span>&lt;img src=x onerror=alert(4)&gt;</span>"]
    assert [page["id"] for page in manifest["homepage"]] == [f"{BASE}/index.html"]
    seen = _Seen()
    text = (show.ctx.work / "index.html").read_bytes().decode()
    seen.feed(text)
    assert [name for name, _ in seen.tags if name == "script"] == ["script", "script"]
    assert len([name for name, _ in seen.tags if name == "img"]) == 1
    for _, attributes in seen.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes)
        assert not any((attributes.get(key) or "").startswith("javascript") for key in ("href", "src"))
    assert any("alert(2)" in words for words in seen.words)  # it is there to be read


async def test_the_page_asks_for_what_lies_beside_it_by_relative_address(show: Show) -> None:
    """So that the whole can be put elsewhere; and for nothing that is not tiles."""
    await show.run(show.tiles({"p ü.tif": (3000, 2000)}), RICH)
    seen = _Seen()
    seen.feed((show.ctx.work / "index.html").read_text())
    sources = [attributes["src"] for name, attributes in seen.tags if name == "img"]
    assert sources == ["./p%20%C3%BC.iiif/full/375,250/0/default.jpg"]
    assert not [name for name, attributes in seen.tags if name == "script" and "src" in attributes]
    (policy,) = [a["content"] for n, a in seen.tags if n == "meta" and "http-equiv" in a]
    assert policy is not None
    assert policy.startswith(
        "default-src 'none'; img-src 'self' data: https://iiif.example.org; style-src 'sha256-"
    )


async def test_no_page_when_none_is_wanted(show: Show) -> None:
    """And none is spoken of."""
    made = await show.run(show.tiles({"p.tif": (300, 200)}), page=False)
    assert "homepage" not in made
    assert sorted(path.name for path in show.ctx.work.iterdir()) == ["manifest.json", "thumbnail.jpg"]


async def test_an_unpublished_record_is_not_linked(show: Show) -> None:
    """The public would be sent to a page it may not see."""
    unpublished = RICH.model_copy(update={"published": False})
    made = await show.run(show.tiles({"p.tif": (300, 200)}), unpublished)
    assert [page["id"] for page in made["homepage"]] == [f"{BASE}/index.html"]
    assert "archives.example.org" not in (show.ctx.work / "index.html").read_text()
    assert show.ctx.events[0].outcome == "warning"
    assert "1 of records that are not published" in show.ctx.events[0].detail


# -- what cannot be shown --------------------------------------------------------------------


async def test_tiles_that_are_not_whole_are_not_shown(show: Show) -> None:
    """A size that info.json promises and no output is."""
    made = show.tiles({"p.tif": (3000, 2000)})
    outputs = [output for output in made.outputs() if b"/full/375,250/" not in output.path]
    less = Made(**{**vars_of(made), "outputs": lambda: iter(outputs)})
    with pytest.raises(
        ItemError, match=r"p\.iiif/full/375,250/0/default\.jpg: a size that info\.json promises"
    ):
        await show.run(less)


async def test_a_step_without_images_or_not_chosen_is_told(show: Show, tmp_path: Path) -> None:
    """In words that say what to do."""
    nothing = iiif.tiles(tmp_path / "none", {}, BASE)
    with pytest.raises(ItemError, match="has made no images that can be shown"):
        await show.run(nothing)
    with pytest.raises(ItemError, match="was not chosen for this folder"):
        await show.run(None)
    other = Object(description=RICH, files=("z.tif",))
    with pytest.raises(ItemError, match="none of the 1 images belongs to an object"):
        await show.run(show.tiles({"p.tif": (300, 200)}), other)


@pytest.mark.parametrize(
    "options",
    [
        {"base": "iiif.example.org"},
        {"base": "https://x/?q"},
        {"base": "https://x", "language": "deutsch sprechen"},
        {"base": "https://x", "service": "https://y/fixed"},
        {"base": "https://x", "provider": {"id": "ISIL"}},
        {"base": "https://x", "see_also": [{"id": "ftp://x"}]},
    ],
)
def test_options_that_would_make_no_manifest_are_refused(options: dict[str, Any]) -> None:
    """At check time, not when images are made."""
    with pytest.raises(ValidationError):
        IiifOptions.model_validate({"tiles": "tiles", **options})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"language": "{x"}, r'option language: "\{x" is filled in, and a language such as en'),
        (
            {"rendering": [{"id": f"{BASE}/a.pdf", "format": "{x"}]},
            r"option rendering.0.format: .*a media type",
        ),
        (
            {"see_also": [{"id": f"{BASE}/a.xml", "format": "{x"}]},
            r"option see_also.0.format: .*a media type",
        ),
    ],
)
async def test_what_a_placeholder_stands_for_and_fits_in_no_manifest_is_told(
    show: Show, options: dict[str, Any], says: str
) -> None:
    """Before anything is written, with what to do. Braces that are left when all is filled in were a name's."""
    with pytest.raises(ItemError, match=f"{says}.*Change the option, or the name"):
        await show.run(show.tiles({"p.tif": (300, 200)}), **options)
    assert not list(show.ctx.work.iterdir())


async def test_plan_names_the_files_and_where_they_will_be(show: Show) -> None:
    """Before there are any images; with what is known by then."""
    ctx = LoneContext(show.base, show.base / "payload", step="presentation")
    ctx.description = Described(objects=(Object(description=RICH),))
    options = IiifOptions(tiles="tiles", base=BASE)
    planned = [each async for each in IiifWorker().plan(ctx, options)]
    assert [(each.action, each.what) for each in planned] == [
        ("make", "manifest.json"),
        ("make", "thumbnail.jpg"),
        ("make", "index.html"),
    ]
    assert [output.detail["uri"] for output in ctx.outputs] == [each.where for each in planned]
    assert not list(ctx.work.iterdir())


def test_a_pipeline_with_tiles_and_their_presentation_can_be_configured(tmp_path: Path) -> None:
    """The names of the options are those the manual uses."""
    (tmp_path / "config.yaml").write_text("""
root: .
pipelines:
  objects:
    match: "(?P<object>.*)"
    steps:
      - convert: {name: tiles, format: iiif-static, iiif_id: "https://iiif.example.org/{object}/{path}"}
      - iiif: {name: presentation, tiles: tiles, base: "https://iiif.example.org/{object}"}
""")
    load(tmp_path / "config.yaml")


async def test_the_rules_find_what_is_wrong(show: Show) -> None:
    """Each of them, in a manifest that is otherwise right: a check that cannot fail checks nothing."""
    right = await show.run(show.tiles({"p1.tif": (300, 200), "s/p2.tif": (300, 200)}), RICH, structures=True)
    first, second = right["items"]
    painting = first["items"][0]
    wrong: list[dict[str, Any]] = [
        {"items": []},
        {"items": [{**first, "width": "300"}]},
        {"items": [{**first, "height": 0}]},
        {"items": [first, first]},
        {"items": [{**first, "id": first["id"] + "#1"}, second]},
        {
            "items": [
                {**first, "items": [{**painting, "items": [{**painting["items"][0], "target": "https://x"}]}]}
            ]
        },
        {"items": [first]},  # a range names the other one
        {"label": "x"},
        {"label": {"deutsch!": ["x"]}},
        {"rights": "https://rightsstatements.org/vocab/InC/1.0/"},
        {"summary": {"none": ["<script>x</script>"]}},
        {
            "homepage": [
                {"id": "javascript:x", "type": "Text", "label": {"none": ["x"]}, "format": "text/html"}
            ]
        },
    ]
    for each in wrong:
        with pytest.raises((jsonschema.ValidationError, AssertionError)):
            iiif.see({**right, **each})
