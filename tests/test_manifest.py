"""The manifest: every file's digest, whatever its name; and every change after the claim is found."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dittohead.folders import manifest
from dittohead.model.errors import ItemError
from dittohead.system.threads import Stop
from tests.support.length import examples
from tests.support.trees import fifo, read_tree, symlink, tree

names = st.binary(min_size=1, max_size=20).filter(
    lambda n: b"/" not in n and b"\0" not in n and n not in (b".", b"..")
)
trees = st.recursive(
    st.dictionaries(names, st.binary(max_size=200), max_size=4),
    lambda inner: st.dictionaries(names, st.one_of(st.binary(max_size=200), inner), max_size=4),
    max_leaves=12,
)


def take(root: Path, out: Path, **more: Any) -> list[Any]:
    manifest.take(root, out, stop=Stop(), **more)
    return list(manifest.read(out, ignored=True))


@given(what=trees)
@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_every_tree_is_taken_whole(what: dict[bytes, Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Any names the kernel allows, any depth: paths, sizes and digests are the files' own."""
    base = tmp_path_factory.mktemp("m")
    root = tree(base / "x", what)
    entries = take(root, base / "m.jsonl")
    assert {e.path: e.sha256 for e in entries if not e.is_dir} == {
        path: hashlib.sha256(data).hexdigest() for path, data in read_tree(root).items()
    }
    manifest.recheck(root, base / "m.jsonl", stop=Stop())


def test_large_files_are_hashed_in_order(tmp_path: Path) -> None:
    """Hashed ahead by threads, written in the walk's order."""
    what = {f"{i:02}": os.urandom(400_000 if i % 2 else 100) for i in range(40)}
    root = tree(tmp_path / "x", what)
    entries = take(root, tmp_path / "m")
    assert [e.path.decode() for e in entries] == sorted(what)
    assert all(e.sha256 == hashlib.sha256(what[e.path.decode()]).hexdigest() for e in entries)


CHANGES: dict[str, Any] = {
    "changed": lambda root: (root / "b").write_bytes(b"B"),
    "added": lambda root: (root / "new").write_bytes(b""),
    "added to a folder": lambda root: (root / "sub" / "new").write_bytes(b""),
    "removed": lambda root: (root / "b").unlink(),
    "removed last": lambda root: (root / "z").unlink(),
    "replaced by a symbolic link": lambda root: ((root / "b").unlink(), (root / "b").symlink_to("a")),
    "replaced by a FIFO": lambda root: ((root / "b").unlink(), os.mkfifo(root / "b")),
    "grown": lambda root: (root / "b").write_bytes(b"bb"),
    "same time": lambda root: ((root / "b").write_bytes(b"B"), os.utime(root / "b", ns=(1, 1))),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_after_the_claim_is_found(tmp_path: Path, change: str) -> None:
    """Also one that sets size and time as they were."""
    root = tree(tmp_path / "x", {"a": b"a", "b": b"b", "sub": {"c": b"c"}, "z": b"z"})
    os.utime(root / "b", ns=(1, 1))
    take(root, tmp_path / "m")
    CHANGES[change](root)
    with pytest.raises(ItemError, match=r"this was (changed|added|removed|replaced)"):
        manifest.recheck(root, tmp_path / "m", stop=Stop())


def test_a_flipped_bit_that_leaves_the_times_is_found_by_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage on the disk itself: seen when digests are asked for."""
    root = tree(tmp_path / "x", {"a": b"a" * 100})
    monkeypatch.setattr(manifest, "_TICK_NS", -(10**12))  # as if it had been written long ago
    take(root, tmp_path / "m")
    entry = next(manifest.read(tmp_path / "m"))
    text = (tmp_path / "m").read_text().replace(entry.sha256, hashlib.sha256(b"other").hexdigest())
    (tmp_path / "m").write_text(text)
    manifest.recheck(root, tmp_path / "m", stop=Stop())
    with pytest.raises(ItemError, match="changed"):
        manifest.recheck(root, tmp_path / "m", stop=Stop(), digests=True)


def test_the_times_of_a_file_that_is_being_written_prove_nothing(tmp_path: Path) -> None:
    """Written while the manifest is taken, it is read again at the end, whatever its times say."""
    root = tree(tmp_path / "x", {"a": b"a" * 100})
    take(root, tmp_path / "m")
    assert next(manifest.read(tmp_path / "m")).ctime_ns == manifest.HOT
    assert manifest.recheck(root, tmp_path / "m", stop=Stop()).files == 1


def test_specials_are_refused_or_left_out(tmp_path: Path) -> None:
    """Never opened; named, or counted when the pipeline says so."""
    root = tree(tmp_path / "x", {"a": b"a", "l": symlink("a"), "p": fifo()})
    with pytest.raises(ItemError, match="'l' is a symbolic link; 'p' is a FIFO"):
        take(root, tmp_path / "m")
    assert not (tmp_path / "m").exists()
    totals = manifest.take(root, tmp_path / "m", stop=Stop(), skip_specials=True)
    assert (totals.files, totals.skipped) == (1, 2)
    manifest.recheck(root, tmp_path / "m", stop=Stop())


def test_ignored_names_stand_in_the_manifest_but_no_step_gets_them(tmp_path: Path) -> None:
    """Junk is recorded, not lost and not delivered."""
    root = tree(tmp_path / "x", {"a": b"a", ".DS_Store": b"x", "@eaDir": {"t": b"t"}})
    entries = take(root, tmp_path / "m", ignore=[".DS_Store", "@eaDir"])
    assert len(entries) == 3
    assert [e.path for e in manifest.read(tmp_path / "m")] == [b"a"]
    manifest.recheck(root, tmp_path / "m", stop=Stop())


def test_a_tree_too_deep_is_refused_in_words(tmp_path: Path) -> None:
    """Deeper than any other program could take it."""
    fd = os.open(tmp_path, os.O_RDONLY)
    os.mkdir(b"x", dir_fd=fd)
    for _ in range(400):
        inner = os.open(b"x", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
        os.mkdir(b"x", dir_fd=fd)
    os.close(fd)
    with pytest.raises(ItemError, match="nested too deeply"):
        take(tmp_path / "x", tmp_path / "m")
