"""Check an object, or a whole storage root: is it valid, and everything that is wrong. Source: OCFL 1.1."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dittohead.model.errors import ItemError
from dittohead.model.text import display
from dittohead.system import files
from dittohead.toolkit.ocfl import digests, inventory, layouts
from dittohead.toolkit.ocfl.findings import OcflFindings
from dittohead.toolkit.ocfl.inventory import Inventory
from dittohead.toolkit.ocfl.layouts import StorageLayout

#: The registered names of extensions. Source: https://ocfl.github.io/extensions/.
REGISTERED = frozenset(
    {
        *layouts.NAMES.values(),
        "0001-digest-algorithms",
        "0005-mutable-head",
        "0008-schema-registry",
        "0009-digest-algorithms",
        "0010-differential-n-tuple-omit-prefix-storage-layout",
        "0011-direct-clean-path-layout",
        "0012-hash-and-no-prefix-id-n-tuple-storage-layout",
        "initial",
    }
)

#: Larger than any inventory that could be read into memory.
_LARGEST = 2 << 30
_SIDECAR = re.compile(rb"([0-9A-Fa-f]+)[ \t]+inventory\.json\s*")

_OBJECT = "0=ocfl_object_"
_ROOT = "0=ocfl_"

#: Told the content path and its digests by algorithm.
OnFile = Callable[[str, dict[str, str]], None]


@dataclass(kw_only=True)
class Tree:
    """What lies in an object's directory."""

    files: dict[str, int] = field(default_factory=dict)  #: path -> bytes
    folders: set[str] = field(default_factory=set)  #: those that hold something
    empty: list[str] = field(default_factory=list)

    def top(self) -> tuple[set[str], set[str]]:
        """Return the names of files and of directories directly in it."""
        names = {path for path in self.files if "/" not in path}
        return names, {path for path in (*self.folders, *self.empty) if "/" not in path}

    @cached_property
    def by_folder(self) -> Mapping[str, list[str]]:
        """The paths of all files by the two first elements of their paths, and by the first alone."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for path in self.files:
            first, _, rest = path.partition("/")
            found[first].append(path)
            if "/" in rest:
                found[f"{first}/{rest.partition('/')[0]}"].append(path)
        return found

    def inside(self, folder: str) -> Sequence[str]:
        """Return the paths of all files below a directory, which is a version's or its content's."""
        return [path for path in self.by_folder.get(folder, ()) if path != folder]


class ObjectCheck:
    """One check of one object. Blocking.

    Args:
        root: the object's directory.
        on_block: called for each piece of content that is read; may raise to stop.
        also: algorithms whose digests `on_file` gets besides those that the object has.
        on_file: called for each content file that was read.
    """

    def __init__(
        self,
        root: bytes | Path,
        *,
        on_block: Callable[[int], None] = lambda size: None,
        also: Collection[str] = (),
        on_file: OnFile = lambda path, found: None,
    ) -> None:
        self._root = os.fsencode(root)
        self._on_block, self._also, self._on_file = on_block, set(also), on_file
        self.findings = OcflFindings()
        self.tree = Tree()
        self.inventory: Inventory | None = None
        self.spec = ""  #: the version of the specification that the object declares
        self._data: dict[str, bytes] = {}  # of inventories, by the directory that they lie in
        self._expected: defaultdict[str, set[tuple[str, str, str]]] = defaultdict(set)

    def run(self, content: Collection[str] | None = None) -> Inventory | None:
        """Check the object; what is wrong is in the findings, never raised.

        Args:
            content: content paths whose digests are compared; None for all of them.

        Returns: the inventory, where it could be read.
        Raises: OSError: the disk; what `on_block` raises.
        """
        self._walk()
        self._declaration()
        self._top()
        self.inventory = self._inventory("")
        if self.inventory is not None:
            self._check_type(self.inventory)
            self._version_folders(self.inventory)
            self._version_inventories(self.inventory)
            self._check_files(self.inventory)
            self._compare(content)
        return self.inventory

    def _add(self, code: str, where: str, what: str) -> None:
        self.findings.add(code, where, what)

    # -- what lies there ---------------------------------------------------------------------

    def _walk(self) -> None:
        try:
            for item in files.walk(self._root, directories=True):
                self._on_block(0)
                path = _text(item.path)
                if stat.S_ISREG(item.status.st_mode):
                    self.tree.files[path] = item.status.st_size
                elif item.is_empty_dir:
                    self.tree.empty.append(path)
                elif stat.S_ISDIR(item.status.st_mode):
                    self.tree.folders.add(path)
                else:
                    self._add("E090", path, f"it is a {item.kind}")
        except ItemError as error:
            self._add("E001", error.where, error.what)

    def _read(self, path: str) -> bytes:
        with files.opened_beneath(self._root, os.fsencode(path)) as fd, open(fd, "rb", closefd=False) as file:
            return file.read(_LARGEST)

    def _declaration(self) -> None:
        found = sorted(name for name in self.tree.top()[0] if name.startswith(_OBJECT))
        if len(found) != 1:
            what = f"there are {len(found)}" if found else "it is not there"
            self._add("E003", f"{_OBJECT}{inventory.SPEC}", f"{what}: one says that this is an OCFL object")
            return
        spec = found[0].removeprefix(_OBJECT)
        if spec not in inventory.SPECS:
            self._add("E004", found[0], f"this version is unknown; known are {', '.join(inventory.SPECS)}")
        self.spec = spec
        if self._read(found[0]) != f"ocfl_object_{spec}\n".encode():
            self._add("E007", found[0], "its content is not what its name says, and a line feed")

    def _top(self) -> None:
        names, folders = self.tree.top()
        for name in sorted(names):
            is_sidecar = name in map(inventory.sidecar, digests.MAIN)
            if not is_sidecar and not name.startswith(_OBJECT) and name != inventory.FILE:
                self._add("E001", name, "this file has no place in an object")
        for name in sorted(folders):
            if not inventory.number_of(name) and name not in ("logs", "extensions"):
                self._add("E001", name, "this directory has no place in an object")
        for path in sorted(path for path in self.tree.files if path.startswith("extensions/")):
            if path.count("/") == 1:
                self._add("E067", path, "only directories of extensions may lie there")
        for name in sorted(_children(self.tree, "extensions")):
            if name not in REGISTERED:
                self._add("W013", f"extensions/{name}", "this extension is not registered")

    # -- inventories -------------------------------------------------------------------------

    def _inventory(self, folder: str) -> Inventory | None:
        """Read one inventory and its side-car; `folder` is "" or ends with a slash."""
        path = f"{folder}{inventory.FILE}"
        if path not in self.tree.files:
            if not folder:
                self._add("E063", path, "it is not there")
            return None
        data = self._data[folder] = self._read(path)
        found = inventory.read(data, self.findings, folder)
        if found is None:
            return None
        if found.algorithm:
            self._sidecar(folder, data, found.algorithm)
        prefixes = {f"{name}/{found.content}/" for name in found.versions}
        for content, digest in found.paths():
            if not any(content.startswith(prefix) for prefix in _fronts(content, prefixes)):
                self._add("E042", path, f"the content path {content} is in no version's content directory")
            self._expected[content].add((found.algorithm, digest.lower(), "E092"))
        for algorithm, block in found.fixity.items():
            for digest, paths in block.items():
                for content in paths:
                    self._expected[content].add((algorithm, digest.lower(), "E093"))
        return found

    def _sidecar(self, folder: str, data: bytes, algorithm: str) -> None:
        path = f"{folder}{inventory.sidecar(algorithm)}"
        if path not in self.tree.files:
            self._add("E058", path, "it is not there")
            return
        found = in_sidecar(self._read(path))
        if not found:
            self._add("E061", path, "it must be a digest, blanks, and inventory.json")
        elif found != digests.of_data(algorithm, data):
            self._add("E060", path, "its digest is not that of the inventory beside it")

    def _check_type(self, root: Inventory) -> None:
        if self.spec and root.spec and root.spec != self.spec:
            what = f"it is of version {root.spec}, and the object declares {self.spec}"
            self._add("E038", inventory.FILE, what)

    def _version_folders(self, root: Inventory) -> None:
        there = {name for name in self.tree.top()[1] if inventory.number_of(name)}
        for name in sorted(set(root.versions) - there):
            if inventory.number_of(name):
                self._add("E010", name, "the inventory has this version, and its directory is not there")
        for name in sorted(there - set(root.versions)):
            self._add("E046", name, "the inventory does not have this version")
        for name in sorted(there):
            self._version_folder(name, root)

    def _version_folder(self, name: str, root: Inventory) -> None:
        names = (inventory.FILE, *map(inventory.sidecar, digests.MAIN))
        for path in self.tree.inside(name):
            if path.count("/") == 1 and path.removeprefix(f"{name}/") not in names:
                self._add("E015", path, "no other files than an inventory and its digest may lie there")
        for child in sorted(_children(self.tree, name)):
            if child != root.content:
                self._add("W002", f"{name}/{child}", f"only {root.content}/ should lie there")
        content = f"{name}/{root.content}"
        for path in self.tree.empty:
            if path == content:
                self._add("W003", path, "it is empty: it should not be there")
            elif path.startswith(f"{content}/"):
                self._add("E024", path, "an empty directory may not lie there")

    def _version_inventories(self, root: Inventory) -> None:
        latest = ""
        for name in sorted(root.versions, key=inventory.number_of):
            if not inventory.number_of(name):
                continue
            if f"{name}/{inventory.FILE}" not in self.tree.files:
                self._add("W010", name, "it has no inventory of its own")
                continue
            if name == root.head:
                self._same_as_root(name)
            one = self._inventory(f"{name}/")
            if one is not None:
                self._agrees(name, one, root)
                if one.spec and one.spec < latest:
                    what = f"it is of version {one.spec}, and the one before of {latest}"
                    self._add("E103", f"{name}/{inventory.FILE}", what)
                latest = one.spec or latest
        if root.spec and root.spec < latest:
            self._add("E103", inventory.FILE, f"it is of version {root.spec}, and a former one of {latest}")

    def _same_as_root(self, name: str) -> None:
        if self._data[""] != self._read(f"{name}/{inventory.FILE}"):
            self._add("E064", f"{name}/{inventory.FILE}", "it differs from the inventory of the object")

    def _agrees(self, name: str, one: Inventory, root: Inventory) -> None:
        """See that a version's own inventory says the same of the object as the object's."""
        place = f"{name}/{inventory.FILE}"
        if one.head != name:
            self._add("E040", place, f"its head is {one.head}")
        if one.id != root.id:
            self._add("E037", place, f'its id is "{one.id}", and the object\'s "{root.id}"')
        if one.content != root.content:
            self._add("E019", place, f"its content directory is {one.content}")
        self._agrees_on_versions(name, one, root)

    def _agrees_on_versions(self, name: str, one: Inventory, root: Inventory) -> None:
        place = f"{name}/{inventory.FILE}"
        upto = {v for v in root.versions if inventory.number_of(v) <= inventory.number_of(name)}
        if set(one.versions) != upto:
            self._add("E066", place, "it has other versions than the object had then")
        for version in sorted(set(one.versions) & upto):
            if not _same_state(one, root, version):
                self._add("E066", place, f"its state of {version} is not that of the object's inventory")
            if not inventory.same_about(one.versions[version], root.versions[version]):
                self._add(
                    "W011", place, f"what it says about {version} is not what the object's inventory says"
                )
        listed = {path for path, _ in one.paths()}
        for version in sorted(upto):
            for path in self.tree.inside(f"{version}/{one.content}"):
                if path not in listed:
                    self._add("E023", f"{name}/{inventory.FILE}", f"its manifest does not have {path}")

    # -- content -----------------------------------------------------------------------------

    def _check_files(self, root: Inventory) -> None:
        listed = {path for path, _ in root.paths()}
        for version in root.versions:
            for path in self.tree.inside(f"{version}/{root.content}"):
                if path not in listed:
                    self._add("E023", path, "the manifest does not have this file")
        for path in sorted(self._expected):
            codes = {code for _, _, code in self._expected[path]}
            if path not in self.tree.files:
                for code in sorted(codes):
                    self._add(code, path, "this file is not there")
            elif path not in listed and "E093" in codes:
                self._add("E093", path, "the fixity block has it, and the manifest does not")

    def _compare(self, content: Collection[str] | None) -> None:
        for path in sorted(self._expected) if content is None else sorted(content):
            if path in self.tree.files:
                self._compare_file(path, self._expected[path])

    def _compare_file(self, path: str, expected: set[tuple[str, str, str]]) -> None:
        wanted = {algorithm for algorithm, _, _ in expected if algorithm in digests.FIXITY} | self._also
        try:
            with files.opened_beneath(self._root, os.fsencode(path)) as fd:
                found = digests.of_file(fd, wanted, lambda block: self._on_block(len(block)))
        except (ItemError, FileNotFoundError) as error:
            self._add("E092", path, f"it cannot be read: {error}")
            return
        for algorithm, digest, code in sorted(expected):
            if algorithm in found and found[algorithm] != digest:
                self._add(code, path, f"its {algorithm} is not the one that is recorded")
        self._on_file(path, found)


def in_sidecar(data: bytes) -> str:
    """Return the digest in a side-car file, in lower case; "" where it holds none."""
    found = _SIDECAR.fullmatch(data)
    return found[1].decode().lower() if found else ""


def _text(path: bytes) -> str:
    return os.fsdecode(path)


def _children(tree: Tree, folder: str) -> set[str]:
    """Return the names of the directories directly in one."""
    found = (path for path in (*tree.folders, *tree.empty) if path.startswith(f"{folder}/"))
    return {path.split("/")[1] for path in found}


def _fronts(path: str, prefixes: set[str]) -> Collection[str]:
    """Return those prefixes that a path may begin with: its first two elements."""
    front = "/".join(path.split("/", 2)[:2]) + "/"
    return {front} & prefixes


def _same_state(one: Inventory, root: Inventory, version: str) -> bool:
    ours, theirs = one.state(version), root.state(version)
    if set(ours) != set(theirs):
        return False
    if one.algorithm == root.algorithm:
        return all(digest.lower() == theirs[path].lower() for path, digest in ours.items())
    # Digests of different algorithms: the same content if they stand for the same files.
    return all(
        set(one.manifest.get(digest, ())) & set(root.manifest.get(theirs[path], ()))
        for path, digest in ours.items()
    )


# -- a storage root --------------------------------------------------------------------------


def declaration(names: Collection[str]) -> list[str]:
    """Return those names in a directory that declare it to be a storage root."""
    return sorted(name for name in names if name.startswith(_ROOT) and not name.startswith(_OBJECT))


def is_object(names: Collection[str]) -> bool:
    """Tell whether a directory with these names is an object."""
    return any(name.startswith(_OBJECT) for name in names)


class RootCheck:
    """One check of a storage root and of all objects in it. Blocking.

    Args:
        root: the storage root.
        work: the name of a directory of ours in `extensions/`, which is passed over.
        on_block: called for each piece of content that is read; may raise to stop.
    """

    def __init__(
        self, root: Path, *, work: str = "", on_block: Callable[[int], None] = lambda size: None
    ) -> None:
        self._root, self._work, self._on_block = os.fsencode(root), work, on_block
        self.findings = OcflFindings()
        self.objects = 0
        self._layout: StorageLayout | None = None
        self._spec = ""

    def run(self, *, content: bool = True) -> OcflFindings:
        """Check everything.

        Args:
            content: also compare the digests of all files.

        Raises: OSError.
        """
        with os.scandir(self._root) as entries:
            found = {os.fsdecode(entry.name): entry.is_dir(follow_symlinks=False) for entry in entries}
        self._declared([name for name, is_dir in found.items() if not is_dir])
        if "ocfl_layout.json" in found:
            self._read_layout()
        if found.get("extensions"):
            self._extensions()
        for path in sorted(objects(self._root, self._stray)):
            self._object(path, content)
        return self.findings

    def _add(self, code: str, where: str, what: str) -> None:
        self.findings.add(code, where, what)

    def _declared(self, names: list[str]) -> None:
        found = declaration(names)
        if len(found) != 1:
            code = "E076" if found else "E069"
            self._add(code, f"{_ROOT}{inventory.SPEC}", "exactly one says that this is a storage root")
            return
        self._spec = found[0].removeprefix(_ROOT)
        if self._spec not in inventory.SPECS:
            self._add("E079", found[0], f"this version is unknown; known are {', '.join(inventory.SPECS)}")
        if _read_small(os.path.join(self._root, os.fsencode(found[0]))) != f"ocfl_{self._spec}\n".encode():
            self._add("E080", found[0], "its content is not what its name says, and a line feed")

    def _read_layout(self) -> None:
        try:
            raw = read_json(os.path.join(self._root, b"ocfl_layout.json"))
        except ValueError as error:
            self._add("E070", "ocfl_layout.json", str(error))
            return
        for key in ("extension", "description"):
            if not isinstance(raw.get(key), str):
                self._add("E070", "ocfl_layout.json", f"the key {key} is not there, or is not a text")
        name = raw.get("extension")
        if isinstance(name, str) and name not in REGISTERED:
            self._add("E071", "ocfl_layout.json", f"the extension {name} is not registered")
        with contextlib.suppress(layouts.BadLayout, ValueError, OSError):
            self._layout = read_layout(self._root)

    def _extensions(self) -> None:
        with os.scandir(os.path.join(self._root, b"extensions")) as entries:
            for entry in entries:
                name = os.fsdecode(entry.name)
                if not entry.is_dir(follow_symlinks=False):
                    self._add("E112", f"extensions/{name}", "only directories of extensions may lie there")
                elif name not in REGISTERED and name != self._work:
                    self._add("W016", f"extensions/{name}", "this extension is not registered")

    def _stray(self, path: bytes, code: str, what: str) -> None:
        self._add(code, display(path), what)

    def _object(self, path: bytes, content: bool) -> None:
        self.objects += 1
        check = ObjectCheck(os.path.join(self._root, path), on_block=self._on_block)
        found = check.run(None if content else ())
        place = display(path)
        self.findings.under(place, check.findings)
        if self._spec and check.spec > self._spec:
            self._add("E081", place, f"it declares {check.spec}, and the root {self._spec}")
        if found is not None and found.id and self._layout is not None:
            self._placed(place, found.id, self._layout)

    def _placed(self, place: str, id_: str, layout: StorageLayout) -> None:
        try:
            right = layout.path(id_)
        except layouts.NoPlace as error:
            self._add("W014", place, f'its id "{id_}" has no place in the layout: {error}')
            return
        if right != place:
            self._add("W014", place, f'the object "{id_}" would lie at {right} by the root\'s layout')


Stray = Callable[[bytes, str, str], None]


def objects(root: bytes, stray: Stray = lambda path, code, what: None) -> Iterator[bytes]:
    """Yield the path of each object below a storage root; nothing is read but names.

    Args:
        root: the storage root.
        stray: told what may not lie there: a path, a code, and what it is.

    Raises: OSError.
    """
    yield from _below(root, b"", stray)


def _below(root: bytes, folder: bytes, stray: Stray) -> Iterator[bytes]:
    with os.scandir(os.path.join(root, folder)) as entries:
        found = sorted(
            (entry.name, entry.is_dir(follow_symlinks=False), entry.is_symlink()) for entry in entries
        )
    names = {os.fsdecode(name) for name, _, _ in found}
    if folder and not found:
        stray(folder, "E073", "an empty directory may not lie there")
    if folder and is_object(names):
        yield folder
        return
    for name, is_dir, is_link in found:
        path = os.path.join(folder, name)
        if is_link:
            stray(path, "E090", "it is a symbolic link")
        elif is_dir and path != b"extensions":
            yield from _below(root, path, stray)
        elif not is_dir and folder:
            stray(path, "E072", "this file belongs to no object")


def _read_small(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 20)


def read_json(path: bytes) -> dict[str, Any]:
    """Return the object in a small JSON file. Raises: ValueError: it is none; OSError."""
    try:
        found = json.loads(_read_small(path).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON in UTF-8: {error}") from error
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    return found


def read_layout(root: bytes) -> StorageLayout:
    """Return the layout that a storage root says it has.

    Raises: BadLayout: it is unknown here, or wrong; FileNotFoundError: the root does not say; OSError.
    """
    try:
        name = read_json(os.path.join(root, b"ocfl_layout.json")).get("extension")
        path = os.path.join(root, b"extensions", os.fsencode(str(name)), b"config.json")
        if "/" in str(name) or not os.path.lexists(path):
            return layouts.layout(str(name), {})
        return layouts.layout(str(name), read_json(path))
    except layouts.BadLayout:
        raise
    except ValueError as error:
        raise layouts.BadLayout(str(error)) from error
