"""An Islandora 2 site over Drupal's REST resources: what it answers becomes nodes, media and terms.

Sources: Drupal core, modules rest, file and serialization (entity normalizers, EntityResource); islandora,
MediaSourceController and MediaSourceService; islandora_workbench_integration, its views and controllers.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from dittohead.model.errors import ItemError, StepError, TargetError, TransientError
from dittohead.model.text import short
from dittohead.toolkit.rest import Rest, RestAnswer
from dittohead.workers.islandora.vocabulary import FILE_FIELDS, VOCABULARIES

_JSON = {"_format": "json"}

#: Pages of a listing that are asked for at most: a View without its filter would list the whole site.
_PAGES = 1000

#: Seconds that a site may take to store a file it has been sent, and bytes a second besides: an answer
#: that is not waited for makes the next try meet one that is still at work.
_STORING_S, _STORING_RATE = 300.0, 1e6

#: The path of a media in a URL that the site gives, whose scheme, host and language may be others than ours.
_MEDIA_PATH = re.compile(r"(/media/\d+(?:/edit)?)(?:\?.*)?")

#: A listing that holds fewer is whole: Drupal's pagers have five items or more.
_LEAST_PAGE = 5

#: Views that were cut show as many rows as this, or a multiple: ten where nothing is set.
_CUT = 5

#: What to set where a listing may be cut.
SHOW_ALL = 'Let its REST export display show all items (Pager: "Display all items"), then set lists_all: true'

_HASHES = (
    "Give the user `use islandora workbench` (of islandora_workbench_integration 1.2.0 or newer; before it, "
    "`administer site configuration`), and `view own unpublished media` where media are not published"
)
_HIDDEN = "Give the user `view own unpublished media`"

#: An identifier that no node has: a View that finds something by it does not filter.
NOBODY = "dittohead-looks-whether-this-view-filters"


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node, as the site gives it."""

    nid: int
    uuid: str
    vid: int  #: its revision
    changed: str  #: when it was saved last, to the second
    created: float  #: seconds since the epoch
    title: str
    model: int | None  #: tid
    member_of: tuple[int, ...]  #: nids
    identifiers: tuple[str, ...]  #: field_local_identifier
    weight: int | None
    alias: str  #: its path for people, "/HBF_001"; "" when it has none
    uid: int | None  #: of the user whose it is
    published: bool
    raw: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Media:
    """A media, as the site gives it."""

    mid: int
    vid: int
    changed: str
    bundle: str
    name: str
    uses: tuple[int, ...]  #: tids
    uid: int | None  #: of the user who made it
    reviser: int | None  #: of the user who saved this revision
    fid: int | None
    file_uuid: str
    file_url: str  #: absolute
    created: float | None  #: seconds since the epoch; None where the site does not say
    published: bool
    alt: str | None  #: its image's words; None where it has none to have
    text: str | None  #: its extracted text for searches; None where it has no field for it

    def lies_at(self, nid: int, use: str) -> bool:
        """Tell whether its file lies where this program puts a node's file of a use."""
        folder = unquote(urlsplit(self.file_url).path).rpartition("/")[0]
        return folder.endswith(f"/{nid}/{use_word(use)}")


def use_word(use: str) -> str:
    """Return the last word of a use's URI, which names a folder: `OriginalFile`."""
    return re.split(r"[#/]", use.rstrip("#/"))[-1]


class Unknown(TargetError):
    """The site does not know the user: each further request may be a wrong password more."""


@dataclass(frozen=True, kw_only=True)
class Term:
    """A term of a vocabulary."""

    tid: int
    name: str
    vocabulary: str  #: "" where a View does not show it
    uris: frozenset[str]  #: of its authority records; none where a View does not show them


