"""Transactions on what sources saw upstream: items, and what upstream waits for: orders."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from dittohead.contract.source import Item, Order, Sighting
from dittohead.model.states import ItemState
from dittohead.store.tables import items, order_items, orders, sources

#: Keys in one statement; SQLite takes 32,766 values.
_CHUNK = 500

_CHANGE = items.update().where(items.c.id == sa.bindparam("b_id"))


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """What a source remembers of its rounds."""

    position: dict[str, Any]
    looked_at: float | None  #: when the last round began, seconds since the epoch
    finished_at: float | None
    error: str

    @property
    def unfinished(self) -> bool:
        """Whether the last round has not come to its end: it goes on, was killed, or failed."""
        begun = self.looked_at is not None
        return begun and (self.finished_at is None or self.finished_at < (self.looked_at or 0.0))

    @property
    def whole_before(self) -> float:
        """Of folders whose items were all seen before this moment everything there is has been seen.

        While a round goes on, the next page of a listing may hold more of a folder.
        """
        if self.looked_at is None:
            return 0.0
        return self.looked_at if self.unfinished else math.inf


@dataclass(frozen=True, kw_only=True)
class Ready:
    """A folder all of whose items may be fetched."""

    folder: str
    files: int
    size: int  #: bytes


# -- what was seen ---------------------------------------------------------------------------


def saw(connection: Connection, source: str, found: Sequence[Sighting], now: float) -> tuple[int, int]:
    """Remember items; one that is as before costs no write.

    Args:
        source: the source's name.
        found: what was seen; of two with one key the last counts.
        now: seconds since the epoch.

    Returns: (how many are new, how many have changed so that they are fetched again).
    """
    wanted = {sighting.key: sighting for sighting in found}  # the last of a key counts
    known = {row["key"]: row for row in _rows(connection, source, list(wanted))}
    fresh = [sighting for key, sighting in wanted.items() if key not in known]
    if fresh:
        connection.execute(items.insert(), [_new(source, sighting, now) for sighting in fresh])
    changes = [
        {"b_id": known[key]["id"], **change}
        for key, sighting in wanted.items()
        if key in known and (change := _change(known[key], sighting, now))
    ]
    for change in changes:
        connection.execute(_CHANGE, change)
    return len(fresh), sum(change.get("state") == ItemState.SEEN for change in changes)


def differing(connection: Connection, source: str, found: Sequence[Sighting]) -> list[Sighting]:
    """Return those that `saw` would treat as new or changed; nothing is written."""
    known = {row["key"]: row for row in _rows(connection, source, [s.key for s in found])}
    return [
        s for s in found if s.key not in known or _change(known[s.key], s, 0.0).get("state") == ItemState.SEEN
    ]


def _rows(connection: Connection, source: str, keys: Sequence[str]) -> Iterable[RowMapping]:
    for begin in range(0, len(keys), _CHUNK):
        chunk = keys[begin : begin + _CHUNK]
        yield from connection.execute(
            sa.select(items).where(items.c.source == source, items.c.key.in_(chunk))
        ).mappings()


def _new(source: str, sighting: Sighting, now: float) -> dict[str, Any]:
    state = ItemState.REFUSED if sighting.refused else ItemState.SEEN
    return {
        "source": source,
        "key": sighting.key,
        "state": state.value,
        "drop_id": None,
        "fetched": "",
        "seen_at": now,
        **_told(sighting),
    }


def _told(sighting: Sighting) -> dict[str, Any]:
    return {
        "folder": sighting.folder,
        "path": sighting.path,
        "version": sighting.version,
        "size": sighting.size,
        "ready_at": sighting.ready_at,
        "marker": int(sighting.marker),
        "reason": sighting.refused,
        "data": sighting.data,
        "rank": -sighting.priority,
        "turn": sighting.turn,
    }


def _change(row: RowMapping, sighting: Sighting, now: float) -> dict[str, Any]:
    """Return what is to be written of an item seen again; {} when nothing is."""
    state = ItemState(row["state"])
    another = row["version"] != sighting.version or (sighting.turn != "" and row["turn"] != sighting.turn)
    if sighting.refused:
        same = state is ItemState.REFUSED and row["reason"] == sighting.refused and not another
        if same or state is ItemState.FETCHING:
            return {}
        return {"state": ItemState.REFUSED.value, "drop_id": None, "seen_at": now, **_told(sighting)}
    if state is ItemState.FETCHING:
        # Its folder is as it was decided; the new content goes with it.
        told = {"version": sighting.version, "size": sighting.size, "ready_at": sighting.ready_at}
        told["turn"] = sighting.turn
        return {**told, "data": sighting.data, "seen_at": now} if another else {}
    # What its source refused may be admitted by other options; what the engine refused had a folder.
    admitted = state is ItemState.REFUSED and row["drop_id"] is None
    if another or admitted or state is ItemState.GONE:
        return {"state": ItemState.SEEN.value, "drop_id": None, "seen_at": now, **_told(sighting)}
    moved = (row["folder"], row["path"]) != (sighting.folder, sighting.path)
    order = (sighting.ready_at, -sighting.priority)
    if state is ItemState.SEEN and (moved or (row["ready_at"], row["rank"]) != order):
        return _told(sighting)
    return {}


def rounds(connection: Connection, source: str) -> SourceRow:
    """Return what a source remembers of its rounds."""
    row = connection.execute(sa.select(sources).where(sources.c.name == source)).mappings().first()
    if row is None:
        return SourceRow(position={}, looked_at=None, finished_at=None, error="")
    return SourceRow(
        position=row["position"],
        looked_at=row["looked_at"],
        finished_at=row["finished_at"],
        error=row["error"],
    )


def put_round(connection: Connection, source: str, /, **changes: Any) -> None:
    """Change what a source remembers of its rounds."""
    result = connection.execute(sources.update().where(sources.c.name == source).values(**changes))
    if result.rowcount == 0:
        blank: dict[str, Any] = {"position": {}, "looked_at": None, "finished_at": None, "error": ""}
        connection.execute(sources.insert().values(name=source, **(blank | changes)))


def sooner(connection: Connection, seconds: float) -> None:
    """Let rounds and what is to be kept be due so much earlier: the clock was set back."""
    connection.execute(
        sources.update()
        .where(sources.c.looked_at.is_not(None))
        .values(looked_at=sources.c.looked_at - seconds, finished_at=sources.c.finished_at - seconds)
    )
    connection.execute(
        orders.update().where(orders.c.keep_at.is_not(None)).values(keep_at=orders.c.keep_at - seconds)
    )


def ready(connection: Connection, source: str, now: float, *, marker: bool, limit: int) -> list[Ready]:
    """Return folders whose every item may be fetched now: by priority, then the longest waiting first.

    What came to light in a round that has not come to its end waits for that.

    Args:
        marker: only those of which one item is a marker.
    """
    files = sa.func.sum(1 - items.c.marker)
    query = (
        sa.select(items.c.folder, files.label("files"), sa.func.sum(items.c.size).label("size"))
        .where(items.c.source == source, items.c.state == ItemState.SEEN.value)
        .group_by(items.c.folder)
        .having(sa.func.max(items.c.ready_at) <= now, files > 0)
        .order_by(sa.func.min(items.c.rank), sa.func.min(items.c.seen_at), items.c.folder)
        .limit(limit)
    )
    before = rounds(connection, source).whole_before
    if before < math.inf:
        query = query.having(sa.func.max(items.c.seen_at) < before)
    if marker:
        query = query.having(sa.func.max(items.c.marker) == 1)
    return [
        Ready(folder=row["folder"], files=int(row["files"]), size=int(row["size"]))
        for row in connection.execute(query).mappings()
    ]


def next_ready(connection: Connection, source: str, now: float) -> float | None:
    """Return when the next item may be fetched, later than `now`; None when none waits for that."""
    return connection.execute(
        sa.select(sa.func.min(items.c.ready_at)).where(
            items.c.source == source, items.c.state == ItemState.SEEN.value, items.c.ready_at > now
        )
    ).scalar()


def counts(connection: Connection, source: str) -> dict[str, int]:
    """Return how many items there are in each state."""
    found = connection.execute(
        sa.select(items.c.state, sa.func.count()).where(items.c.source == source).group_by(items.c.state)
    ).all()
    return {state.value: 0 for state in ItemState} | {row[0]: row[1] for row in found}


def waiting(connection: Connection, source: str) -> int:
    """Return how many items were seen that nobody has begun to fetch."""
    query = sa.select(sa.func.count()).where(items.c.source == source, items.c.state == ItemState.SEEN.value)
    return int(connection.execute(query).scalar_one())


def refused(connection: Connection, source: str, limit: int) -> list[tuple[str, str]]:
    """Return (key, reason) of some items that are never fetched."""
    query = sa.select(items.c.key, items.c.reason).where(
        items.c.source == source, items.c.state == ItemState.REFUSED.value
    )
    return [(row[0], row[1]) for row in connection.execute(query.order_by(items.c.key).limit(limit))]


def _below(source: str, prefix: str) -> list[sa.ColumnElement[bool]]:
    # Not LIKE, to which SQLite's capitals are as small letters.
    return [items.c.source == source, sa.func.substr(items.c.key, 1, len(prefix)) == prefix]


#: States of items that have ended, and may be wanted again.
_OVER = [state.value for state in (ItemState.DONE, ItemState.FAILED, ItemState.REFUSED, ItemState.GONE)]


def forgettable(connection: Connection, source: str, prefix: str) -> tuple[int, int]:
    """Return how many items below a prefix `forget` would take, and how many are under way."""
    found = connection.execute(
        sa.select(items.c.state, sa.func.count()).where(*_below(source, prefix)).group_by(items.c.state)
    ).all()
    under_way = (ItemState.FETCHING, ItemState.DROPPED)
    return sum(n for state, n in found if state in _OVER), sum(n for s, n in found if s in under_way)


def forget(connection: Connection, source: str, prefix: str, now: float) -> tuple[int, int]:
    """Let items below a prefix be fetched again, and let the next round begin from the start.

    Those under way are left: their folders are being fetched or processed now. The others wait for the
    round, which may find more for their folders.

    Args:
        source: the source's name.
        prefix: what their keys begin with; "" for all.
        now: seconds since the epoch.

    Returns: as `forgettable`.
    """
    said = forgettable(connection, source, prefix)
    connection.execute(
        items.update()
        .where(*_below(source, prefix), items.c.state.in_(_OVER))
        .values(state=ItemState.SEEN.value, reason="", drop_id=None, fetched="", ready_at=0.0, seen_at=now)
    )
    # Anyone who wants a part of a folder again wants it without a new marker.
    wanted = sa.select(items.c.folder).where(*_below(source, prefix), items.c.state == ItemState.SEEN.value)
    connection.execute(
        items.update()
        .where(
            items.c.source == source,
            items.c.marker == 1,
            items.c.state.in_(_OVER),
            items.c.folder.in_(wanted),
        )
        .values(state=ItemState.SEEN.value, drop_id=None)
    )
    put_round(connection, source, position={}, looked_at=None)
    return said


# -- orders ----------------------------------------------------------------------------------


def put_order(
    connection: Connection,
    source: str,
    handle: str,
    keys: Sequence[str],
    data: dict[str, Any],
    now: float,
    *,
    keep_at: float | None = None,
    unreadable: str = "",
) -> None:
    """Remember an order, replacing what was known of it.

    Args:
        source: the source's name.
        handle: the order's name upstream; one row for each.
        keys: the items that upstream waits for; a key that comes twice counts once.
        data: JSON, the source's own, given back when the order is settled.
        now: when it was seen, in seconds since the epoch.
        keep_at: when `Upstream.keep` is due for it, in seconds since the epoch; None for never.
        unreadable: why the order cannot be understood; "" when it can.
    """
    values = {
        "state": "unreadable" if unreadable else "open",
        "reason": unreadable,
        "data": data,
        "seen_at": now,
        "keep_at": keep_at,
    }
    number = connection.execute(
        sa.select(orders.c.id).where(orders.c.source == source, orders.c.handle == handle)
    ).scalar()
    if number is None:
        result = connection.execute(orders.insert().values(source=source, handle=handle, **values))
        key = result.inserted_primary_key
        assert key is not None  # noqa: S101
        number = key[0]
    else:
        connection.execute(orders.update().where(orders.c.id == number).values(**values))
        connection.execute(order_items.delete().where(order_items.c.order_id == number))
    if keys:
        connection.execute(
            order_items.insert(), [{"order_id": number, "key": key} for key in dict.fromkeys(keys)]
        )


def known_orders(connection: Connection, source: str, handles: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the data of those of these orders that are remembered."""
    found: dict[str, dict[str, Any]] = {}
    for begin in range(0, len(handles), _CHUNK):
        query = sa.select(orders.c.handle, orders.c.data).where(
            orders.c.source == source, orders.c.handle.in_(list(handles[begin : begin + _CHUNK]))
        )
        found.update((row[0], row[1]) for row in connection.execute(query))
    return found


