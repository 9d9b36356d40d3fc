"""What people tell a grin source: which volumes they want, how soon, and which not any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from dittohead.contract.catalogue import BATCH, Entry, Keep, Told
from dittohead.contract.source import Command
from dittohead.model.errors import ItemError
from dittohead.model.text import counted
from dittohead.sources.grin import options as words
from dittohead.sources.grin.options import QUEUES, VOLUME
from dittohead.sources.grin.refresh import WISH

COMMANDS: Mapping[str, Command] = {
    "want": Command(what="Say which volumes to bring in"),
    "unwant": Command(what="Take back that volumes are wanted, where nothing has begun"),
    "refresh": Command(what="Have all books listed in the next round"),
}

#: Barcodes that an answer names.
_NAMED = 5

#: Stages that wanting may replace; what is on its way already is left.
_MAY = frozenset({"", words.ASIDE, words.STORED, words.WANTED})


async def act(keep: Keep, command: str, args: Mapping[str, Any]) -> str:
    """Do what a person says; return what was done, in words. Raises: ItemError."""
    doers: dict[str, Callable[[Keep, Mapping[str, Any]], Awaitable[str]]] = {
        "want": _want,
        "unwant": _unwant,
        "refresh": _refresh,
    }
    return await doers[command](keep, args)


async def _want(keep: Keep, args: Mapping[str, Any]) -> str:
    dry, who = bool(args.get("dry_run")), str(args.get("who", ""))
    priority, again = int(args.get("priority") or 0), bool(args.get("again"))
    chosen, unknown = await _chosen(keep, args)
    under_way = [entry for entry in chosen if entry.stage not in _MAY]
    meant = [entry for entry in chosen if entry.stage in _MAY]
    if not dry:
        for begin in range(0, len(meant), BATCH):
            part = meant[begin : begin + BATCH]
            told = [_wanted(entry, priority, again=again) for entry in part]
            await keep.catalogue.tell(VOLUME, told, by=who, only_known=True)
    said = [
        f"{counted(len(meant), 'volume')} {'would be' if dry else 'is' if len(meant) == 1 else 'are'} wanted"
    ]
    if under_way:
        said.append(f"{len(under_way)} on the way already")
    if unknown:
        said.append(f"{len(unknown)} not known at GRIN ({_some(unknown)})")
    return "; ".join(said)


def _wanted(entry: Entry, priority: int, *, again: bool) -> Told:
    return Told(
        key=entry.key,
        stage=words.WANTED,
        over_stages=_MAY,
        priority=priority,
        reason="somebody wants it",
        attributes={"again": True if again else None, "evictions": None, "refusals": None},
    )


async def _chosen(keep: Keep, args: Mapping[str, Any]) -> tuple[list[Entry], list[str]]:
    """Return the volumes that are meant, and barcodes that nobody knows."""
    barcodes, queue = [str(one).strip() for one in args.get("keys") or ()], str(args.get("queue") or "")
    limit, sample = int(args.get("limit") or 0), int(args.get("sample") or 0)
    barcodes = [barcode for barcode in barcodes if barcode]
    if bool(barcodes) == bool(queue or args.get("changed")):
        raise ItemError("name volumes, or a queue", hint=f"Queues are: {', '.join(QUEUES)}")
    if barcodes:
        found, unknown = await _by_barcode(keep, barcodes)
        return found[: limit or len(found)], unknown
    most = limit or sample or 1_000_000
    if args.get("changed"):
        return await _converted_since(keep, most), []
    if queue not in QUEUES:
        raise ItemError(f'there is no queue "{queue}"', hint=f"Queues are: {', '.join(QUEUES)}")
    picked = await keep.catalogue.pick(VOLUME, [QUEUES[queue]], [""], sample or most, sample=bool(sample))
    return picked[:most], []


async def _by_barcode(keep: Keep, barcodes: Sequence[str]) -> tuple[list[Entry], list[str]]:
    found: dict[str, Entry] = {}
    unknown: list[str] = []
    ordered = list(dict.fromkeys(barcodes))
    for begin in range(0, len(ordered), BATCH):
        part = ordered[begin : begin + BATCH]
        known = await keep.catalogue.get(VOLUME, [*part, *(one.upper() for one in part)])
        for one in part:
            entry = known.get(one) or known.get(one.upper())  # people write small letters
            if entry is None:
                unknown.append(one)
            else:
                found[entry.key] = entry
    return list(found.values()), unknown


async def _converted_since(keep: Keep, most: int) -> list[Entry]:
    """Return stored volumes that are in the pool: those with another ETag are fetched again."""
    return await keep.catalogue.pick(VOLUME, [words.CONVERTED], [words.STORED], most)


async def _unwant(keep: Keep, args: Mapping[str, Any]) -> str:
    barcodes = [str(one).strip() for one in args.get("keys") or ()]
    if not barcodes:
        raise ItemError("name volumes")
    found, unknown = await _by_barcode(keep, barcodes)
    idle = [entry for entry in found if entry.stage in (words.WANTED, words.ASIDE)]
    told = [Told(key=entry.key, stage="", reason="nobody wants it any more") for entry in idle]
    if not args.get("dry_run"):
        await keep.catalogue.tell(VOLUME, told, by=str(args.get("who", "")), only_known=True)
    left = len(found) - len(idle)
    said = f"{counted(len(idle), 'volume')} not wanted any more"
    said += f"; {left} left as they are, on their way or never wanted" if left else ""
    return said + (f"; {len(unknown)} not known ({_some(unknown)})" if unknown else "")


async def _refresh(keep: Keep, args: Mapping[str, Any]) -> str:
    state = "accept" if args.get("accept") else "due"
    told = Told(key="refresh", state=state, reason="somebody asked for it")
    await keep.catalogue.tell(WISH, [told], by=str(args.get("who", "")))
    said = "all books are listed in the next round"
    return said + (", and what is not listed is believed to be gone" if state == "accept" else "")


def _some(barcodes: Sequence[str]) -> str:
    more = f", and {len(barcodes) - _NAMED} more" if len(barcodes) > _NAMED else ""
    return ", ".join(barcodes[:_NAMED]) + more
