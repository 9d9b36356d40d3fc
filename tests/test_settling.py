"""How long an arrival waits: by the file system's times where they can be trusted, else by two looks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from dittohead.config.settings import Watch
from dittohead.engine.folder_activity import FolderActivity
from dittohead.engine.settling import Settling, Why
from dittohead.model.errors import ItemError
from dittohead.model.records import Arrival

WATCH = Watch.model_validate({"settle": "2s", "settle_in_place": "90s"})
ARRIVAL = Arrival(folder=b"x", dev=1, ino=1, uid=0, seen_at=0.0)


@dataclass
class Clocks:
    """The clock people see, and the one that only goes on."""

    wall: float = 1_000_000.0
    steady: float = 50.0

    def forward(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def settling(clocks: Clocks, *, shared: bool = False) -> Settling:
    return Settling(shared=shared, now=lambda: clocks.wall, monotonic=lambda: clocks.steady)


def seen(
    newest: float,
    *,
    own: float | None = None,
    trace: int = 1,
    content: int | None = None,
    error: ItemError | None = None,
) -> FolderActivity:
    """A look at a folder whose newest change was at a moment, and which got its name then or later."""
    return FolderActivity(
        size=1,
        newest_ns=int(newest * 1e9),
        own_ns=int((newest if own is None else own) * 1e9),
        is_empty=error is not None,
        trace=trace,
        content=trace if content is None else content,
        error=error,
    )


def left(room: Settling, look: FolderActivity, watch: Watch = WATCH, *, closed: bool = False) -> float:
    wait = room.wait(ARRIVAL, look, watch, closed=closed)
    return 0.0 if wait is None else wait.seconds


def test_what_was_finished_a_while_ago_waits_for_nothing(clocks: Clocks) -> None:
    assert left(settling(clocks), seen(clocks.wall - 2.1)) == 0


def test_what_is_fresh_waits_for_the_rest(clocks: Clocks) -> None:
    room, fresh = settling(clocks), seen(clocks.wall - 0.5)
    wait = left(room, fresh)
    assert wait == pytest.approx(1.5, abs=0.01)
    clocks.forward(wait)
    assert left(room, fresh) == 0


def test_zero_turns_it_off(clocks: Clocks) -> None:
    assert left(settling(clocks), seen(clocks.wall), Watch.model_validate({"settle": 0})) == 0


def test_what_changed_after_it_got_its_name_waits_longer(clocks: Clocks) -> None:
    """It is written without the dot; an empty folder is one that somebody is about to fill."""
    look = seen(clocks.wall - 10, own=clocks.wall - 11)
    assert left(settling(clocks), look) == pytest.approx(80, abs=0.01)
    empty = FolderActivity(size=0, newest_ns=look.own_ns, own_ns=look.own_ns, is_empty=True, trace=0)
    assert left(settling(clocks), empty) == pytest.approx(79, abs=0.01)


@pytest.mark.parametrize("ahead", [0.5, 3600.0, 1e9])
def test_a_clock_that_is_ahead_neither_claims_at_once_nor_waits_for_ever(
    clocks: Clocks, ahead: float
) -> None:
    """Times of the future: two looks that see the same, so far apart, are enough."""
    room, look = settling(clocks), seen(clocks.wall + ahead)
    assert left(room, look) == pytest.approx(2, abs=0.01)
    clocks.forward(1)
    assert left(room, look) == pytest.approx(1, abs=0.01)
    clocks.forward(1.01)
    assert left(room, look) == 0


def test_a_file_servers_clock_is_not_believed(clocks: Clocks) -> None:
    """One that is behind makes all look old; what changes between two looks is still seen."""
    room, there = settling(clocks, shared=True), clocks.wall - 3600
    assert left(room, seen(there)) > 1.9
    clocks.forward(2.1)
    assert left(room, seen(there + 1, trace=2)) > 1.9
    clocks.forward(2.1)
    assert left(room, seen(there + 1, trace=2)) == pytest.approx(87.9, abs=0.01)  # it is written in place
    clocks.forward(88)
    assert left(room, seen(there + 1, trace=2)) == 0


def test_a_clock_that_was_just_set_is_not_believed(clocks: Clocks) -> None:
    """Set forward by an hour (or after a sleep), it makes what was written a moment ago look old."""
    room = settling(clocks)
    look = seen(clocks.wall - 0.1)
    assert left(room, look) > 0
    clocks.wall += 3600
    assert left(room, look) > 1.8
    clocks.forward(2.1)
    assert left(room, look) == 0


def test_a_clock_that_was_set_back_does_not_hold_up_what_has_settled(clocks: Clocks) -> None:
    room, look = settling(clocks), seen(clocks.wall - 1)
    assert left(room, look) > 0
    clocks.wall -= 3600
    clocks.forward(2.1)
    assert left(room, look) == 0


def test_a_slow_writer_is_waited_for_twice_its_longest_pause(clocks: Clocks) -> None:
    """Seen to pause for a hundred seconds, it may do so again."""
    room, start = settling(clocks), clocks.wall
    left(room, seen(start, trace=1))
    clocks.forward(100)
    wait = left(room, seen(clocks.wall, own=start, trace=2))
    assert wait == pytest.approx(200, abs=1)


def test_one_who_comes_back_after_hours_is_no_slow_writer(clocks: Clocks) -> None:
    """A folder that was held since yesterday and is corrected now does not wait for an hour."""
    room, start = settling(clocks), clocks.wall
    left(room, seen(start, trace=1))
    clocks.forward(86400)
    assert left(room, seen(clocks.wall, trace=2)) == pytest.approx(2, abs=0.01)


def test_another_folder_of_the_name_begins_anew(clocks: Clocks) -> None:
    room, look = settling(clocks, shared=True), seen(clocks.wall)
    left(room, look)
    clocks.forward(3)
    other = Arrival(folder=b"x", dev=1, ino=2, uid=0, seen_at=0.0)
    assert room.wait(other, look, WATCH) is not None
    room.forget_all_but([])
    assert room.wait(ARRIVAL, look, WATCH) is not None


@pytest.mark.parametrize("took", [1.0, 20.0, 3000.0])
def test_a_look_is_believed_only_of_what_was_there_when_it_began(clocks: Clocks, took: float) -> None:
    """Of a large folder it takes longer than the wait, and behind it somebody may write on."""
    room, fresh = settling(clocks), seen(clocks.wall - 0.1)
    clocks.forward(took)
    wait = room.wait(ARRIVAL, fresh, WATCH, took)
    assert wait is not None
    assert wait.seconds == pytest.approx(1.9, abs=0.01)
    old = seen(clocks.wall - took - 2.1)
    assert room.wait(ARRIVAL, old, WATCH, took) is None


def test_two_long_looks_tell_of_the_time_between_them(clocks: Clocks) -> None:
    """By a clock that is not ours: neither's own length counts."""
    room, look = settling(clocks, shared=True), seen(clocks.wall)
    clocks.forward(20)
    assert room.wait(ARRIVAL, look, WATCH, 20) is not None
    clocks.forward(21)
    assert room.wait(ARRIVAL, look, WATCH, 20) is not None
    clocks.forward(22)
    assert room.wait(ARRIVAL, look, WATCH, 19.9) is None