def settleable(connection: Connection, source: str, limit: int) -> list[Order]:
    """Return orders all of whose items are done in the version seen last."""
    undone = (
        sa.select(order_items.c.key)
        .select_from(
            order_items.outerjoin(items, (items.c.key == order_items.c.key) & (items.c.source == source))
        )
        .where(
            order_items.c.order_id == orders.c.id,
            sa.or_(items.c.state.is_(None), items.c.state != ItemState.DONE.value),
        )
    )
    query = (
        sa.select(orders)
        .where(orders.c.source == source, orders.c.state == "open", ~sa.exists(undone))
        .order_by(orders.c.id)
        .limit(limit)
    )
    found = connection.execute(query).mappings().all()
    versions: dict[int, dict[str, str]] = {row["id"]: {} for row in found}
    named = (
        sa.select(order_items.c.order_id, items.c.key, items.c.version)
        .select_from(order_items.join(items, (items.c.key == order_items.c.key) & (items.c.source == source)))
        .where(order_items.c.order_id.in_(list(versions)))
    )
    for order, key, version in connection.execute(named):
        versions[order][key] = version
    return [
        Order(id=row["id"], handle=row["handle"], data=row["data"], versions=versions[row["id"]])
        for row in found
    ]


def keepable(connection: Connection, source: str, now: float, limit: int) -> list[Order]:
    """Return orders that are to be kept now: those all of whose items are done or on their way.

    Args:
        source: the source's name.
        now: seconds since the epoch; orders with a later `keep_at` wait.
        limit: how many at most; those that are due longest come first.
    """
    lost = [ItemState.FAILED.value, ItemState.REFUSED.value, ItemState.GONE.value]
    failed = (
        sa.select(order_items.c.key)
        .select_from(order_items.join(items, (items.c.key == order_items.c.key) & (items.c.source == source)))
        .where(order_items.c.order_id == orders.c.id, items.c.state.in_(lost))
    )
    query = (
        sa.select(orders)
        .where(
            orders.c.source == source, orders.c.state == "open", orders.c.keep_at <= now, ~sa.exists(failed)
        )
        .order_by(orders.c.keep_at)
        .limit(limit)
    )
    return [
        Order(id=row["id"], handle=row["handle"], data=row["data"])
        for row in connection.execute(query).mappings()
    ]


def kept(connection: Connection, number: int, keep_at: float | None) -> None:
    """Record when an order is to be kept again."""
    connection.execute(orders.update().where(orders.c.id == number).values(keep_at=keep_at))


def settled(connection: Connection, number: int) -> None:
    """Forget an order that was settled upstream."""
    connection.execute(order_items.delete().where(order_items.c.order_id == number))
    connection.execute(orders.delete().where(orders.c.id == number))


def order_counts(connection: Connection, source: str) -> dict[str, int]:
    """Return how many orders are open, and how many cannot be read."""
    found = connection.execute(
        sa.select(orders.c.state, sa.func.count()).where(orders.c.source == source).group_by(orders.c.state)
    ).all()
    return {"open": 0, "unreadable": 0} | {row[0]: row[1] for row in found}


def to_item(row: RowMapping) -> Item:
    """Return a row of the items table as an Item."""
    return Item(
        id=row["id"],
        key=row["key"],
        path=row["path"],
        version=row["version"],
        size=row["size"],
        data=row["data"],
    )
