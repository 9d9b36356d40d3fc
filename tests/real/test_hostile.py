"""Hostile and clumsy uploads by another uid than the daemon's: nothing leaks, nothing is lost, work goes on."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dittohead.model.errors import ItemError
from dittohead.system import files
from dittohead.system.ignored_names import DEFAULT, ignored_names
from tests.support import hostile as by
from tests.support.daemon import Site, site
from tests.support.hostile import Box, Deed, box, files_of, snapshot, specials_of
from tests.support.images import encode, jpeg, pixels, tiff
from tests.support.length import LONG
from tests.support.sshd import sshd
from tests.support.trees import fifo, read_tree, symlink, tree

needs_two = pytest.mark.skipif(not by.ROOT, reason="NEEDS ROOT, FOR TWO UIDS: left out")
pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(not by.python(), reason="INTERPRETER OR REPOSITORY CLOSED TO OTHER USERS: left out"),
]


EXAMPLES = 2000 if LONG else 40

# -- any names, any trees --------------------------------------------------------------------

_names = st.one_of(
    st.sampled_from(by.AWKWARD),
    st.binary(min_size=1, max_size=12),
    st.text(min_size=1, max_size=60).map(lambda text: text.encode("utf-8", "ignore")),
).filter(lambda n: 0 < len(n) <= 255 and n not in (b".", b"..") and not {0, 47} & set(n))
_links = st.sampled_from([*map(symlink, (".", "..", "a", "nowhere", "../../outside/canary.txt", "/etc"))])
_leaves = st.one_of(*[st.binary(max_size=40)] * 6, st.just({}), st.just(fifo()) | _links)
_trees = st.recursive(_leaves, lambda kids: st.dictionaries(_names, kids, max_size=4), max_leaves=8)
_folders = st.dictionaries(_names, _trees, max_size=5)
_tops = st.builds(bytes.__add__, st.sampled_from([b"", b"", b"skip-"]), _names).filter(
    # Beside a failed folder of the name without it, that name is taken: see the test of its own.
    lambda n: (
        n[:1] != b"."
        and len(n) <= 255
        and not n.endswith(b".reason.txt")
        and n not in ignored_names((DEFAULT,))
    )
)


@pytest.mark.timeout(60 + 5 * EXAMPLES)
def test_any_folder_ends_in_one_place_whole() -> None:
    """Whatever its names and whatever it holds: in done/ with exactly its files delivered, or in failed/."""
    with box() as here:
        # Without shrinking: an example that hangs would be tried again and again.
        @settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(st.dictionaries(_tops, _folders, min_size=2, max_size=5))
        def batch(uploads: dict[bytes, dict[bytes, Any]]) -> None:
            here.clear()
            for name, what in uploads.items():
                here.upload(name, what)
            here.until_over(*uploads, timeout_s=20)
            for name in uploads:
                end, words = _expected(name, here.uploaded[name])
                here.check(name, end)
                assert end == "done" or any(word in here.reason(name) for word in words)

        batch()
        here.check_calm()


def _expected(name: bytes, found: dict[bytes, by.Thing]) -> tuple[str, list[str]]:
    """Return where a folder must end, and words of which one must be in the reason."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return "failed", ["is not UTF-8 text"]
    if specials_of(found) and not name.startswith(b"skip-"):
        return "failed", [f"{os.fsdecode(path)!r} is a " for path in specials_of(found)]
    return ("done", []) if files_of(found) else ("failed", ["the folder holds no files"])


# -- every trouble by its name ---------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Case:
    """An upload, and what is to come of it."""

    what: dict[str | bytes, Any]
    deeds: tuple[Deed, ...] = ()
    last: tuple[Deed, ...] = ()  #: done after it was looked at
    end: str
    words: tuple[str, ...] = ()
    marks: Any = ()


