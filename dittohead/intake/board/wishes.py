"""What a file on the board asks for: read as hostile, then decided by where its entry stands."""

from __future__ import annotations

import json
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from urllib.parse import unquote

from dittohead.contract.board import DOWNLOADED, HOLD, OWN_FIELDS, Board
from dittohead.intake.board import disk as disk_module
from dittohead.intake.board.disk import TOKEN, BoardDisk, Seen, name_of
from dittohead.intake.board.rights import Rights
from dittohead.intake.board.stages import STORED, Stand
from dittohead.model.errors import DittoheadError
from dittohead.model.states import Action, DropState, JobState, StepState
from dittohead.store.board import Standing
from dittohead.system.files import kind_of

#: A field's value is no longer than this.
_LONGEST = 1000


class Refused(Exception):
    """A file that asks for nothing that can be done; says why, for people.

    Args:
        why: in words.
        wish: what it asks for, where that is known: a token of ours, that goes back to its place.
    """

    def __init__(self, why: str, wish: Wish | None = None) -> None:
        super().__init__(why)
        self.wish = wish


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """What one file asks for."""

    seen: Seen
    keys: tuple[str, ...]  #: one, but of a list
    who: str
    fields: Mapping[str, str] = field(default_factory=dict)
    was: str = ""  #: the stage that its text names: where it was moved or copied from
    is_list: bool = False


def read(seen: Seen, disk: BoardDisk, rights: Rights, board: Board, known: Collection[str]) -> Wish:
    """Return what a file asks for. Blocking.

    Args:
        seen: the file, as it was seen.
        disk: the board.
        rights: who may ask.
        board: the source's words.
        known: names of fields that tokens may have.

    Raises: Refused; OSError: it cannot be looked at now.
    """
    if not seen.is_file:
        raise Refused(
            f"this is a {kind_of(stat.S_IFMT(seen.status.st_mode))}. A token is a file; folders come in "
            "through the inbox alone"
        )
    who, why = rights.judge(seen.status, disk.directory(seen.stage))
    if why and (not seen.is_ours or seen.status.st_nlink > 1):
        raise Refused(why)
    wish = _parsed(seen, disk, who, board, known)
    if why:
        raise Refused(why, replace(wish, who="somebody"))
    return wish


def _parsed(seen: Seen, disk: BoardDisk, who: str, board: Board, known: Collection[str]) -> Wish:
    is_list = not seen.name.endswith(TOKEN)
    first = next(iter(board.columns))
    if is_list and seen.stage != first:
        raise Refused(f"a token's name ends with {TOKEN}; a file of keys goes into {first}/")
    try:
        data = disk.read(seen, disk_module.MOST_LIST if is_list else disk_module.MOST_TOKEN)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Refused("this is not text in UTF-8") from error
    except (DittoheadError, ValueError) as error:
        raise Refused(str(error)) from error
    return _list(seen, text, who) if is_list else _token(seen, text, who, board, known)


def _list(seen: Seen, text: str, who: str) -> Wish:
    """Return the keys of a file: one a line, or the first cell of a table."""
    cells = (line.replace(",", "\t").split("\t")[0].strip().strip('"') for line in text.splitlines())
    keys = tuple(dict.fromkeys(cell for cell in cells if cell and not cell.startswith("#")))
    if not keys:
        raise Refused("there is no key in it: one a line is needed")
    if any(not key.isprintable() for key in keys):
        raise Refused("it has control characters, so it is not a list of keys")
    return Wish(seen=seen, keys=keys, who=who, is_list=True)


def _token(seen: Seen, text: str, who: str, board: Board, known: Collection[str]) -> Wish:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"this is not JSON ({type(error).__name__}): {str(error)[:200]}") from error
    if not isinstance(told, dict):
        raise Refused(f'a token is a JSON object, such as {{"{board.key}": "..."}}')
    stem = seen.name.removesuffix(TOKEN)
    key = _key(told, board, stem)
    fields = {}
    for name, value in told.items():
        if name in OWN_FIELDS or name == board.key:
            continue
        if name not in known:
            more = ", ".join(sorted(known)) or "none"
            raise Refused(
                f'it has a field "{name[:100]}", which this source does not know. It knows: {more}. '
                "Fields are named by `fields:` of the source in config.yaml"
            )
        if not isinstance(value, str) or not value or len(value) > _LONGEST or not value.isprintable():
            raise Refused(f'the field "{name}" is not text of 1 to {_LONGEST} characters in one line')
        fields[name] = value
    was = told.get("stage")
    return Wish(seen=seen, keys=(key,), who=who, fields=fields, was=was if isinstance(was, str) else "")


