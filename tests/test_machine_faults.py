"""Which errors are this machine's fault, and what happens to a step that meets them."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

import dittohead
from dittohead.contract.worker import Done, StepContext, StepResult
from dittohead.engine import shortage
from dittohead.model.errors import ItemError, MachineShort, TargetError
from dittohead.model.states import JobState
from dittohead.startup import is_passing
from dittohead.system import machine_faults
from dittohead.system.threads import Stop
from dittohead.workers.rsync.local_target import LocalTarget
from tests.support.harness import CONFIG, Harness

SHORT: list[tuple[BaseException, str]] = [
    (RuntimeError("can't start new thread"), "threads"),
    (MemoryError(), "memory"),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), "memory"),
    (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), "processes or threads"),
    (OSError(errno.EMFILE, "Too many open files"), "open files"),
    (OSError(errno.ENFILE, "Too many open files in system"), "open files"),
    (MachineShort("no more", of="memory"), "memory"),
    (ExceptionGroup("", [ValueError(), ExceptionGroup("", [MemoryError()])]), "memory"),
]


@pytest.mark.parametrize(("error", "short"), SHORT, ids=lambda given: repr(given)[:40])
def test_what_the_machine_has_too_little_of_is_told(error: BaseException, short: str) -> None:
    """Also where a group of tasks failed of it."""
    assert machine_faults.short_of(error) == short


@pytest.mark.parametrize(
    "error", [RuntimeError("no"), OSError(errno.ENOENT, "x"), OSError("x"), ItemError("x"), ValueError()]
)
def test_other_errors_are_not_the_machines(error: BaseException) -> None:
    """A defect stays a defect."""
    assert machine_faults.short_of(error) == ""
    assert machine_faults.of_disk(error) is None


def test_a_disks_error_is_found_in_a_group_too() -> None:
    """Two tasks of one step meet the full disk."""
    full = OSError(errno.ENOSPC, "No space left on device")
    assert machine_faults.of_disk(ExceptionGroup("", [ValueError(), full])) is full


#: Each fault of a machine, with who takes it for what.
FAULTS = {
    "ENOSPC": "full disk gone passing",
    "EDQUOT": "full disk gone passing",
    "EROFS": "disk gone passing",
    "EIO": "disk gone passing",
    "ESTALE": "disk gone passing",
    "EUCLEAN": "disk gone passing",
    "ENODEV": "gone passing",
    "ENOTCONN": "gone passing",
    "ESHUTDOWN": "gone passing",
    "ETIMEDOUT": "gone passing",
    "EHOSTDOWN": "gone passing",
    "EHOSTUNREACH": "gone passing",
    "ENETDOWN": "gone passing",
    "ENETUNREACH": "gone passing",
    "EREMOTEIO": "gone passing",
    "EMFILE": "short passing",
    "ENFILE": "short passing",
    "ENOMEM": "short passing",
    "ENOBUFS": "short passing",
    "EAGAIN": "short passing",
    "EADDRINUSE": "passing",
    "EADDRNOTAVAIL": "passing",
    "ENOENT": "",
    "EACCES": "",
    "ELOOP": "",
    "EINVAL": "",
    "ECONNREFUSED": "",
}


@pytest.mark.parametrize(("name", "kinds"), FAULTS.items())
async def test_whoever_meets_a_fault_of_the_machine_takes_it_for_the_same(name: str, kinds: str) -> None:
    """A job, a target of files, and a start, each by the set that holds for it."""
    error = OSError(getattr(errno, name), "x")
    assert (machine_faults.of_disk(error) is not None) == ("disk" in kinds)
    assert bool(machine_faults.short_of(error)) == ("short" in kinds)
    assert is_passing(error) == ("passing" in kinds)

    def work(stop: Stop) -> None:
        raise error

    with pytest.raises(TargetError if "gone" in kinds else OSError) as met:
        await LocalTarget("/srv/x", mount=None, stall_s=5).run(work)
    assert getattr(met.value, "full", False) == ("full" in kinds)


def test_no_other_module_has_a_set_of_its_own() -> None:
    """But for one error with a meaning of its own there."""
    own = {
        ("cli/base.py", "EROFS"),  # what a command was given leads to nothing of use
        ("toolkit/images/child.py", "ENOMEM"),  # the child's own bound, not the machine's
        ("toolkit/images/conversion.py", "ENOSPC"),  # raised there
        ("toolkit/mounted.py", "EDQUOT"),  # one group's, of many on a disk
        ("toolkit/mounted.py", "EROFS"),  # the service's sandbox, perhaps
        ("system/own_files.py", "ENODEV"),  # it is a device node, and no file
        ("system/threads.py", "EAGAIN"),  # raised there
        ("folders/upload_protocol.py", "ENOSPC"),  # no room for attributes
    }
    package = Path(dittohead.__file__).parent
    names = "|".join(name for name, kinds in FAULTS.items() if kinds)
    found = {
        (path.relative_to(package).as_posix(), name)
        for path in package.rglob("*.py")
        if path.name != "machine_faults.py"
        for name in re.findall(rf"errno\.({names})\b", path.read_text())
    }
    assert found == own


@pytest.mark.parametrize(
    ("line", "short"),
    [
        ("/usr/bin/sh: 1: Cannot fork", "processes or threads"),
        ("bash: fork: Resource temporarily unavailable", "processes or threads"),
        ("rsync: fork failed in do_recv: Resource temporarily unavailable (11)", "processes or threads"),
        ("RuntimeError: can't start new thread", "threads"),
        ("MemoryError", "memory"),
        ("x: Cannot allocate memory (12)", "memory"),
        ("x: Too many open files", "open files"),
        ("Cannot fork.txt: no such file", ""),
        ("", ""),
    ],
)
def test_programs_say_it_in_their_last_words(line: str, short: str) -> None:
    """Nothing that stands before them is taken for them."""
    assert machine_faults.said_in(line) == short


@pytest.mark.parametrize("error", [error for error, _ in SHORT], ids=lambda given: repr(given)[:40])
async def test_a_step_that_meets_it_waits_and_that_counts_as_no_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """More often than a temporary fault of the remote system may come."""
    monkeypatch.setattr(shortage, "_FIRST_S", 0.001)
    monkeypatch.setattr(shortage, "_MOST_S", 0.002)
    harness = Harness(tmp_path, CONFIG)
    met = []

    async def short(ctx: StepContext) -> StepResult:
        met.append(ctx.attempt)
        if len(met) < 8:
            raise error
        return Done()

    harness.worker.plays["second"] = short
    harness.arrive("x")
    async with harness.running():
        assert (await harness.until_over("x")).state is JobState.DONE
    assert len(met) == 8
    harness.store.close()