def _good(what: dict[str | bytes, Any], *deeds: Deed, marks: Any = ()) -> Case:
    return Case(what=what, deeds=deeds, end="done", marks=marks)


def _bad(*words: str, what: dict[str | bytes, Any] | None = None, do: Any = (), **more: Any) -> Case:
    given = {"a": "1"} if what is None else what
    return Case(what=given, deeds=do, end="failed", words=words, **more)


def _link(to: str) -> Case:
    return _bad("'sub/l' is a symbolic link", what={"a": "1", "sub": {"l": symlink(to)}})


_EMPTY, _SHUT, _DEEP = "the folder holds no files", "the daemon may not read this", "nested too deeply"
_SVG = b'<svg xmlns:x="http://www.w3.org/1999/xlink"><image x:href="../../outside/canary.txt"/></svg>'
# fmt: off
CASES: dict[str | bytes, Case] = {
    "empty": _bad(_EMPTY, what={}),
    "only-empty": _bad(_EMPTY, what={"d": {"e": {}}}),
    "zero": _good({"a": b"", "d": {"b": b""}, "e": {"f": {}}}),
    b"no-\xff-text": _bad("no-%FF-text", "is not UTF-8 text"),
    "link-in": _link("../a"),
    "link-out": _link("../../../outside/canary.txt"),
    "link-other": _link("../../hold-other/canary.txt"),
    "link-state": _link("../../../state/canary.txt"),
    "link-up": _link(".."),
    "link-self": _link("l"),
    "link-nowhere": _link("nowhere"),
    "link-absolute": _bad("'l' is a symbolic link", do=[(os.symlink, "{canary}", "l")]),
    "links": _bad("'4' is a symbolic link and 4 more", what={f"{i}": symlink("a") for i in range(9)}),
    "fifo": _bad("'f' is a FIFO", what={"a": "1", "f": fifo()}),
    "socket": _bad("'s' is a socket", do=[(by.sock, "s")]),
    "device": _bad("'null' is a character device", "'disk' is a block device", marks=needs_two),
    "skip-links": _good({"a": "1", "d": {"l": symlink("../../../outside")}, "f": fifo()},
                        (os.symlink, "{canary}", "l"), (by.sock, "s")),
    "skip-only": _bad(_EMPTY, what={"l": symlink("a")}),
    "hard-links": _good({"a": "1"}, (os.link, "a", "b")),
    "hard-link-out": _bad("'stolen.txt' is a hard link", marks=needs_two),
    "shut-file": _bad(_SHUT, "Where:  a\n", do=[(os.chmod, "a", 0)], marks=needs_two),
    "shut-folder": _bad(_SHUT, "Where:  d\n", what={"d": {"a": "1"}}, do=[(os.chmod, "d", 0)], marks=needs_two),
    "no-x-inside": _bad(_SHUT, "Where:  d", what={"d": {"a": "1"}}, do=[(os.chmod, "d", 0o664)], marks=needs_two),
    "no-x": _bad(_SHUT, do=[(os.chmod, ".", 0o664)], marks=needs_two),
    "no-r": _bad(_SHUT, "Where:  .\n", do=[(os.chmod, ".", 0o730)], marks=needs_two),
    "group-reads": _good({"a": "1"}, (os.chmod, "a", 0o040), marks=needs_two),
    "modes": _good({"a": "1", "b": "2", "d": {"c": "3"}, "e": {}}, (os.chmod, "a", 0o6777),
                   (os.chmod, "b", 0o444), (os.chmod, "d", 0o555), (os.chmod, "e", 0o7777)),
    "times": _good({"a": "1", "b": "2"}, (os.utime, "a", (-(2**31),) * 2), (os.utime, "b", (2**33,) * 2)),
    "leased": _bad("another program holds this file open", "Where:  a\n", last=((by.lease, "a"),)),
    "depth-256": _good({"a": "1"}, (by.chain, 256)),
    "depth-257": _bad(_DEEP, "d/d/d", do=[(by.chain, 257)]),
    "depth-2000": _bad(_DEEP, "d/d/d", do=[(by.chain, 2000)]),
    "long-3262".ljust(255, "_"): _good({"a": "1"}, (by.chain, 13, "D" * 250)),
    "long-3513": _bad(_DEEP, "DDD...", do=[(by.chain, 14, "D" * 250)]),
    "comments": _good({"#a": "1", ";b": "2", "d": {"#c": "3"}}),
    "own-names": _good({".dittohead-partial": {}, ".dittohead-backup": {}, "a": "1"}),
    "\x1b[2J\nWhat:   all is well": _bad("\\x1b[2J", what={}),
    "img-broken": _bad("4 of 5 images cannot be converted", "cut.jpg: ", "cut.tif: ", "none.png: ", "svg.png: ", what={
        "good.tif": tiff(100, 80), "cut.tif": tiff(100, 80)[:5000], "cut.jpg": jpeg(200, 100)[:3000],
        "none.png": b"", "svg.png": _SVG}),
    "img-good": _good({b"\xff\n.jpg": jpeg(90, 70), "[n=1].tif": tiff(80, 60), "-x.JPG": jpeg(70, 50), "n.txt": "1"}),
    "img-long-form": _good(
        {"a.jpg": jpeg(90, 70), "a.png": encode(pixels(30, 20), "PNG"), "a.jpg.tif": {"z.jpg": jpeg(50, 50)}}),
    "m" * 254 + "1": _bad("mm1 was not finished", what={}),
    "m" * 254 + "2": _bad("mm2 was not finished", "'l' is a symbolic link", what={"l": symlink("a")}),
}
# fmt: on