class Drupal:
    """One site, as one user.

    Args:
        lists_all: its Views show all items: what they list is believed to be all.
    """

    def __init__(self, rest: Rest, *, lists_all: bool = False) -> None:
        self.rest, self.lists_all = rest, lists_all
        self.asks_who = True  #: whether a refusal may be followed by another request, to tell its reason
        self._terms: dict[str, int | None] = {}
        self._hashes: bool | None = None  #: whether the site reports SHA-256
        self._most: dict[str, int] = {}  #: rows that a View has shown at once, by its path

    # -- terms -------------------------------------------------------------------------------

    async def term(self, uri: str) -> int | None:
        """Return the tid of the term with this external URI; None when there is none.

        Raises: TargetError: the site cannot be asked for it, or has several.
        """
        if uri not in self._terms:
            self._terms[uri] = await self._term("/term_from_uri", {"uri": uri}, uri)
        return self._terms[uri]

    async def needed(self, uris: Iterable[str]) -> dict[str, int]:
        """Return the tids of terms. Raises: TargetError: some are missing, each named."""
        found = {uri: await self.term(uri) for uri in uris}
        missing = [uri for uri, tid in found.items() if tid is None]
        if missing:
            named = ", ".join(f"{uri} ({VOCABULARIES.get(uri, 'islandora_media_use')})" for uri in missing)
            raise TargetError(
                f"the site has no term with the external URI {named}",
                where=self.rest.base,
                hint="Add it to the vocabulary named, with that URI in field_external_uri, and publish it",
            )
        return {uri: tid for uri, tid in found.items() if tid is not None}

    async def named(self, vocabulary: str, name: str) -> list[Term]:
        """Return the terms of exactly this name in a vocabulary: the site itself looks without case."""
        given = {"vocab": vocabulary, "name": unicodedata.normalize("NFC", name)}
        rows = await self._rows_of("/term_from_term_name", given)
        found = [term for term in map(_term_of, rows) if term.vocabulary in ("", vocabulary)]
        return [term for term in found if not term.name or _same(term.name, name)]

    async def authority(self, uri: str) -> list[Term]:
        """Return the terms of this authority record: people, bodies and places have another field for it."""
        for path, by in (("/term_from_authority_link", "authority_link"), ("/term_from_uri", "uri")):
            rows = await self._rows_of(path, {by: uri}, needed=path == "/term_from_uri")
            found = [term for term in map(_term_of, rows) if uri in term.uris or not term.uris]
            if found:
                return [await self._placed(term) for term in found]
        return []

    async def _placed(self, term: Term) -> Term:
        """Return a term with its vocabulary, which not every View shows."""
        if term.vocabulary:
            return term
        answer = await self.rest.send("GET", f"/taxonomy/term/{term.tid}", params=_JSON)
        return _term_of(good(answer).json())

    async def _rows_of(
        self, path: str, given: dict[str, str], *, needed: bool = True
    ) -> list[Mapping[str, Any]]:
        answer = await self.rest.send("GET", path, params={**_JSON, **given})
        if answer.status in (404, 406):
            if not needed:
                return []
            raise TargetError(
                "the site cannot look up terms",
                where=answer.where,
                hint="Enable the module islandora_workbench_integration with its views there",
            )
        if answer.status in (401, 403):
            raise await self._refused(answer)
        return _rows(good(answer))

    async def _refused(self, answer: RestAnswer) -> TargetError:
        """Return why terms cannot be looked up: a right is missing, or nobody knows the user.

        Drupal takes one with a wrong password for the public, in the words of a missing permission; each such
        request counts, and five lock the user. Source: Drupal core, basic_auth, BasicAuth::authenticate.
        """
        what = f"it answered {answer.status}{_in_words(answer)}"
        if self.asks_who and (await self._asked_hash("none")).status == 200:
            hint = "Give the user that permission: the starter site's Views ask for `administer taxonomy`"
            return TargetError(what, where=answer.where, hint=hint)
        return Unknown(
            f"the site takes the user for the public, or gives no rights: {what}",
            where=answer.where,
            hint="Correct the user's name or password, or give the user what docs/islandora.md names. Drupal "
            "says the same of both, and locks a user for 6 hours after 5 wrong passwords",
        )

    async def _term(self, path: str, given: dict[str, str], said: str) -> int | None:
        rows = [row for row in await self._rows_of(path, given) if _of_uri(row, said)]
        if len(rows) > 1:
            raise TargetError(f"the site has {len(rows)} terms for {said}", where=self.rest.base + path)
        return int(value(rows[0], "tid")) if rows else None

    # -- nodes -------------------------------------------------------------------------------

    async def node(self, nid: int) -> Node | None:
        """Return a node; None when there is none."""
        answer = await self.rest.send("GET", f"/node/{nid}", params=_JSON)
        if answer.status == 403:  # listed, and hidden: of this one alone, for the user is known by now
            raise ItemError(
                f"the user may not see node {nid}",
                where=answer.where,
                hint="Publish it, or give the user `view own unpublished content`, or `bypass node access` "
                "where it is another's",
            )
        return None if answer.status == 404 else node_of(good(answer).json())

    async def create_node(self, fields: Mapping[str, Any]) -> Node:
        """Create a node. A UUID among its fields that another node has is refused by the database.

        Raises: TransientError: it is not known whether it was created.
        """
        answer = await self.rest.send("POST", "/node", params=_JSON, json=fields)
        return node_of(good(answer, 201).json())

    async def patch_node(self, nid: int, fields: Mapping[str, Any]) -> Node:
        """Change fields of a node; the others stay."""
        answer = await self.rest.send("PATCH", f"/node/{nid}", params=_JSON, json=fields)
        return node_of(good(answer).json())

    async def find(self, view: str, by: str, wanted: str) -> tuple[list[int], bool]:
        """Return (the nids a View lists, whether these are all); it may find more than what was meant.

        Args:
            view: the View's path.
            by: its exposed filter.
            wanted: the filter's value.

        Raises: TargetError: there is no such View, or it does not filter.
        """
        hint = f"Make one with the exposed filter {by} as docs/islandora.md says"
        rows, whole = await self._listed(view, view, {by: wanted}, "nid", hint)
        return [int(value(row, "nid")) for row in rows], whole

    async def _listed(
        self, path: str, view: str, given: Mapping[str, str], key: str, hint: str
    ) -> tuple[list[Mapping[str, Any]], bool]:
        """Return (the rows of a View, whether these are known to be all).

        A REST export has no pager of its own: it shows all, or the first ten, whatever page is asked for.
        Source: Drupal core, views, RestExport: usesPager = FALSE.
        """
        found: dict[int, Mapping[str, Any]] = {}
        for page in range(_PAGES):
            answer = await self.rest.send("GET", path, params={**_JSON, **given, "page": page})
            if answer.status in (404, 406) and hint:
                raise TargetError(
                    f"the site has no REST export View at {view}", where=answer.where, hint=hint
                )
            rows = {int(value(row, key)): row for row in _rows(good(answer))}
            self._most[view] = max(self._most.get(view, 0), len(rows))
            fresh = rows.keys() - found.keys()
            found.update(rows)
            if not rows or len(rows) < _LEAST_PAGE:
                return list(found.values()), True
            if not fresh:
                turned = len(found) > len(rows)
                return list(found.values()), turned or self._all(view, len(rows))
        raise TargetError(
            f"the View lists all there is: it has no exposed filter {', '.join(given)}", where=view
        )

    def _all(self, view: str, shown: int) -> bool:
        """Tell whether a View that gives the same rows again has shown all of them."""
        return self.lists_all or shown % _CUT != 0 or shown < self._most[view]

    async def filters(self, view: str, by: str) -> None:
        """Check that a View filters. Raises: TargetError."""
        if (await self.find(view, by, NOBODY))[0]:
            raise TargetError(
                f"the View at {view} finds nodes by an identifier that none has",
                where=self.rest.base + view,
                hint=f"Expose its filter under the name {by}",
            )

    # -- media -------------------------------------------------------------------------------

    async def media_of(self, nid: int) -> tuple[list[Media], bool]:
        """Return (the media of a node, whether these are known to be all)."""
        rows, whole = await self._listed(f"/node/{nid}/media", "/node/N/media", {}, "mid", "")
        return [self._media(row) for row in rows], whole

    async def media(self, path: str) -> Media | None:
        """Return the media at a path that the site gave; None when there is none."""
        answer = await self.rest.send("GET", path, params=_JSON)
        return None if answer.status == 404 else self._media(good(answer).json())

    async def media_by_number(self, mid: int) -> tuple[str, Media] | None:
        """Return a media with its path; None when there is none.

        Where media have no pages of their own the path ends in `/edit`, and the other is not a route.
        Source: Drupal core, module media, setting standalone_url.
        """
        for path in (f"/media/{mid}", f"/media/{mid}/edit"):
            answer = await self.rest.send("GET", path, params=_JSON)
            if answer.status not in (404, 406):
                return path, self._media(good(answer).json())
        return None

    async def put_media(
        self, nid: int, bundle: str, tid: int, body: Any, headers: Mapping[str, str], *, size: int
    ) -> str:
        """Put a file where a node has none of this use yet, or in place of the one it has.

        Args:
            nid: the node's number.
            bundle: the kind of media, such as "image" or "file".
            tid: number of the term that says what the file is used for.
            body: the file's bytes, as aiohttp takes them.
            headers: with Content-Type and Content-Location, where the site puts the file.
            size: bytes of the file: a large one is given longer to be stored.

        Returns: the new media's path; "" when it was replaced.
        Raises: StepError: the site does not answer, or refuses it.
        """
        answer = await self.rest.send(
            "PUT",
            f"/node/{nid}/media/{bundle}/{tid}",
            params=_JSON,  # not for the answer: an error without it is a page of HTML, which gives no reason
            data=body,
            headers=headers,
            silent_s=_STORING_S + size / _STORING_RATE,
        )
        good(answer, 201, 204)
        return "" if answer.status == 204 else _media_path(answer)

    async def patch_media(self, path: str, fields: Mapping[str, Any]) -> Media:
        """Change fields of a media; the others stay."""
        answer = await self.rest.send("PATCH", path, params=_JSON, json=fields)
        return self._media(good(answer).json())

    async def delete(self, path: str) -> bool:
        """Delete what is at a path; return whether it was there."""
        answer = await self.rest.send("DELETE", path, params=_JSON)
        return answer.status != 404 and bool(good(answer, 204))

    def _absolute(self, url: str) -> str:
        if not url or "://" in url:
            return url
        origin = urlsplit(self.rest.base)
        return f"{origin.scheme}://{origin.netloc}/{url.lstrip('/')}"

    def _media(self, raw: Mapping[str, Any]) -> Media:
        bundle = str(value(raw, "bundle", "target_id"))
        file = _first(raw, FILE_FIELDS.get(bundle, "field_media_file"))
        return Media(
            mid=int(value(raw, "mid")),
            vid=int(value(raw, "vid")),
            changed=str(value(raw, "changed")),
            bundle=bundle,
            name=str(value(raw, "name")),
            uses=tuple(int(item["target_id"]) for item in raw.get("field_media_use", ())),
            uid=_number(_first(raw, "uid").get("target_id")),
            reviser=_number(_first(raw, "revision_user").get("target_id")),
            fid=_number(file.get("target_id")),
            file_uuid=str(file.get("target_uuid", "")),
            file_url=self._absolute(str(file.get("url", ""))),
            created=_time(raw.get("created")),
            published=bool(_first(raw, "status").get("value", True)),
            alt=None if file.get("alt") is None else str(file["alt"]),
            text=None
            if "field_edited_text" not in raw
            else str(_first(raw, "field_edited_text").get("value") or ""),
        )

    # -- files -------------------------------------------------------------------------------

    async def sha256(self, media: Media) -> tuple[str, str]:
        """Return (SHA-256 of a media's file, how it is known); ("", "") when there is no file.

        The site hashes the file when it is asked, with islandora_workbench_integration; otherwise the file is
        read back.
        """
        return await self.sha256_of(media.file_uuid, media.file_url)

    async def sha256_of(self, file_uuid: str, file_url: str) -> tuple[str, str]:
        """Return what `sha256` does, of a file known by its UUID and URL."""
        if self._hashes is not False and file_uuid:
            told = await self._told(file_uuid)
            if told:
                return told, "sha256 reported by the site"
        return await self._read_back(file_url)

    async def _told(self, file_uuid: str) -> str:
        """Return the SHA-256 that the site tells; "" when it tells none. Raises: StepError."""
        answer = await self._asked_hash(file_uuid)
        told = _told(answer)
        if told is not None:
            self._hashes = True
            return told
        if answer.status == 403 and self._hashes is None:  # no file of that UUID: only the right is asked for
            self._hashes = (await self._asked_hash("none")).status == 200
        if answer.status == 404:
            self._hashes = False
        elif answer.status not in (200, 403):
            good(answer)
        return ""

    async def _asked_hash(self, file_uuid: str) -> RestAnswer:
        given = {"file_uuid": file_uuid, "algorithm": "sha256"}
        return await self.rest.send("GET", "/islandora_workbench_integration/file_hash", params=given)

    async def _read_back(self, url: str) -> tuple[str, str]:
        """Read a file as the public would: Drupal refuses credentials where files are given out.

        Source: Drupal core, AuthenticationSubscriber: a Basic header on a route without basic_auth is 403.
        """
        if not url:
            return "", ""
        digest = hashlib.sha256()
        answer = await self.rest.send("GET", url, anonymous=True, sink=digest.update)
        if answer.status == 404:
            return "", ""
        if answer.status in (401, 403):
            raise TargetError(
                f"the public may not read this file (it answered {answer.status}), and the site does not "
                "tell its SHA-256",
                where=answer.where,
                hint=_HASHES if self._hashes is not True else _HIDDEN,
            )
        good(answer)
        return digest.hexdigest(), "read back"

    async def public(self, url: str) -> bool:
        """Tell whether the public can fetch a URL. Raises: StepError: the site does not answer."""
        try:
            answer = await self.rest.send("GET", url, anonymous=True, sink=lambda _: None)
        except StepError:
            if url.startswith(self.rest.base + "/"):
                raise
            return False  # an inner host, or a name of the site's that leads nowhere
        return answer.status == 200

    def page_of(self, node: Node) -> str:
        """Return the URL where people look at a node."""
        return self.rest.base + (quote(node.alias, safe="/-._~%") if node.alias else f"/node/{node.nid}")


