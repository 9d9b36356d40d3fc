"""Which members of an archive are taken, under which names: by an allow-list, within bounds, never twice."""

from __future__ import annotations

from dataclasses import dataclass, field

from dittohead.model import units
from dittohead.model.text import counted
from dittohead.system import files, folding
from dittohead.workers.unpack.broken import RefusedMember
from dittohead.workers.unpack.globs import Globs

#: Unpacked bytes from which on the ratio to the archive counts: a short text may well shrink to nothing.
_RATIO_FROM = 64 << 20

_OTHER_NAMES = "Ask who made the archive for other names"


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """How much may come out of the archives of one step."""

    members: int
    member_size: int  #: bytes of one
    size: int  #: bytes of all
    ratio: float  #: unpacked bytes for each byte of the archives


@dataclass(kw_only=True)
class Gate:
    """Lets members in, one after another, for all archives of a step."""

    prefix: bytes  #: what every name begins with, left out; b"" for nothing
    allowed: Globs  #: a name must fit one of these
    skip: bool  #: leave out what fits none, and do not fail
    keep_alike: bool  #: take names that differ only by case, or by how accents are written
    bounds: Bounds
    packed: int = 0  #: bytes of the archives
    into: bytes = b""  #: directory that the present archive's members go to, with its slash
    left_out: int = 0
    count: int = 0
    size: int = 0
    _names: dict[str, bytes] = field(default_factory=dict)

    def place(self, name: bytes, kind: str, size: int) -> bytes | None:
        """Return where below the step's directory a member goes; None for one that is left out.

        Args:
            name: as the archive gives it.
            kind: "file", "directory", or what else it is.
            size: bytes it says it has.

        Raises: RefusedMember.
        """
        path = self._path(name)
        if path is None:
            self.left_out += kind != "directory"
            return None
        if kind == "directory":
            return None
        if not path:
            raise RefusedMember("a member has no name", member=name, hint=_OTHER_NAMES)
        if kind != "file":
            hint = "Pack the files themselves: tar --dereference --hard-dereference"
            raise RefusedMember(f"a member is a {kind}", member=name, hint=hint)
        if not self.allowed.fit_path(path):
            if not self.skip:
                hint = "Add a pattern to members:, or leave such members out with unlisted: skip"
                raise RefusedMember(
                    "this member is not among those that are expected", member=name, hint=hint
                )
            self.left_out += 1
            return None
        self._bound(name, size)
        place = self.into + path
        self._once(name, place)
        return place

    def reserve(self, place: bytes) -> None:
        """Take a place for a file that is not a member. Raises: RefusedMember: another has it."""
        self._once(place, place)

    @property
    def most(self) -> int:
        """The most bytes that may come out of the archives, decrypted or unpacked."""
        return min(self.bounds.size, int(max(_RATIO_FROM, self.bounds.ratio * self.packed)))

    def grown(self, size: int, name: bytes = b"") -> None:
        """Count bytes that have come out of an archive. Raises: RefusedMember: they are too many."""
        self.size += size
        self.bear(self.size, name)

    def bear(self, size: int, name: bytes = b"") -> None:
        """See that so many bytes may come out of the archives. Raises: RefusedMember."""
        if size <= self.most:
            return
        if size > self.bounds.size:
            what = f"more than {units.size(self.bounds.size)} come out of it"
            raise RefusedMember(what, member=name, hint="If that is right, raise max_size")
        what = f"more than {self.bounds.ratio:g} times its own size comes out of it, as of a compression bomb"
        raise RefusedMember(what, member=name, hint="If that is right, raise max_ratio")

    def _path(self, name: bytes) -> bytes | None:
        """Return a member's path without the prefix; None where it lies elsewhere and may be left out."""
        path = name
        while path.startswith(b"./"):
            path = path[2:].lstrip(b"/")
        if path in (b".", b""):
            return b""
        parts = path.split(b"/")
        if path.startswith(b"/"):
            raise RefusedMember(
                "a member has an absolute name", member=name, hint="Pack it with relative names"
            )
        if b".." in parts:
            what = "a member's name leads out of the directory"
            raise RefusedMember(what, member=name, hint="Do not trust this archive; ask who made it")
        if b"" in parts[:-1] or b"." in parts or b"\0" in path:
            what = "a member's name is not one that a file can have"
            raise RefusedMember(what, member=name, hint=_OTHER_NAMES)
        if len(path) > files.MAX_PATH or len(parts) > files.MAX_DEPTH:
            what = "a member's name is too long, or nested too deeply"
            raise RefusedMember(what, member=name, hint=_OTHER_NAMES)
        return self._without_prefix(name, path)

    def _without_prefix(self, name: bytes, path: bytes) -> bytes | None:
        if self.prefix.startswith(path.rstrip(b"/") + b"/"):  # a directory above, or the one itself
            return b""
        if not path.startswith(self.prefix):
            if self.skip:
                return None
            what = f"a member does not lie in {self.prefix.decode('utf-8', 'replace')}"
            raise RefusedMember(what, member=name, hint="Correct prefix:, or ask who made the archive")
        return path[len(self.prefix) :]

    def _bound(self, name: bytes, size: int) -> None:
        self.count += 1
        if self.count > self.bounds.members:
            what = f"it has more than {counted(self.bounds.members, 'member')}"
            raise RefusedMember(what, hint="If that is right, raise max_members")
        if size > self.bounds.member_size:
            what = f"a member has {units.size(size)}, and {units.size(self.bounds.member_size)} is the most"
            raise RefusedMember(what, member=name, hint="If that is right, raise max_member")

    def _once(self, name: bytes, place: bytes) -> None:
        key = place.decode("utf-8", "surrogateescape") if self.keep_alike else folding.key(place)
        before = self._names.get(key)
        if before is None:
            self._names[key] = place
            return
        if before == place:
            what = "two members have this name"
            hint = "Keep members of several archives apart with into:, or ask who made the archive"
        else:
            shown = before.decode("utf-8", "backslashreplace")
            what = f'this member and "{shown}" are one file where capital letters or accents do not count'
            hint = "Ask who made the archive; on a file system that tells them apart, set alike: keep"
        raise RefusedMember(what, member=name, hint=hint)