@pytest.fixture(scope="module")
def troubled() -> Iterator[Box]:
    """Everything in CASES, over."""
    with box() as here:
        folders = []
        for name, case in CASES.items():
            if case.marks is needs_two and not by.ROOT:
                continue
            folder = here.prepare(name, case.what, *case.deeds)
            if by.ROOT and name == "device":
                os.mknod(here.hidden[folder] / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
                os.mknod(here.hidden[folder] / "disk", 0o666 | stat.S_IFBLK, os.makedev(7, 250))
            elif by.ROOT and name == "hard-link-out":
                os.link(here.others, here.hidden[folder] / "stolen.txt")
            here.publish(folder, *case.last)
            folders.append(folder)
        here.until_over(*folders)
        here.uploader.do(None, by.let_go)
        yield here


@pytest.mark.parametrize("name", [pytest.param(n, marks=c.marks, id=repr(n)[:24]) for n, c in CASES.items()])
def test_each_trouble_is_told_by_its_name(troubled: Box, name: str | bytes) -> None:
    """In done/, or in failed/ with a reason in words that names the path, and no traceback."""
    case, folder = CASES[name], os.fsencode(name)
    troubled.check(folder, case.end)
    if case.end == "failed":
        reason = troubled.reason(folder)
        assert [word for word in case.words if word not in reason] == []
        assert reason.count("\nWhat:   ") == 1
        assert reason.replace("\n", "").isprintable()


def test_pyramids_are_made_of_the_images_alone(troubled: Box) -> None:
    """One for each image, under its name, whatever that is."""
    made = files_of(snapshot(troubled.target / "iiif-img-good"))
    assert sorted(made) == [b"-x.tif", b"[n=1].tif", b"\xff\n.tif"]
    assert not (troubled.target / "iiif-img-broken").exists()


# -- changes during the job ------------------------------------------------------------------

Attacked = tuple[Box, dict[bytes, Any]]  #: the box, and how each folder was left by who attacked it
_BIG = os.urandom(2_000_000)
_CONTENT = {"a.bin": _BIG, "b.txt": "x" * 32, "d": {"canary.txt": "y" * 32}}
#: What an uploader does who has kept everything open, and the path that must be named ("": no change).
# fmt: off
CHANGES: dict[str, tuple[str, list[Deed]]] = {
    "touched": ("", [(os.utime, "b.txt")]),
    "rewritten": ("b.txt", [(by.write, "b.txt", b"X" * 32)]),
    "truncated": ("b.txt", [(os.truncate, "b.txt", 0)]),
    "grown": ("b.txt", [(by.write, "b.txt", b"x", "ab")]),
    "removed": ("b.txt", [(os.unlink, "b.txt")]),
    "added": ("c.txt", [(by.write, "c.txt", b"x")]),
    "to-link": ("b.txt", [(os.unlink, "b.txt"), (os.symlink, "{canary}", "b.txt")]),
    "to-near-link": ("b.txt", [(os.unlink, "b.txt"), (os.symlink, "../hold-other/canary.txt", "b.txt")]),
    "to-socket": ("b.txt", [(os.unlink, "b.txt"), (by.sock, "b.txt")]),
    "to-fifo": ("b.txt", [(os.unlink, "b.txt"), (os.mkfifo, "b.txt")]),
    "to-folder": ("b.txt", [(os.unlink, "b.txt"), (os.mkdir, "b.txt")]),
    "folder-to-link": ("d", [(os.rename, "d", "{gone}"), (os.symlink, "{outside}", "d")]),
    "folder-to-near-link": ("d", [(os.rename, "d", "{gone}"), (os.symlink, "../hold-other", "d")]),
    "folder-to-file": ("d", [(os.rename, "d", "{gone}"), (by.write, "d", b"x")]),
    "old-link-moved-in": ("extra/link", [(os.rename, "{spare}", "extra")]),
    "mapped": ("b.txt", [(by.write_page, b"X" * 32)]),
}
# fmt: on
_MOMENTS = ("during", "before", "check", "after")
ATTACKS = [(moment, how) for moment in _MOMENTS for how in CHANGES if how != "mapped"] + [("none", "mapped")]
_CHANGING = [(moment, how) for moment, how in ATTACKS if CHANGES[how][0]]


def _wants_two(moment: str, how: str) -> bool:
    """Tell whether only another uid's link is one that rsync does not follow."""
    return moment in ("before", "during") and how in ("folder-to-link", "folder-to-near-link")


def _params(attacks: list[tuple[str, str]]) -> list[Any]:
    return [pytest.param(*attack, marks=[needs_two] * _wants_two(*attack)) for attack in attacks]


@pytest.fixture(scope="module")
def attacked() -> Iterator[Attacked]:
    """Each of ATTACKS, over."""
    left: dict[bytes, Any] = {}
    with box() as here:
        for moment, how in ATTACKS:
            if _wants_two(moment, how) and not by.ROOT:
                continue
            name, spare = f"{moment}-{how}", [(os.mkdir, "{spare}"), (os.symlink, "b.txt", "{spare}/link")]
            if how == "mapped":  # what is written back meanwhile is seen
                here.until_over(*left.keys())
            folder = here.prepare(name, _CONTENT, *spare)
            here.publish(folder, *[(by.map_page, "b.txt")] * (how == "mapped"))
            if moment == "during":
                here.until(lambda name=name: list((here.target / name).glob(".a.bin.*")))
            else:
                here.until(lambda name=name: (here.meet / f"at-{name}").exists())
            here.change(folder, *CHANGES[how][1])
            left[folder] = snapshot(here.path("processing", folder))
            (here.meet / f"go-{name}").touch()
        here.until_over(*left)
        yield here, left


@pytest.mark.parametrize(("moment", "how"), _params(ATTACKS))
def test_what_is_changed_during_the_job_is_never_done(attacked: Attacked, moment: str, how: str) -> None:
    """It fails, whatever step it met, and lies in failed/ as its uploader has left it; a touch is not a change."""
    here, left = attacked
    folder = f"{moment}-{how}".encode()
    assert here.stations_of(folder) == ["failed" if CHANGES[how][0] else "done"]
    assert snapshot(here.path(*here.stations_of(folder), folder)) == left[folder]
    assert here.traces(folder) == []


@pytest.mark.parametrize(("moment", "how"), _params(_CHANGING))
def test_a_change_during_the_job_is_the_reason(attacked: Attacked, moment: str, how: str) -> None:
    """Not the target's disk, not rsync: the path that was changed after the folder was handed over."""
    here, _ = attacked
    reason = here.reason(f"{moment}-{how}".encode())
    assert "after the folder was handed over" in reason or "is not what it was at the claim" in reason
    assert f"Where:  {CHANGES[how][0]}" in reason


def test_no_secret_is_in_any_delivery_and_work_goes_on(troubled: Box, attacked: Attacked) -> None:
    """Nothing outside the folders was read or changed, whatever was swapped for what; a plain folder passes."""
    for here in (troubled, attacked[0]):
        here.check_calm()


# -- one against all -------------------------------------------------------------------------


@pytest.mark.rest
@needs_two
def test_what_cannot_be_moved_stays_and_says_why() -> None:
    """In the inbox, told by the log and by status; made movable, it is taken. No link is taken for a folder."""
    with box() as here:
        shut = here.prepare("shut", {"a": "1"})
        here.publish(shut, (os.chmod, ".", 0o755))
        here.uploader.do(None, os.symlink, here.canary.parent, here.root / "inbox" / "link")
        held = here.until(lambda: here.json("status")["live"].get("held"))
        assert "mode 0755, owner 60001" in held["shut"]
        assert [event["name"] for event in here.events("claim.held")] == ["shut"]
        here.until(lambda: here.json("status")["live"]["strays"] == ["link"])
        here.check_calm()
        assert (here.stations_of(shut), here.stations_of(b"link")) == (["inbox"], ["inbox"])
        here.change(shut, (os.chmod, ".", 0o2775))
        here.uploaded[shut] = snapshot(here.path("inbox", shut))
        here.until_over(shut)
        here.check(shut, "done")


@pytest.mark.rest
@needs_two
@pytest.mark.parametrize("deed", [(os.chmod, "b", 0), (os.unlink, "No space left on device")])
def test_a_folder_cannot_pause_the_target_for_all(deed: Deed) -> None:
    """What is wrong with a folder's own files fails that folder; the others' deliveries go on."""
    with box() as here:
        folder = here.upload("before-x", {"a": "1", deed[1]: "2"})
        here.until(lambda: (here.meet / "at-before-x").exists())
        here.change(folder, deed)
        (here.meet / "go-before-x").touch()
        here.until(lambda: here.stations_of(folder) == ["failed"] or here.events("target.paused"))
        assert here.stations_of(folder) == ["failed"]
        assert f"Where:  {deed[1]}" in here.reason(folder)
        here.check_calm()


@pytest.mark.rest
def test_a_name_cannot_speak_for_ssh() -> None:
    """A file named like ssh's complaint, gone while rsync wants it and back before anybody else looks."""
    name = "b: Permission denied (x"
    with box() as here:
        folder = here.upload("during-x", {"a.bin": _BIG, name: "1", "z.bin": _BIG})
        for big, deed in (("a.bin", (os.rename, name, "{gone}")), ("z.bin", (os.rename, "{gone}", name))):
            here.until(lambda big=big: list((here.target / "during-x").glob(f".{big}.*")))
            here.change(folder, deed)
        here.until(lambda: here.stations_of(folder) == ["failed"] or here.events("target.paused"))
        assert here.stations_of(folder) == ["failed"]
        here.check_calm()


def test_a_page_that_is_written_all_the_time_is_seen() -> None:
    """Anyone who goes on writing through a mapping fails, whenever something else is written."""
    with box() as here:
        folder = here.prepare("none-x", {"a": "x" * 200})
        here.publish(folder, (by.map_page, "a", True))
        here.until(lambda: (here.meet / "at-none-x").exists() or here.stations_of(folder) == ["failed"])
        here.change(folder, (by.write_page, b"else"))
        (here.meet / "go-none-x").touch()
        here.until_over(folder)
        assert here.stations_of(folder) == ["failed"]
        assert "after the folder was handed over" in here.reason(folder)


@pytest.mark.rest
@needs_two
def test_a_folder_made_immovable_during_the_job_holds_up_nobody() -> None:
    """It stays in processing/ until it can be moved; the daemon goes on, and starts again."""
    with box() as here:
        folder = here.upload("after-x", {"a": "1"})
        here.until(lambda: (here.meet / "at-after-x").exists())
        here.change(folder, (os.chmod, ".", 0o555))
        (here.meet / "go-after-x").touch()
        here.until(lambda: here.json("show", "after-x")["state"] == "done")
        here.check_calm()
        assert here.stop() == 0
        here.start()
        here.check_calm()
        here.change(folder, (os.chmod, ".", 0o2775))
        here.stop()
        here.start()
        here.until_over(folder)
        assert (here.stations_of(folder), here.traces(folder)) == (["done"], [])


@pytest.mark.rest
def test_a_folder_may_be_called_like_anothers_reason() -> None:
    """Both fail, each with a reason of its own; the daemon lives on."""
    with box() as here:
        here.until_over(here.upload("x.reason.txt", {}))
        folder = here.upload("x", {"l": symlink("a")})
        here.until_over(folder)
        here.check(b"x.reason.txt", "failed")
        here.check_calm()
        assert here.stop() == 0
        here.start()


@pytest.mark.rest
def test_an_upload_may_be_deeper_than_the_daemons_stack() -> None:
    """One that is still dotted is measured, not walked into until the daemon falls over."""
    with box(stale_after="1ms") as here:
        here.prepare("x", {"a": "1"}, (by.chain, 1500))
        here.until(lambda: here.json("status")["live"].get("stale") or here._dead())
        here.check_calm()


@pytest.mark.rest
def test_a_sparse_file_does_not_fill_the_target() -> None:
    """Half a gigabyte that takes no room when it is uploaded takes none when it is delivered."""
    with box() as here:
        folder = here.upload("bare-x", {"a": "1"}, (by.sparse, "big", 1 << 29))
        here.until_over(folder)
        delivered = here.target / "bare-x" / "big"
        assert here.stations_of(folder) == ["failed"] or delivered.stat().st_blocks * 512 < 1 << 24


@pytest.mark.rest
def test_a_folder_that_never_fits_holds_up_nobody() -> None:
    """Ten terabytes of holes before `convert`, which needs room: others are taken all the same."""
    with box() as here:
        here.upload("img-x", {"a": "1"}, (by.sparse, "big", 10 << 40))
        here.until(lambda: here.events("claim.held"))
        folder = here.upload("later", {"a": "1"})
        here.until(lambda: here.stations_of(folder) == ["done"])


@pytest.mark.rest
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_very_many_files_in_one_directory() -> None:
    """Each is delivered: two hundred thousand in a long run."""
    with box() as here:
        folder = here.upload("bare-x", {"a": "1"}, (by.wide, 200_000 if LONG else 20_000))
        here.until_over(folder, timeout_s=800)
        here.check(folder, "done")


_FAR = """
root: .
pipelines:
  far: {{match: ".*", steps: [
    command: {{name: one, argv: [sh, -c, 'until test -e "$0"; do sleep 0.02; done', "{tmp}/one"]}},
    rsync: {{to: "{host}:{tmp}/far", ssh: {ssh}}},
    command: {{name: two, argv: [sh, -c, 'touch "$0/sent"; until test -e "$0/two"; do sleep 0.02; done', "{tmp}"]}}]}}
"""


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Site]:
    """A site of one uid that delivers to `far` over ssh, between two waits."""
    with sshd(tmp_path / "ssh") as server:
        config = _FAR.format(tmp=tmp_path, host=server.host, ssh=json.dumps(server.options))
        with site(tmp_path / "root", config) as here:
            here.start()
            yield here