def test_what_was_seen_to_grow_is_written_under_its_name(clocks: Clocks) -> None:
    """Whatever its times say: a client may touch the folder after each file, as if it had been renamed."""
    room = settling(clocks)
    left(room, seen(clocks.wall))
    clocks.forward(1)
    wait = room.wait(ARRIVAL, seen(clocks.wall, trace=2), WATCH)
    assert wait is not None
    assert (wait.in_place, wait.need_s) == (True, 90)


def test_in_one_step_of_the_clock_filling_and_naming_look_alike(clocks: Clocks) -> None:
    """A folder made under its name, with a first file at once; the next may come in a minute."""
    now = int(clocks.wall * 1e9)
    look = FolderActivity(size=1, newest_ns=now, own_ns=now, filled_ns=now, is_empty=False, trace=1)
    assert left(settling(clocks), look) == pytest.approx(90, abs=0.01)
    named = FolderActivity(size=1, newest_ns=now, own_ns=now, filled_ns=now - 1, is_empty=False, trace=1)
    assert left(settling(clocks), named) == pytest.approx(2, abs=0.01)
    renamed = replace(ARRIVAL, renamed=True)
    wait = settling(clocks).wait(renamed, look, WATCH)
    assert wait is not None
    assert (wait.need_s, wait.in_place) == (2, False)
    empty = replace(look, is_empty=True)
    wait = settling(clocks).wait(renamed, empty, WATCH)
    assert wait is not None
    assert wait.need_s == 90


SHUT = ItemError("the daemon may not read this", where=".")


