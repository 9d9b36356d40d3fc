"""What people tell a grin source: which volumes they want, how soon, and which not any more."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from dittohead.contract.catalogue import BATCH, CatalogueEntry, Keep, Told
from dittohead.contract.source import Command
from dittohead.model.errors import ItemError
from dittohead.model.text import counted
from dittohead.sources.grin import options as words
from dittohead.sources.grin.options import QUEUES, VOLUME
from dittohead.sources.grin.refresh import WISH

COMMANDS: Mapping[str, Command] = {
    "want": Command(what="Say which volumes to bring in"),
    "unwant": Command(what="Take back the wish for volumes, where nothing has begun"),
    "refresh": Command(what="Have all books listed in the next round"),
}

#: Barcodes that an answer names.
_NAMED = 5

#: Volumes that are held in memory at once.
_MOST = 100_000

#: Stages that wanting may replace; and those that it replaces where it is insisted on.
_MAY = frozenset({"", words.ASIDE, words.WANTED})
_INSISTED = _MAY | {words.STORED, words.BROKEN}

#: The words for volumes that are left as they are, by their stage.
_LEFT = {
    words.FETCHING: "on the way already",
    words.STORED: "stored already (--again fetches them once more)",
    words.BROKEN: "failed here (dittohead retry, or --again fetches them once more)",
}


async def act(keep: Keep, command: str, args: Mapping[str, Any]) -> str:
    """Do what a person says; return what was done, in words. Raises: ItemError."""
    doers: dict[str, Callable[[Keep, Mapping[str, Any]], Awaitable[str]]] = {
        "want": _want,
        "unwant": _unwant,
        "refresh": _refresh,
    }
    return await doers[command](keep, args)


async def _want(keep: Keep, args: Mapping[str, Any]) -> str:
    barcodes = [text for one in args.get("keys") or () if (text := str(one).strip())]
    queue, sample = str(args.get("queue") or ""), int(args.get("sample") or 0)
    if bool(barcodes) == bool(queue or args.get("changed")):
        raise ItemError("name volumes, or a queue", hint=f"Queues are: {', '.join(QUEUES)}")
    if queue and queue not in QUEUES:
        raise ItemError(f'there is no queue "{queue}"', hint=f"Queues are: {', '.join(QUEUES)}")
    if queue and not sample:
        return await _want_queue(keep, QUEUES[queue], args)
    limit = int(args.get("limit") or 0)
    if barcodes:
        chosen, unknown = await _by_barcode(keep, barcodes)
    else:
        state, stage = (QUEUES[queue], "") if queue else (words.CONVERTED, words.STORED)
        most = min(sample or limit or _MOST, _MOST)
        chosen = await keep.catalogue.pick(VOLUME, [state], [stage], most, sample=bool(sample))
        unknown = []
    return await _want_these(keep, chosen[: limit or len(chosen)], unknown, args)


async def _want_queue(keep: Keep, state: str, args: Mapping[str, Any]) -> str:
    """Want all of a queue, in pieces: it may hold a million."""
    there = (await keep.catalogue.counts(VOLUME)).get((state, ""), 0)
    most = min(int(args.get("limit") or there), there)
    if args.get("dry_run"):
        return _said(most, dry=True)
    count = 0
    while count < most:
        part = await keep.catalogue.pick(VOLUME, [state], [""], min(BATCH, most - count))
        if not part:
            break
        await _tell(keep, part, args)
        count += len(part)
    return _said(count, dry=False)


async def _want_these(
    keep: Keep, chosen: Sequence[CatalogueEntry], unknown: Sequence[str], args: Mapping[str, Any]
) -> str:
    may = _may(args)
    meant = [entry for entry in chosen if entry.stage in may]
    dry = bool(args.get("dry_run"))
    if not dry:
        for begin in range(0, len(meant), BATCH):
            await _tell(keep, meant[begin : begin + BATCH], args)
    said = [_said(len(meant), dry=dry)]
    left = Counter(entry.stage for entry in chosen if entry.stage not in may)
    said += [f"{count:,} {_LEFT.get(stage, stage)}" for stage, count in sorted(left.items())]
    if unknown:
        said.append(f"{len(unknown)} not known at GRIN ({_some(unknown)})")
    return "; ".join(said)


def _may(args: Mapping[str, Any]) -> frozenset[str]:
    """Return the stages that wanting may replace."""
    return _INSISTED if args.get("again") or args.get("changed") else _MAY


def _said(count: int, *, dry: bool) -> str:
    return f"{counted(count, 'volume')} {'would be' if dry else 'is now' if count == 1 else 'are now'} wanted"


async def _tell(keep: Keep, part: Sequence[CatalogueEntry], args: Mapping[str, Any]) -> None:
    priority = int(args.get("priority") or 0)
    # Each wish of its own: an archive that was fetched is fetched once more for it, and not twice.
    again = f"{time.time():.6f}" if args.get("again") else None
    told = [_wanted(entry, priority, again, _may(args)) for entry in part]
    await keep.catalogue.tell(VOLUME, told, by=str(args.get("who", "")), only_known=True)


def _wanted(entry: CatalogueEntry, priority: int, again: str | None, may: frozenset[str]) -> Told:
    return Told(
        key=entry.key,
        stage=words.WANTED,
        over_stages=may,
        priority=priority,
        reason="somebody wants it",
        attributes={"again": again, "turn": again, "evictions": None, "refusals": None, "looks": None},
    )


async def _by_barcode(keep: Keep, barcodes: Sequence[str]) -> tuple[list[CatalogueEntry], list[str]]:
    found: dict[str, CatalogueEntry] = {}
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