def test_over_ssh_too_every_name_is_delivered(far: Site, tmp_path: Path) -> None:
    """Done means that each file of the manifest is there."""
    what = {"#a": b"1", ";b": b"2", "c": b"3"}
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    far.drop("x", what)
    far.until(lambda: far.events("job.moved"))
    assert read_tree(tmp_path / "far") == {os.fsencode(name): data for name, data in what.items()}


def test_over_ssh_too_what_was_delivered_is_the_manifest(far: Site, tmp_path: Path) -> None:
    """A file that is changed before it is sent, and changed back after, does not end in done/."""
    far.drop("x", {"a": "good"})
    far.until(lambda: far.events("step.started"))
    held, before = far.root / "processing/x/a", (far.root / "processing/x/a").stat()
    held.write_bytes(b"evil")
    (tmp_path / "one").touch()
    far.until(lambda: (tmp_path / "sent").exists() or far.events("job.moved"))
    if (tmp_path / "sent").exists():
        held.write_bytes(b"good")
        os.utime(held, ns=(before.st_atime_ns, before.st_mtime_ns))
        (tmp_path / "two").touch()
    (moved,) = far.until(lambda: far.events("job.moved"))
    assert moved["station"] == "failed" or read_tree(tmp_path / "far") == {b"a": b"good"}