@pytest.mark.parametrize("held_s", [1.0, 60.0, 285.0, 299.0, 40_000.0])
@pytest.mark.parametrize("looks", [1, 5])
def test_what_was_closed_and_is_opened_waits_no_longer_for_having_been_held(
    clocks: Clocks, held_s: float, looks: int
) -> None:
    """The cure changes the ctime of all there is: neither it nor the time until then is an upload's pause."""
    room, start = settling(clocks), clocks.wall
    for _ in range(looks):
        left(room, seen(start, trace=1, error=SHUT), closed=True)
        clocks.forward(held_s / looks)
    wait = room.wait(ARRIVAL, seen(clocks.wall, trace=2), WATCH)
    assert wait is not None
    assert wait.seconds == pytest.approx(90, abs=0.01)  # nobody saw what was in it, and how it came there
    assert (wait.need_s, wait.why) == (90, Why.UNSEEN)
    clocks.forward(wait.seconds)
    assert left(room, seen(clocks.wall - wait.seconds, trace=2)) == 0


def test_a_cure_in_several_commands_is_one_cure(clocks: Clocks) -> None:
    """Read and moved by and by: what it holds was seen between."""
    room, start = settling(clocks), clocks.wall
    left(room, seen(start, trace=1, error=SHUT), closed=True)
    clocks.forward(200)
    left(room, seen(clocks.wall, trace=2, content=7), closed=True)
    clocks.forward(100)
    wait = room.wait(ARRIVAL, seen(clocks.wall, trace=3, content=7), WATCH)
    assert wait is not None
    assert (wait.need_s, wait.seconds) == (90, pytest.approx(2, abs=0.01))  # the 90 s have ended


def test_what_could_be_read_and_not_moved_is_taken_soon_after_the_cure(clocks: Clocks) -> None:
    """What it holds is as it was all the time; chmod alone makes its times look as if it were written to."""
    room, start = settling(clocks), clocks.wall
    left(room, seen(start, trace=1, content=7), closed=True)
    clocks.forward(285)
    wait = room.wait(ARRIVAL, seen(clocks.wall, own=clocks.wall - 0.1, trace=2, content=7), WATCH)
    assert wait is not None
    assert (wait.need_s, wait.seconds) == (2, pytest.approx(2, abs=0.01))


def test_the_cure_does_not_make_what_is_written_under_its_name_look_whole(clocks: Clocks) -> None:
    """Its last step changes the folder itself, as a rename does; writers with pauses are still waited for."""
    room, start = settling(clocks), clocks.wall
    left(room, seen(start, own=start - 5, trace=1, content=7), closed=True)
    clocks.forward(30)
    wait = left(room, seen(clocks.wall, own=clocks.wall, trace=2, content=7))
    assert wait == pytest.approx(60, abs=0.01)
    clocks.forward(50)
    assert left(room, seen(clocks.wall, own=clocks.wall - 50, trace=3)) > 89


@pytest.mark.parametrize("pause_s", [50.0, 60.0, 85.0])
def test_a_writer_with_pauses_that_is_opened_meanwhile_is_waited_for(clocks: Clocks, pause_s: float) -> None:
    """The cure is typed in the middle of its upload."""
    room = settling(clocks)
    left(room, seen(clocks.wall, trace=1, error=SHUT), closed=True)
    clocks.forward(20)
    opened = clocks.wall
    for number in range(2, 6):
        assert left(room, seen(clocks.wall, own=opened, trace=number)) > 0
        clocks.forward(pause_s)
        assert left(room, seen(clocks.wall - pause_s, own=opened, trace=number)) > 0


def test_what_grew_as_it_was_opened_is_written_under_its_name(clocks: Clocks) -> None:
    """The time that it was held is still no pause."""
    room, start = settling(clocks), clocks.wall
    left(room, seen(start, trace=1), closed=True)
    clocks.forward(285)
    assert left(room, seen(clocks.wall, trace=2)) == pytest.approx(90, abs=0.01)


def test_a_change_of_modes_alone_is_no_growth(clocks: Clocks) -> None:
    """Nor a pause; but it is a change."""
    room, start = settling(clocks), clocks.wall
    left(room, seen(start, trace=1, content=7))
    clocks.forward(1.5)
    wait = room.wait(ARRIVAL, seen(clocks.wall, trace=2, content=7), WATCH)
    assert wait is not None
    assert (wait.need_s, wait.in_place, wait.seconds) == (2, False, pytest.approx(2, abs=0.01))


def test_nothing_waits_longer_than_ten_minutes_for_its_pauses(clocks: Clocks) -> None:
    room = settling(clocks)
    waits = []
    for number, pause_s in enumerate((0, 30, 100, 299, 301, 5000)):
        clocks.forward(pause_s)
        waits.append(left(room, seen(clocks.wall, trace=number)))
    assert max(waits) <= 600.1