def good(answer: RestAnswer, *expected: int) -> RestAnswer:
    """Return an answer if it is the one expected (200 where none is named). Raises: StepError."""
    if answer.status in (expected or (200,)):
        return answer
    said = ""
    with contextlib.suppress(StepError, AttributeError):
        said = str(answer.json().get("message", ""))
    if answer.status in (405, 406, 415):
        raise TargetError(
            f"it answered {answer.status} ({short(said)})",
            where=answer.where,
            hint="Enable this REST resource, with json and basic_auth: dittohead doctor says which",
        )
    raise answer.fault(said)


def _in_words(answer: RestAnswer) -> str:
    with contextlib.suppress(StepError, AttributeError):
        return f" ({short(str(answer.json().get('message', ''))).rstrip('.')})"
    return ""


def _term_of(raw: Mapping[str, Any]) -> Term:
    return Term(
        tid=int(value(raw, "tid")),
        name=str(value(raw, "name")) if "name" in raw else "",
        vocabulary=str(_first(raw, "vid").get("target_id", "")) if isinstance(raw.get("vid"), list) else "",
        uris=frozenset(_uris(raw)),
    )


def _uris(raw: Mapping[str, Any]) -> list[str]:
    fields = [raw.get(name) or () for name in ("field_external_uri", "field_authority_link")]
    return [
        str(item["uri"]) for items in fields if isinstance(items, list) for item in items if item.get("uri")
    ]