@pytest.mark.rest
def test_a_directory_swapped_as_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told as a change of the folder, at the one moment when the walk has seen it and not yet opened it."""
    folder, opened = tree(tmp_path / "x", {"d": {"a": "1"}}), files._open_dir

    def swap(name: bytes, *more: Any) -> int:
        if name == b"d":
            (folder / "d").rename(tmp_path / "gone")
            (folder / "d").symlink_to(tmp_path)
        return opened(name, *more)

    monkeypatch.setattr(files, "_open_dir", swap)
    with pytest.raises(ItemError) as told:
        list(files.walk(folder))
    assert told.value.where == "d"


@pytest.mark.rest
def test_a_name_that_a_pattern_takes_too_long_over_harms_nobody_else(tmp_path: Path) -> None:
    """It fails, with that reason, and is not tried again and again; others are done, and it starts again."""
    config = """
root: .
space: {floor: 0}
pipelines:
  nested: {match: "(?P<study>([A-Za-z0-9]+_?)+)-scans-.*", steps: [{checksum: {}}]}
  either: {match: "(?P<x>(a|aa)+)b", steps: [{checksum: {}}]}
  good: {match: "good-.*", steps: [{checksum: {}}]}
"""
    slow = ["a" * 48 + "!", "a" * 90 + "!b", "a" * 91 + "!b"]
    with site(tmp_path / "root", config) as here:
        refused = here.run("check", check=False)
        assert refused.returncode == os.EX_CONFIG
        assert 'config.yaml:6:19: "match" takes too long over some names' in refused.stderr
        here.start()
        assert here.events("config.doubted")
        for name in [*slow, "good-1"]:
            here.drop(name, {"a": name})
        here.until(lambda: len(here.receipts()) == 4)
        here.kill()
        here.start()
        here.drop("good-2", {"a": "2"})
        here.until((here.root / "done" / "good-2").exists)
        assert set(os.listdir(here.root / "done")) == {"good-1", "good-2"}
        reason = (here.root / "failed" / f"{slow[1]}.reason.txt").read_text()
        assert "it takes too long to see whether the pattern (?P<x>(a|aa)+)b fits this name" in reason
        assert set(slow) < set(os.listdir(here.root / "failed"))
