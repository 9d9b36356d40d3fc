"""Write one version of one object: made in the work directory, made durable, then renamed into its place.

New object:   # 1 make all of it  2 sync  3 rename it, with the directories it lies in  4 fsync the parent
New version:  # 1 make vN and the object's new inventory  2 sync  3 rename vN  4 fsync the object
              # 5 rename the inventory  6 rename its digest  7 fsync the object

A crash between 3 and 7 leaves a complete vN that the object's inventory does not have yet, or a digest that
is not the inventory's. The next write of the object ends what was begun. Source: OCFL 1.1, 3 and 3.7.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from dittohead.contract.worker import Inputs
from dittohead.model.errors import ChangedError, ItemError, TransientError
from dittohead.model.records import Entry
from dittohead.model.text import counted, display, utcnow
from dittohead.system import fail_points, files, folding
from dittohead.system.threads import Stop
from dittohead.toolkit.faulty_files import FaultyFiles
from dittohead.toolkit.ocfl import check, digests, inventory
from dittohead.toolkit.ocfl.check import ObjectCheck
from dittohead.toolkit.ocfl.findings import OcflFindings
from dittohead.toolkit.ocfl.inventory import Inventory
from dittohead.toolkit.ocfl.layouts import NoPlace
from dittohead.toolkit.ocfl.storage_root import Hold, StorageRoot, key_of, taken
from dittohead.workers.ocfl.options import OcflOptions

#: What a file system says of a name that it cannot hold, or cannot tell from one that is there: the file is
#: then named by its digest.
_NO_NAME = frozenset(
    {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EEXIST, errno.EISDIR, errno.ENOTDIR}
)
_EXISTS = frozenset({errno.EEXIST, errno.ENOTEMPTY})

#: Tries to place an object while others make the directories that it lies in.
_TRIES = 100


@dataclass(kw_only=True)
class Tally:
    """What a write came to."""

    files: int = 0
    size: int = 0  #: bytes of all files
    stored: int = 0  #: files whose content the object did not have
    empty: int = 0  #: empty folders, which an object cannot hold


@dataclass(kw_only=True)
class Draft:
    """The version that is being made."""

    version: str
    algorithm: str
    manifest: dict[str, list[str]] = field(default_factory=dict)
    state: dict[str, list[str]] = field(default_factory=dict)
    fixity: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)  #: the manifest's own digest, by it in lower case
    by_sha256: dict[str, str] = field(default_factory=dict)  #: the digest, of content that was met
    sizes: set[int] = field(default_factory=set)  #: of content that the object has

    def known(self, digest: str) -> bool:
        """Tell whether the object has this content already."""
        return digest in self.keys

    def take(self, digest: str, logical: str) -> None:
        """Let a logical path stand for content that the object has."""
        self.state.setdefault(self.keys[digest], []).append(logical)

    def same_as(self, before: Inventory) -> bool:
        """Tell whether the head of an inventory has the same files with the same content."""
        ours = {path: digest.lower() for digest, paths in self.state.items() for path in paths}
        return ours == {path: digest.lower() for path, digest in before.state(before.head).items()}


class Write:
    """One write of one object. Blocking; its methods are called in threads, one after the other.

    Args:
        root: the storage root.
        options: with their placeholders filled in.
        source: what becomes the version.
        job_id: for the message, and for what people are told to type.
    """

    def __init__(self, root: StorageRoot, options: OcflOptions, source: Inputs, job_id: str) -> None:
        self._root, self._options, self._source, self._job_id = root, options, source, job_id
        self.id = options.id
        self.object = _place(root, self.id)
        self.tally = Tally()
        self.before: Inventory | None = None  #: what the object was
        self.after: Inventory | None = None  #: what it will be; None where it stays as it is
        self.content: dict[str, str] = {}  #: content path by logical path, once it is read back
        self.progress: Callable[[int], None] = lambda size: None  #: told the bytes of each block that is read
        self._hold: Hold | None = None
        self._lifted: list[bytes] = []  #: the directories that a new object is put into while it is made
        self._stop = Stop()

    @property
    def is_new(self) -> bool:
        """Whether something is to be published."""
        return self.after is not None

    @property
    def head(self) -> Inventory:
        """The inventory as it is after the write."""
        found = self.after or self.before
        assert found is not None  # noqa: S101  # `build` has set one of them
        return found

    # -- making ------------------------------------------------------------------------------

    def build(self, stop: Stop) -> None:
        """Hold the object, end what a crash left, and make the version in the work directory; durable.

        Raises: ItemError, OSError, Stopped.
        """
        self._stop = stop
        self._hold = taken(self._root.path, key_of(self.id), stop.check)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._build)
        os.mkdir(self._build)
        self.before = self._found()
        draft = self._draft()
        os.makedirs(os.path.join(self._tree, draft.version.encode()))
        self._copy(draft)
        if self.before is not None and draft.same_as(self.before):
            return
        self.after = self._inventory(draft)
        self._write_inventory(self.after)
        if self.before is None:
            self._lift(_there(self._root.path, self._parts)[1])
        fail_points.point("ocfl.built")
        self._sync()
        fail_points.point("ocfl.durable")

    @property
    def _build(self) -> bytes:
        assert self._hold is not None  # noqa: S101  # `build` comes first
        return self._hold.build

    @property
    def _tree(self) -> bytes:
        """The object as it is being made: all of it, or the new version and the new inventory."""
        return os.path.join(self._build, b"object")

    def _sync(self) -> None:
        # One call for all files: an fsync for each costs more than the writing.
        files.sync_filesystem(self._build)
        self._stop.check()

    def _draft(self) -> Draft:
        if self.before is None:
            return Draft(version="v1", algorithm=self._options.digest)
        before, version = self.before, self.before.next_version()
        if not version:
            raise ItemError(
                f"the names of this object's versions have no room for one after {before.head}",
                where=display(self.object),
                hint="Store the folder under another id",
            )
        draft = Draft(version=version, algorithm=before.algorithm)
        draft.manifest = {digest: list(paths) for digest, paths in before.manifest.items()}
        draft.keys = {digest.lower(): digest for digest in before.manifest}
        draft.fixity = {
            name: {digest.lower(): list(paths) for digest, paths in block.items()}
            for name, block in before.fixity.items()
        }
        for path, _ in before.paths():
            draft.sizes.add(os.lstat(os.path.join(self.object, os.fsencode(path))).st_size)
        return draft

    def _copy(self, draft: Draft) -> None:
        """Copy what the object does not have. Raises: ItemError: a name, or a file that changed."""
        names = self._names()
        for entry in self._source.entries():
            self._stop.check()
            if entry.is_dir:
                self.tally.empty += 1
                continue
            self.tally.files += 1
            self.tally.size += entry.size
            logical = entry.path.decode()
            digest = self._had(draft, entry) or self._stored(draft, entry, names)
            draft.by_sha256[entry.sha256] = digest
            draft.take(digest, logical)

    def _names(self) -> dict[bytes, bytes]:
        """Return other names for files and folders whose names are one name on some file systems.

        Raises: ItemError: names that are not text.
        """
        faulty, alike = FaultyFiles(), folding.Alike()
        for entry in self._source.entries():
            self._stop.check()
            alike.add(entry)
            if not _is_text(entry.path):
                faulty.add(entry.path, "its name is not UTF-8, which an inventory must be")
        if faulty.count:
            raise ItemError(
                str(faulty),
                where=display(os.fsencode(self._source.root)),
                hint="Rename them; or pack the folder first (pack, bag), and store the archive",
            )
        found: dict[bytes, bytes] = {}
        for group in alike.groups(self._source.entries()):
            for number, path in enumerate(group[1:], 2):
                found[path] = path + b"~%d" % number
        return found

    def _had(self, draft: Draft, entry: Entry) -> str:
        """Return the digest of a file whose content the object has; "" where it has not, or may not have."""
        digest = draft.by_sha256.get(entry.sha256, "")
        if not digest and draft.algorithm == "sha256":
            digest = entry.sha256
        elif not digest and entry.size in draft.sizes:
            with files.opened_beneath(self._source.root, entry.path) as fd:
                found = digests.of_file(fd, {"sha256", draft.algorithm}, self._read)
            self._see_unchanged(entry, found)
            digest = found[draft.algorithm]
        return digest if draft.known(digest) else ""

    def _read(self, block: memoryview) -> None:
        self._stop.check()
        self.progress(len(block))

    def _see_unchanged(self, entry: Entry, found: dict[str, str]) -> None:
        if found["sha256"] != entry.sha256:
            raise ChangedError(
                "this file changed since the folder was claimed; nothing was stored",
                where=display(entry.path),
                hint=f"Run the folder again: dittohead rerun {self._job_id}",
            )

    def _stored(self, draft: Draft, entry: Entry, names: dict[bytes, bytes]) -> str:
        """Copy a file and compare it with its digest in one read; return its digest in the object."""
        wanted = {"sha256", draft.algorithm, *self._options.fixity}
        incoming = os.path.join(self._build, b"incoming")
        with files.opened_beneath(self._source.root, entry.path) as fd, open(incoming, "wb", 0) as out:

            def write(block: memoryview) -> None:
                self._read(block)
                _write_all(out.fileno(), block)

            found = digests.of_file(fd, wanted, write)
        self._see_unchanged(entry, found)
        digest = found[draft.algorithm]
        if draft.known(digest):
            os.unlink(incoming)
            return digest
        path = self._placed(draft, incoming, _renamed(entry.path, names), digest)
        draft.keys[digest] = digest
        draft.manifest[digest] = [path]
        for algorithm in self._options.fixity:
            if algorithm != draft.algorithm:
                draft.fixity.setdefault(algorithm, {}).setdefault(found[algorithm], []).append(path)
        self.tally.stored += 1
        return digest

    def _placed(self, draft: Draft, incoming: bytes, name: bytes, digest: str) -> str:
        """Give a file its place among the version's content; return its content path."""
        content = (self.before.content if self.before else "content").encode()
        front = os.path.join(draft.version.encode(), content)
        path = os.path.join(front, name)
        try:
            self._put(incoming, path)
        except OSError as error:
            if error.errno not in _NO_NAME:
                raise
            path = os.path.join(front, digest.encode())
            self._put(incoming, path)
        return os.fsdecode(path)

    def _put(self, incoming: bytes, path: bytes) -> None:
        place = os.path.join(self._tree, path)
        os.makedirs(os.path.dirname(place), exist_ok=True)
        files.rename_noreplace(incoming, place)

    # -- inventories -------------------------------------------------------------------------

    def _inventory(self, draft: Draft) -> Inventory:
        user = {"name": self._options.user.name}
        if self._options.user.address is not None:
            user["address"] = self._options.user.address
        version = {
            "created": utcnow().isoformat(timespec="seconds").replace("+00:00", "Z"),
            "message": self._options.message or f"Stored by dittohead, job {self._job_id}",
            "user": user,
            "state": draft.state,
        }
        before = self.before
        return Inventory(
            id=self.id,
            spec=before.spec if before else inventory.SPEC,
            algorithm=draft.algorithm,
            head=draft.version,
            content_directory=before.content_directory if before else None,
            manifest=draft.manifest,
            versions={**(before.versions if before else {}), draft.version: version},
            fixity=draft.fixity,
        )

    def _write_inventory(self, made: Inventory) -> None:
        """Write the inventory and its digest for the version and for the object."""
        data = made.dump()
        digest = f"{digests.of_data(made.algorithm, data)} {inventory.FILE}\n".encode()
        for folder in (self._tree, os.path.join(self._tree, made.head.encode())):
            _write(os.path.join(folder, inventory.FILE.encode()), data)
            _write(os.path.join(folder, inventory.sidecar(made.algorithm).encode()), digest)
        if self.before is None:
            name = f"ocfl_object_{made.spec}"
            _write(os.path.join(self._tree, f"0={name}".encode()), f"{name}\n".encode())

    # -- what is there -----------------------------------------------------------------------

    def _found(self) -> Inventory | None:
        """Return the inventory of the object that is there, after the end of what a crash left.

        Raises: ItemError: what lies there is not a valid object, or another one.
        """
        try:
            names = [os.fsdecode(name) for name in os.listdir(self.object)]
        except FileNotFoundError:
            return None
        except NotADirectoryError as error:
            raise self._refused("a file lies where the object's directory would be") from error
        if not names:  # from a rename that was cut off where the file system cannot do it in one step
            os.rmdir(self.object)
            return None
        if not check.is_object(names):
            raise self._refused("what lies there is not an OCFL object")
        self._finish(names)
        found = ObjectCheck(self.object, on_block=lambda size: self._stop.check())
        made = found.run(())
        if made is None or found.findings.errors:
            raise self._refused(f"the object that lies there is not valid: {found.findings.summary()}")
        if made.id != self.id:
            raise self._refused(f'another object, "{made.id}", lies at this place')
        return made

    def _refused(self, what: str) -> ItemError:
        return ItemError(
            f"{what}; nothing was changed",
            where=display(self.object),
            hint=f"Look at it: `dittohead ocfl verify {self._options.root}`; then: "
            f"`dittohead retry {self._job_id}`",
        )

    def _finish(self, names: list[str]) -> None:
        """End a write that a crash has cut off after its version was placed."""
        latest = max(names, key=inventory.number_of)
        if not inventory.number_of(latest):
            return
        old, is_sound = _read_pair(self.object)
        if old is None or (old.head == latest and is_sound):
            return
        folder = os.path.join(self.object, latest.encode())
        if not os.listdir(folder):
            os.rmdir(folder)  # likewise from a rename that was cut off
            return
        new, is_whole = _read_pair(folder)
        follows = new is not None and (old.head == latest or inventory.following(old.head) == latest)
        if new is None or not is_whole or not follows or not self._is_complete(new, latest):
            return  # not of our making: the check says what is wrong with it
        for name in (inventory.FILE, inventory.sidecar(new.algorithm)):
            shutil.copyfile(os.path.join(folder, name.encode()), os.path.join(self._build, name.encode()))
        self._sync()
        self._put_inventory(self._build, new.algorithm)

    def _is_complete(self, new: Inventory, version: str) -> bool:
        if new.id != self.id or new.head != version:
            return False
        for path, digest in new.paths():
            if path.startswith(f"{version}/"):
                try:
                    with files.opened_beneath(self.object, os.fsencode(path)) as fd:
                        found = digests.of_file(fd, {new.algorithm}, lambda block: self._stop.check())
                except (FileNotFoundError, ItemError):
                    return False
                if found[new.algorithm] != digest.lower():
                    return False
        return True

    # -- publishing --------------------------------------------------------------------------

    def publish(self, stop: Stop) -> None:
        """Give what was made its place, durably. Raises: ItemError, OSError, Stopped."""
        stop.check()
        self._stop = stop
        if self.after is None:
            return
        if self.before is None:
            self._place_object()
        else:
            version = self.after.head.encode()
            files.rename_noreplace(os.path.join(self._tree, version), os.path.join(self.object, version))
            fail_points.point("ocfl.placed")
            files.fsync_dir(self.object)
            self._put_inventory(self._tree, self.after.algorithm)
        fail_points.point("ocfl.published")

    def _put_inventory(self, folder: bytes, algorithm: str) -> None:
        """Let the object's inventory and its digest be those that lie durably in a directory."""
        file, sidecar = inventory.FILE.encode(), inventory.sidecar(algorithm).encode()
        os.rename(os.path.join(folder, file), os.path.join(self.object, file))
        fail_points.point("ocfl.inventory")
        os.rename(os.path.join(folder, sidecar), os.path.join(self.object, sidecar))
        fail_points.point("ocfl.sidecar")
        files.fsync_dir(self.object)

    def _place_object(self) -> None:
        """Rename the object into its place together with the directories that are missing above it.

        So there never is an empty directory, which a storage root may not have (E073).
        """
        for _ in range(_TRIES):
            base, missing = _there(self._root.path, self._parts)
            if missing != self._lifted:  # others have made some of the directories meanwhile
                self._lift(missing)
                self._sync()
            try:
                files.rename_noreplace(self._top, os.path.join(base, missing[0]))
            except OSError as error:
                if error.errno not in _EXISTS:
                    raise
                if len(missing) == 1:
                    raise self._refused("something else has come to lie there meanwhile") from error
                continue
            fail_points.point("ocfl.placed")
            files.fsync_dir(base)
            return
        raise TransientError("others are writing at the same place all the time", where=display(self.object))

    @property
    def _parts(self) -> list[bytes]:
        """The names of the directories from the storage root to the object."""
        return os.path.relpath(self.object, self._root.path).split(b"/")

    @property
    def _top(self) -> bytes:
        """What is renamed into the storage root: the object, or the outermost directory that it lies in."""
        return os.path.join(self._build, b"lift", self._lifted[0])

    def _lift(self, missing: list[bytes]) -> None:
        """Put the object into as many directories as are missing in the storage root."""
        lift, now = os.path.join(self._build, b"lift"), self._tree
        if self._lifted:
            os.rename(os.path.join(lift, *self._lifted), now)
            shutil.rmtree(lift)
        os.makedirs(os.path.join(lift, *missing[:-1]))
        os.rename(now, os.path.join(lift, *missing))
        self._lifted = missing

    # -- reading back ------------------------------------------------------------------------

    def read_back(self, stop: Stop) -> OcflFindings:
        """Check the object as it lies there, and the digests of all files of its head.

        Returns: what a valid object should not have either.
        Raises: TransientError: it is not valid; OSError, Stopped.
        """
        head = self.head
        content = {path: head.manifest[digest][0] for path, digest in head.state(head.head).items()}
        found = ObjectCheck(self.object, on_block=lambda size: stop.check())
        there = found.run(set(content.values()))
        if there is None or found.findings.errors or there.head != head.head:
            raise TransientError(
                f"the object is not valid after it was stored: {found.findings.summary()}",
                where=display(self.object),
                hint="Look at the target's disk and network",
            )
        self.content = content
        return found.findings

    def close(self) -> None:
        """Remove what was being made, and let others write the object."""
        if self._hold is not None:
            self._hold.close()