def _key(told: Mapping[str, Any], board: Board, stem: str) -> str:
    given = told.get(board.key, told.get("key", unquote(stem)))
    key = str(given) if isinstance(given, (str, int)) and not isinstance(given, bool) else ""
    if not key or not key.isprintable():
        raise Refused(f'its "{board.key}" is not text')
    if stem not in (key, name_of(key)):
        raise Refused(f'its "{board.key}" is "{key[:200]}": so its name must be {key[:200]}{TOKEN}')
    return key


# -- what is to be done --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class Ask:
    """A request that a wish becomes."""

    action: Action | Literal["want"]  #: "want" is told to the source, with those of others
    of: str = ""  #: a job's id; "" for the source, with the key among the arguments
    args: Mapping[str, Any] = field(default_factory=dict)


def decide(wish: Wish, found: Standing, now: Stand | None, board: Board, stored: str) -> list[Ask]:
    """Return what is to be asked for one key of a wish, in order; [] where it is so already.

    Args:
        wish: what the file asks for.
        found: the entry, with its job.
        now: where it is shown; None where it is not on its way.
        board: the source's words.
        stored: its word for what is stored.

    Raises: Refused.
    """
    if wish.seen.stage == HOLD:
        return _hold(found, now)
    if now is not None and now.stage == HOLD:
        return _thaw(found)
    if wish.seen.stage in board.columns:
        return _from_upstream(wish, found, now, board, stored)
    return _from_step(wish.seen.stage, found, now, board)


def _hold(found: Standing, now: Stand | None) -> list[Ask]:
    if now is None or now.stage == STORED:
        raise Refused("it is not on its way, so it cannot be held")
    if now.stage == HOLD:
        return []
    if now.failed:
        raise Refused(f"it does not go on anyway: {now.failed}")
    if found.active:
        return [Ask(action=Action.FREEZE, of=found.job, args={"reason": "held on the board"})]
    return [Ask(action=Action.SOURCE_HOLD)]


def _thaw(found: Standing) -> list[Ask]:
    asked = [Ask(action=Action.SOURCE_THAW)] if found.entry.stage == HOLD else []
    if found.job_state is JobState.FROZEN:
        asked.append(Ask(action=Action.THAW, of=found.job))
    return asked


def _from_upstream(wish: Wish, found: Standing, now: Stand | None, board: Board, stored: str) -> list[Ask]:
    stage = found.entry.stage
    if stage == board.wanted:
        return []
    if stage == stored and wish.was:
        return [Ask(action=Action.SOURCE_REFETCH)]
    if stage in ("", stored, board.aside):
        return [Ask(action="want", args={"again": True} if stage == board.aside else {})]
    if now is not None and now.failed:
        ended = [Ask(action=Action.DISMISS, of=found.job)] if found.job else []
        return [*ended, Ask(action=Action.SOURCE_REFETCH)]
    if found.job:
        raise Refused(
            f"its job is not over ({found.job_state}). To begin again: dittohead cancel {found.job}, then "
            "move it again"
        )
    where = "its folder is in the inbox" if found.drop is DropState.DROPPED else "it is being fetched"
    raise Refused(f"it is on its way: {where}")


def _from_step(stage: str, found: Standing, now: Stand | None, board: Board) -> list[Ask]:
    names = now.words if now is not None else ()
    if not found.job:
        first = next(iter(board.columns))
        raise Refused(f"it has no job that could begin again from here; to bring it in, move it to {first}/")
    if stage != DOWNLOADED and stage not in names:
        raise Refused(f'its job has no stage "{stage}": it has {", ".join((DOWNLOADED, *names))}')
    begin = 0 if stage == DOWNLOADED else len(names) - names[::-1].index(stage)
    if begin >= len(found.steps):
        raise Refused("no step comes after this stage")
    undone = next((step.name for step in found.steps[:begin] if step.state is not StepState.DONE), None)
    if undone is not None:
        raise Refused(f"it has not come so far: the step {undone} is not done")
    if found.active:
        raise Refused(
            f"its job is under way ({found.job_state}). To begin again: dittohead cancel {found.job}, then "
            "move it again"
        )
    return [Ask(action=Action.RERUN, of=found.job, args={"from": found.steps[begin].name})]