def _of_uri(raw: Mapping[str, Any], uri: str) -> bool:
    """Tell whether a row is of the term that was asked for: a collation may find others."""
    uris = _uris(raw)
    return not uris or uri in uris


def _same(one: str, other: str) -> bool:
    return unicodedata.normalize("NFC", one) == unicodedata.normalize("NFC", other)


def _media_path(answer: RestAnswer) -> str:
    url = answer.headers.get("Location", "")
    match = _MEDIA_PATH.fullmatch(url[max(url.rfind("/media/"), 0) :])
    if match is None:
        raise TransientError(f"it gave no media's URL ({short(url) or 'none'})", where=answer.where)
    return match[1]


def node_of(raw: Mapping[str, Any]) -> Node:
    """Return a node from its JSON. Raises: TransientError: it is none."""
    try:
        return Node(
            nid=int(value(raw, "nid")),
            uuid=str(value(raw, "uuid")),
            vid=int(value(raw, "vid")),
            changed=str(value(raw, "changed")),
            created=datetime.fromisoformat(str(value(raw, "created"))).timestamp(),
            title=str(value(raw, "title")),
            model=_number(_first(raw, "field_model").get("target_id")),
            member_of=tuple(int(item["target_id"]) for item in raw.get("field_member_of", ())),
            identifiers=tuple(str(item["value"]) for item in raw.get("field_local_identifier", ())),
            weight=_number(_first(raw, "field_weight").get("value")),
            alias=str(_first(raw, "path").get("alias") or ""),
            uid=_number(_first(raw, "uid").get("target_id")),
            published=bool(_first(raw, "status").get("value", True)),
            raw=raw,
        )
    except (KeyError, ValueError, TypeError) as error:
        raise TransientError(f"what it answered is not a node ({error!r})") from error


