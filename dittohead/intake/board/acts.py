"""What is asked of entries on a board: hold them, let them go on, bring them in once more."""

from __future__ import annotations

import time
from collections.abc import Sequence

from dittohead.contract.board import HELD, HOLD, Board
from dittohead.contract.catalogue import Keep, Told
from dittohead.model.errors import ItemError
from dittohead.store import Store
from dittohead.store import board as board_store


async def hold(keep: Keep, kind: str, board: Board, keys: Sequence[str], who: str) -> str:
    """Hold entries: no source picks them, and none of their folders is begun. Return what was done, in words.

    Args:
        keep: the source's catalogue.
        kind: the kind of entry.
        board: the source's words.
        keys: of the entries.
        who: asks for it.

    Raises: ItemError: none of them can be held.
    """
    known = await keep.catalogue.get(kind, keys)
    may = [one for one in known.values() if one.stage in (board.wanted, board.fetching, board.failed)]
    if not may:
        raise ItemError("none of these is on its way, so none can be held")
    told = [
        Told(
            key=one.key,
            stage=HOLD,
            over_stages=frozenset({one.stage}),
            reason=f"held by {who}",
            attributes={HELD: one.stage},
        )
        for one in may
    ]
    await keep.catalogue.tell(kind, told, by=who, only_known=True)
    return f"{_counted(len(may))} held"


async def thaw(keep: Keep, kind: str, board: Board, keys: Sequence[str], who: str) -> str:
    """Let held entries go on from where they were; return what was done, in words.

    Args:
        keep: the source's catalogue.
        kind: the kind of entry.
        board: the source's words.
        keys: of the entries.
        who: asks for it.

    Raises: ItemError: none of them is held.
    """
    known = await keep.catalogue.get(kind, keys)
    held = [one for one in known.values() if one.stage == HOLD]
    if not held:
        raise ItemError("none of these is held")
    told = [
        Told(
            key=one.key,
            stage=str(one.attributes.get(HELD) or board.wanted),
            over_stages=frozenset({HOLD}),
            reason="",
            attributes={HELD: None},
        )
        for one in held
    ]
    await keep.catalogue.tell(kind, told, by=who, only_known=True)
    return f"{_counted(len(held))} let go on"


async def again(store: Store, keep: Keep, kind: str, board: Board, keys: Sequence[str], who: str) -> str:
    """Bring entries in once more, whether they have changed or not; return what was done, in words.

    Args:
        store: knows the items of their folders.
        keep: the source's catalogue.
        kind: the kind of entry.
        board: the source's words.
        keys: of the entries.
        who: asks for it.

    Raises: ItemError: none of them is known.
    """
    known = await keep.catalogue.get(kind, keys)
    if not known:
        raise ItemError("none of these is known")
    for key in known:
        await store.write(board_store.forget_folder, keep.name, key)
    mark = f"{time.time():.6f}"  # a wish of its own
    wish = {"again": mark, "turn": mark, "job": None}
    told = [
        Told(key=key, stage=board.wanted, reason="somebody asked for it again", attributes=wish)
        for key in known
    ]
    await keep.catalogue.tell(kind, told, by=who, only_known=True)
    return f"{_counted(len(known))} brought in again"


def _counted(count: int) -> str:
    return "1 entry is" if count == 1 else f"{count:,} entries are"