def _place(root: StorageRoot, id_: str) -> bytes:
    try:
        id_.encode()
        return root.object(id_)
    except (NoPlace, UnicodeEncodeError) as error:
        reason = error if isinstance(error, NoPlace) else "it is not text"
        raise ItemError(
            f'the object\'s id "{id_}" has no place in this storage root ({root.layout.name}): {reason}',
            where=display(root.path),
            hint="Give another id in the step's options, or rename the folder; "
            "layouts 0003 and 0004 take any id",
        ) from error


def _read_pair(folder: bytes) -> tuple[Inventory | None, bool]:
    """Return the inventory in a directory, and whether its digest beside it is right."""
    try:
        with (
            files.opened_beneath(folder, inventory.FILE.encode()) as fd,
            open(fd, "rb", closefd=False) as file,
        ):
            data = file.read()
        findings = OcflFindings()
        found = inventory.read(data, findings)
        if found is None or findings.errors or not found.algorithm:
            return None, False
        sidecar = os.path.join(folder, inventory.sidecar(found.algorithm).encode())
        said = check.in_sidecar(Path(os.fsdecode(sidecar)).read_bytes())
    except (FileNotFoundError, ItemError):
        return None, False
    return found, said == digests.of_data(found.algorithm, data)


def _there(root: bytes, parts: list[bytes]) -> tuple[bytes, list[bytes]]:
    """Return the deepest directory above an object that is there, and the parts of its path below that."""
    for number, part in enumerate(parts[:-1]):
        inner = os.path.join(root, part)
        if not os.path.isdir(inner):
            return root, parts[number:]
        root = inner
    return root, parts[-1:]


def _renamed(path: bytes, names: dict[bytes, bytes]) -> bytes:
    """Return a path in which a folder, or the file, that has another name has that."""
    head, rest = path, b""
    while names and head:
        if head in names:
            return names[head] + rest
        head, slash, name = head.rpartition(b"/")
        rest = slash + name + rest
    return path


def _is_text(path: bytes) -> bool:
    try:
        path.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _write(path: bytes, data: bytes) -> None:
    with open(path, "xb") as file:
        file.write(data)


def _write_all(fd: int, block: memoryview) -> None:
    while block:
        block = block[os.write(fd, block) :]


def words(tally: Tally, version: str, *, is_new: bool) -> str:
    """Return what a write came to, for people."""
    if not is_new:
        return f"{version} has the same files already: {counted(tally.files, 'file')}; no new version"
    had = tally.files - tally.stored
    more = f", {counted(had, 'file')} of which the object had already" if had else ""
    return f"{version}: {counted(tally.files, 'file')}, {tally.size:,} bytes{more}"