def value(raw: Mapping[str, Any], name: str, key: str = "value") -> Any:
    """Return the first value of a field: `[{"value": 5}]`, or plain as in a View.

    Args:
        raw: a node, a media or a row, as JSON.
        name: the field's name.
        key: the part of the value that is asked for, such as "target_id".

    Returns: "" for a field that is empty.
    Raises: KeyError: there is no such field, or no such part.
    """
    found = raw[name]
    if isinstance(found, list):
        return found[0][key] if found else ""
    return found


def _first(raw: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    items = raw.get(name) or [{}]
    return items[0] if isinstance(items[0], dict) else {}


def _time(given: Any) -> float | None:
    """Return a field's time in seconds since the epoch; None when it is none."""
    with contextlib.suppress(KeyError, ValueError, TypeError, IndexError):
        return datetime.fromisoformat(str(given[0]["value"])).timestamp()
    return None


def _number(given: Any) -> int | None:
    return None if given in (None, "") else int(given)


def _rows(answer: RestAnswer) -> list[Mapping[str, Any]]:
    rows = answer.json()
    if not isinstance(rows, list):
        raise ItemError("what it answered is not a list", where=answer.where, hint="Is it a REST export?")
    return rows


def _told(answer: RestAnswer) -> str | None:
    """Return the hash an answer holds; None when it holds none (errors are answered with 200 too)."""
    if answer.status != 200:
        return None
    with contextlib.suppress(StepError, KeyError, IndexError, TypeError):
        told = answer.json()[0]["checksum"]
        return told if isinstance(told, str) and len(told) == 64 else None
    return None
