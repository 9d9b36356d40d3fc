"""What is known of the objects a folder holds: the words that records, manifests and images carry.

Filled in by a worker that describes (from ArchivesSpace, say) and read by those that write XMP, IIIF
manifests or Islandora nodes, which so know nothing of where it came from. The terms are Dublin Core's.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Part(BaseModel):
    # Facts are kept with a job for years: what a later version adds must not make them unreadable.
    model_config = ConfigDict(extra="ignore", frozen=True)


class Named(_Part):
    """A person, corporate body, subject or place."""

    name: str
    role: str = ""  #: of an agent: MARC relator code, such as "cre"
    uri: str = ""  #: of its authority record


class Dated(_Part):
    """A date or a span of dates."""

    label: str = ""  #: such as "creation"
    expression: str = ""  #: for people: "circa 1951"
    begin: str = ""  #: ISO 8601: YYYY, YYYY-MM or YYYY-MM-DD
    end: str = ""

    @property
    def words(self) -> str:
        """The date for people."""
        return self.expression or "/".join(part for part in (self.begin, self.end) if part)


class Level(_Part):
    """A level above an object."""

    level: str  #: such as "collection" or "series"
    title: str
    identifier: str = ""
    uri: str = ""  #: as at its system: "/repositories/2/resources/1"


class Description(_Part):
    """What is known of one object."""

    identifier: str  #: what people call it: an archival object's component_id
    title: str  #: plain text, without markup
    ref: str = ""  #: its record at its system: "/repositories/2/archival_objects/7"
    page: str = ""  #: URL where the public reads that record
    other_identifiers: tuple[str, ...] = ()  #: ref_id, ARK
    level: str = ""
    ancestors: tuple[Level, ...] = ()  #: the collection first, the nearest last
    dates: tuple[Dated, ...] = ()
    creators: tuple[Named, ...] = ()
    subjects: tuple[Named, ...] = ()
    languages: tuple[str, ...] = ()  #: BCP 47, or ISO 639-2 where that is all there is
    extents: tuple[str, ...] = ()
    abstract: str = ""
    rights: str = ""  #: statement for people, of the nearest level that has one
    rights_uri: str = ""  #: of a rights statement or licence
    publisher: str = ""  #: the institution
    published: bool | None = None  #: whether the public may see the record; None: nobody says


class Object(_Part):
    """An object and which of the folder's files are its own."""

    description: Description
    files: tuple[str, ...] | None = None  #: paths in the folder (surrogateescape); None: all of them


class Described(_Part):
    """What is known of a folder."""

    objects: tuple[Object, ...]

    def of(self, path: bytes) -> Object | None:
        """Return the object that a file of the folder belongs to, None when to none."""
        text = path.decode("utf-8", "surrogateescape")
        for found in self.objects:
            if found.files is None or text in found.files:
                return found
        return None

    @classmethod
    def nameless(cls, name: str) -> Described:
        """Return what is known of a folder when only its name is."""
        return cls(objects=(Object(description=Description(identifier=name, title=name)),))
