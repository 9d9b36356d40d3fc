"""Keeps one source's board: shows the store as tokens, and takes what people ask for by moving them.

The store is the truth. A token that lies where nobody put it, or is another than was written, is a request;
then it is written again where its entry stands. So a crash at any moment loses nothing: what was asked for
is a row of the store before its file is removed, and a file that is read again asks for nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dittohead.config import registry
from dittohead.config.loader import Config, SourceSetting
from dittohead.contract.board import DOWNLOADED, FIELDS, HOLD
from dittohead.contract.catalogue import BATCH, CatalogueEntry, Keep, Told
from dittohead.contract.source import Source
from dittohead.folders.stations import Stations
from dittohead.intake.board import stages, tokens, wishes
from dittohead.intake.board.disk import REASON, TOKEN, BoardDisk, Seen, name_of
from dittohead.intake.board.rights import Rights
from dittohead.intake.board.stages import STORED, Stand
from dittohead.intake.board.wishes import Ask, Refused, Wish
from dittohead.model.errors import DittoheadError
from dittohead.model.states import JobState
from dittohead.store import Store
from dittohead.store import board as board_store
from dittohead.store import catalogue as catalogue_store
from dittohead.store import requests as request_store
from dittohead.store.board import Standing
from dittohead.system import fail_points, log
from dittohead.system.patterns import TooSlow

#: Tokens of one state, at most: a board shows what is on its way, and never a million files.
MOST = 2_000

#: Entries read at once.
_AT_ONCE = 250

#: Stored entries that are shown, and for how long. Seconds.
RECENT, LATELY_S = 500, 86_400.0

#: The kind under which it is kept how many folders came to a stage of the pipeline.
FLOW = "board"

#: Tokens written between two looks at whether the daemon stops.
_PIECE = 200

#: Reasons of files that are refused, in one stage.
_REFUSALS = 1_000

#: The reason of a list's keys that are not known stays for this time. Seconds.
_REASON_S = 7 * 86_400.0

#: What such a reason begins with, and how many bytes it may have.
_NOT_ALL, _REASON_MOST = "was taken, but not all of it", 1 << 20

#: Keys that are not known are searched for again after this time. Seconds.
_UNKNOWN_S = 120.0

#: Keys that a reason names.
_NAMED = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A token as it was written."""

    stage: str
    mark: str  #: of its file
    signature: tuple[Any, ...] | None  #: what it was made of; None: not known, it was found at the start
    words: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What one comparison of the board and the store has found."""

    standing: dict[str, Standing]
    stands: dict[str, Stand]
    seen: dict[tuple[str, str], Seen]


@dataclass(kw_only=True)
class BoardPass:
    """What one pass has done."""

    asked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    written: int = 0
    removed: int = 0


class Keeper:
    """Keeps the board of one source.

    Args:
        config: the configuration in force.
        poke: has the daemon carry out requests now.
    """

    def __init__(
        self,
        store: Store,
        stations: Stations,
        setting: SourceSetting,
        source: Source[Any],
        keep: Keep,
        config: Callable[[], Config],
        poke: Callable[[], None],
    ) -> None:
        if source.board is None:
            raise ValueError(f"a source of the kind {setting.kind} has no board")
        self._store, self._setting, self._source, self._keep = store, setting, source, keep
        self._config, self._poke = config, poke
        self._board, self._name = source.board, setting.name
        self._disk = BoardDisk(stations, setting.name)
        self._rights = Rights(stations.state)
        self._placed: dict[str, Placed] = {}
        self._marks: dict[str, str] = {}  #: files of others at the last pass: where -> mark
        self._refused: dict[tuple[str, str], str] = {}  #: files that are refused: where -> mark
        self._unknown: set[tuple[str, str]] = set()  #: of these, those whose keys are not known
        self._unknown_at = time.monotonic()
        self._answers: dict[int, str] = {}  #: requests of tokens that are not answered yet -> key
        self._said: dict[str, str] = {}  #: key -> why what was asked for was not done
        self._reasons: dict[tuple[str, str], str] = {}  #: reasons to be written: where -> text
        self._taken: set[str] = set()  #: marks of files whose requests are made
        self._asked: frozenset[str] = frozenset()  #: digests of marks whose requests a daemon before has made
        self._started = False
        self._turn = asyncio.Lock()  # one pass at a time
        self.row: tuple[str, ...] = ()  #: the stages, in order

    # -- one pass ----------------------------------------------------------------------------

    async def once(self) -> BoardPass:
        """Compare store and board once: take what is asked for, then show what is.

        Raises: StoreError; OSError, DittoheadError: the board cannot be kept.
        """
        async with self._turn:
            return await self._once()

    async def _once(self) -> BoardPass:
        done = BoardPass()
        self.row = stages.row(self._board, await self._pipeline(), registry.default())
        await asyncio.to_thread(self._disk.prepare, (*self.row, HOLD))
        if not self._started:
            await asyncio.to_thread(self._disk.tidy, (*self.row, HOLD))
            self._asked = await self._store.read_apart(board_store.asked_before)
        await self._hear()
        compared = await self._compare()
        await self._take(compared, done)
        await self._freeze_held(compared)
        await self._show(compared, done)
        self._started = True
        return done

    async def _pipeline(self) -> Any:
        """Return the pipeline that the source's folders go through: that of any of them."""
        some = await self._store.read_apart(
            catalogue_store.page, self._name, self._source.shows, limit=1, after=""
        )
        try:
            matched = self._config().pipeline_for(some[0].key) if some else None
        except TooSlow:
            matched = None
        return matched[0] if matched is not None else None

    async def _compare(self) -> Compared:
        name, kind = self._name, self._source.shows
        found = {
            one.entry.key: one
            for one in await self._store.read_apart(
                board_store.lately, name, kind, since=time.time() - LATELY_S, most=MOST, recent=RECENT
            )
        }
        shown = {self._board.wanted, self._board.fetching, self._board.failed, self._board.aside, HOLD}
        for pair in await self._store.read_apart(catalogue_store.counts, name, kind):
            if pair[1] not in shown:
                continue
            async for entry in self._entries(pair):
                found.setdefault(entry.key, Standing(entry=entry))
        workers = registry.default()

        def place() -> Compared:
            standing, stands = {}, {}
            for one in found.values():
                at = stages.stand(one, self._board, self._source.stored, workers)
                if at is not None:
                    standing[one.entry.key], stands[one.entry.key] = one, at
            seen = {(one.stage, one.name): one for one in self._disk.seen()}
            return Compared(standing=standing, stands=stands, seen=seen)

        return await asyncio.to_thread(place)

    async def _entries(self, place: tuple[str, str]) -> AsyncIterator[CatalogueEntry]:
        """Yield entries of one state and stage, so few at a time that no page has to wait."""
        last: CatalogueEntry | None = None
        for _ in range(MOST // _AT_ONCE):
            some = await self._store.read_apart(
                board_store.some, self._name, self._source.shows, place, last, _AT_ONCE
            )
            for entry in some:
                yield entry
            if len(some) < _AT_ONCE:
                return
            last = some[-1]

    # -- what is asked for -------------------------------------------------------------------

    async def _take(self, compared: Compared, done: BoardPass) -> None:
        """Take what files ask for that are not as the board left them."""
        known = self._setting.options.fields
        if time.monotonic() - self._unknown_at > _UNKNOWN_S:
            self._unknown_at = time.monotonic()
            for where in self._unknown:
                self._refused.pop(where, None)
            self._unknown.clear()
        found, marks = await asyncio.to_thread(self._strangers, compared, known)
        self._marks = marks
        for seen, why in found:
            if isinstance(why, Refused):
                self._refuse_wish(why.wish or Wish(seen=seen, keys=(), who=""), str(why), done)
        await self._carry([wish for _, wish in found if isinstance(wish, Wish)], done)

    def _strangers(
        self, compared: Compared, known: Mapping[str, str]
    ) -> tuple[list[tuple[Seen, Wish | Refused]], dict[str, str]]:
        """Return files that ask for something, read, or why they are refused; and marks for the next look.

        A file is taken when it is the same at two looks: somebody may be writing it. Blocking.
        """
        ours = {placed.mark for placed in self._placed.values()}
        reasons = {where for where, seen in compared.seen.items() if seen.name.endswith(REASON)}
        found: list[tuple[Seen, Wish | Refused]] = []
        marks: dict[str, str] = {}
        for where, seen in compared.seen.items():
            mark = seen.mark
            if mark in ours or mark in self._taken or self._refused.get(where) == mark or where in reasons:
                continue
            marks["/".join(where)] = mark
            if not self._started and _digest(mark) in self._asked:
                self._taken.add(mark)  # a daemon before was killed before it removed the file
                continue
            if not self._started and self._found_ours(seen, compared):
                continue
            if self._marks.get("/".join(where)) == mark:
                found.append((seen, self._read(seen, known, compared)))
        return found, marks

    def _found_ours(self, seen: Seen, compared: Compared) -> bool:
        """At the start: take up a token that a daemon before has written here, whole or torn."""
        if not seen.is_file or not seen.is_ours or not seen.name.endswith(TOKEN):
            return False
        try:
            wish = wishes.read(seen, self._disk, self._rights, self._board, self._setting.options.fields)
        except (Refused, OSError):
            return self._is_torn(seen, compared)
        if wish.was != seen.stage:
            return False
        self._take_up(wish.keys[0], seen, compared)
        return True

    def _take_up(self, key: str, seen: Seen, compared: Compared) -> None:
        """Know a token that was written here before. Of two of a key, as a crash leaves them, one goes."""
        at, before = compared.stands.get(key), self._placed.get(key)
        if before is not None and before.mark != seen.mark and (at is None or at.stage != seen.stage):
            self._taken.add(seen.mark)
            return
        if before is not None and before.mark != seen.mark:
            self._taken.add(before.mark)
        self._placed[key] = Placed(stage=seen.stage, mark=seen.mark, signature=None)

    def _is_torn(self, seen: Seen, compared: Compared) -> bool:
        """Tell whether it is what a loss of power left of a token: empty, where one of ours belongs."""
        if seen.status.st_size:
            return False
        for key, at in compared.stands.items():
            if at.stage == seen.stage and name_of(key) + TOKEN == seen.name:
                self._placed[key] = Placed(stage=seen.stage, mark=seen.mark, signature=None)
                return True
        return False

    def _read(self, seen: Seen, known: Mapping[str, str], compared: Compared) -> Wish | Refused:
        try:
            wish = wishes.read(seen, self._disk, self._rights, self._board, known)
        except Refused as why:
            return why
        except OSError as error:
            return Refused(f"it cannot be read: {error.strerror}")
        if seen.is_ours and wish.was == seen.stage:  # its text was changed: it is written again
            self._take_up(wish.keys[0], seen, compared)
        return wish

    async def _carry(self, found: Sequence[Wish], done: BoardPass) -> None:
        """Have requests made for wishes; then their files may go."""
        want: dict[tuple[str, bool], list[tuple[str, Seen]]] = {}
        for wish in found:
            if wish.was == wish.seen.stage and wish.seen.is_ours:
                continue
            try:
                asks, unknown = await self._decide(wish)
            except Refused as why:
                self._refuse_wish(wish, str(why), done)
                continue
            wanted = [(key, ask) for key, ask in asks if ask.action == "want"]
            others = [(key, ask) for key, ask in asks if ask.action != "want"]
            for number, (key, ask) in enumerate(others, 1):
                await self._ask(ask, key, wish, done, is_last=number == len(others) and not wanted)
            for key, ask in wanted:
                want.setdefault((wish.who, bool(ask.args.get("again"))), []).append((key, wish.seen))
            if unknown:
                await asyncio.to_thread(self._say_unknown, wish, unknown)
            self._taken.add(wish.seen.mark)
        for (who, again), pairs in want.items():
            await self._want(who, pairs, done, again=again)
        if found:
            fail_points.point("board.asked")
            self._poke()

    async def _decide(self, wish: Wish) -> tuple[list[tuple[str, Ask]], list[str]]:
        """Return (key, what is asked for) of a wish, and keys that nobody knows. Raises: Refused."""
        if "want" not in self._source.commands and wish.seen.stage == self._board_first:
            raise Refused(f"a source of the kind {self._setting.kind} is not told what to bring in")
        asks: list[tuple[str, Ask]] = []
        unknown: list[str] = []
        for begin in range(0, len(wish.keys), BATCH):
            part = wish.keys[begin : begin + BATCH]
            known = await self._keep.catalogue.get(
                self._source.shows, [*part, *(key.upper() for key in part)]
            )
            for key in part:
                entry = known.get(key) or known.get(key.upper())  # people write small letters
                if entry is None:
                    unknown.append(key)
                    continue
                asks += [(entry.key, ask) for ask in await self._decide_one(wish, entry.key)]
                if wish.fields:
                    told = Told(key=entry.key, attributes={FIELDS: dict(wish.fields)})
                    await self._keep.catalogue.tell(self._source.shows, [told], by=wish.who, only_known=True)
        if unknown and not wish.is_list:
            self._unknown.add((wish.seen.stage, wish.seen.name))
            raise Refused(
                f'"{unknown[0]}" is not known: it is in none of the lists that the source has read. It is '
                "searched for again every few minutes"
            )
        return asks, unknown

    async def _decide_one(self, wish: Wish, key: str) -> list[Ask]:
        found = await self._store.read_apart(board_store.standing, self._name, self._source.shows, key)
        if found is None:  # it has gone since
            raise Refused(f'"{key}" is not known any more')
        at = stages.stand(found, self._board, self._source.stored, registry.default())
        try:
            return wishes.decide(wish, found, at, self._board, self._source.stored)
        except Refused:
            if wish.is_list:  # one that is on its way already keeps the others back from nothing
                return []
            raise

    async def _ask(self, ask: Ask, key: str, wish: Wish, done: BoardPass, *, is_last: bool) -> None:
        args = {**ask.args} if ask.of else {**ask.args, "keys": [key]}
        args |= {"asked": [_digest(wish.seen.mark)]} if is_last else {}
        token = f"{wish.seen.mark} {key}"
        number = await self._store.write(
            board_store.ask_once, ask.action, ask.of or self._name, args, wish.who, token
        )
        if number is None:
            return
        self._answers[number] = key
        done.asked.append(f"{ask.action} {key}")
        log.get().info(log.BOARD_ASKED, source=self._name, action=ask.action, key=key, who=wish.who)

    async def _want(
        self, who: str, pairs: Sequence[tuple[str, Seen]], done: BoardPass, *, again: bool
    ) -> None:
        """Have keys brought in. A file is noted as asked with the last of its keys, and not before.

        Args:
            who: asks for them.
            pairs: each key, and the file that names it.
            done: what this pass has done.
            again: also what the source has given up.
        """
        token = _digest("\n".join(sorted({seen.mark for _, seen in pairs})))
        ends = {seen.mark: at for at, (_, seen) in enumerate(pairs)}
        for begin in range(0, len(pairs), BATCH):
            part = list(dict.fromkeys(key for key, _ in pairs[begin : begin + BATCH]))
            asked = [_digest(mark) for mark, at in ends.items() if begin <= at < begin + BATCH]
            told = {"keys": part, **({"again": True} if again else {})}
            args = {"command": "want", "args": told, "asked": asked}
            mark = f"{token} {begin}"
            number = await self._store.write(board_store.ask_once, "source-tell", self._name, args, who, mark)
            if number is not None:
                self._answers[number] = part[0] if len(part) == 1 else ""
                done.asked.append(f"want {len(part)}")
                log.get().info(log.BOARD_ASKED, source=self._name, action="want", keys=len(part), who=who)

    async def _freeze_held(self, compared: Compared) -> None:
        """Freeze the jobs of held entries whose folders were on their way when they were held."""
        for key, found in compared.standing.items():
            if found.entry.stage == HOLD and found.active and found.job_state is not JobState.FROZEN:
                args = {"reason": "held on the board"}
                token = f"hold {key} {found.entry.changed_at}"
                if await self._store.write(
                    board_store.ask_once, "freeze", found.job, args, "the board", token
                ):
                    self._poke()

    async def _hear(self) -> None:
        """Find out what became of requests that tokens have made."""
        for number, key in list(self._answers.items()):
            answer = await self._store.read_apart(request_store.answer_to, number)
            if answer is None:
                continue
            del self._answers[number]
            if not answer.ok and key:
                self._said[key] = answer.message

    # -- what is refused ---------------------------------------------------------------------

    def _refuse(self, seen: Seen, why: str, done: BoardPass) -> None:
        """Leave a file as it is, and say beside it why it asks for nothing."""
        where = (seen.stage, seen.name)
        if sum(stage == seen.stage for stage, _ in self._refused) < _REFUSALS:
            todo = "Correct it, or remove it; it is read again when it changes"
            self._reasons[seen.stage, _reason_name(seen.name)] = tokens.reason(
                seen.name.encode("utf-8", "replace").decode(), "asks for nothing that can be done", why, todo
            )
        self._refused[where] = seen.mark
        done.refused.append(f"{seen.stage}/{seen.name}: {why}")
        log.get().warning(log.BOARD_REFUSED, source=self._name, token=f"{seen.stage}/{seen.name}", reason=why)

    def _refuse_wish(self, wish: Wish, why: str, done: BoardPass) -> None:
        """Refuse a wish; a token of ours goes back to where its entry stands, and says it there."""
        if not wish.seen.is_ours or not wish.was:
            self._refuse(wish.seen, why, done)
            return
        self._said[wish.keys[0]] = f"{wish.who} moved it to {wish.seen.stage}/: {why}"
        self._taken.add(wish.seen.mark)
        done.refused.append(f"{wish.seen.stage}/{wish.seen.name}: {why}")
        log.get().warning(
            log.BOARD_REFUSED, source=self._name, token=f"{wish.seen.stage}/{wish.seen.name}", reason=why
        )

    def _say_unknown(self, wish: Wish, unknown: Sequence[str]) -> None:
        """Say beside a list which of its keys are not known, before the others are asked for. Blocking."""
        named = ", ".join(unknown[:_NAMED]) + (" and more" if len(unknown) > _NAMED else "")
        why = tokens.reason(
            wish.seen.name,
            _NOT_ALL,
            f"{len(unknown):,} of {len(wish.keys):,} are not known: {named}",
            "See that they are written as upstream lists them, and drop a file of these again",
        )
        self._disk.write(wish.seen.stage, _reason_name(wish.seen.name), why)

    # -- what is shown -----------------------------------------------------------------------

    async def _show(self, compared: Compared, done: BoardPass) -> None:
        """Write the tokens that are others now, remove those that are not on their way."""
        stale = [
            key
            for key in compared.stands
            if self._is_stale(key, compared) and not self._is_taken(key, compared)
        ]
        for begin in range(0, len(stale), _PIECE):
            part = stale[begin : begin + _PIECE]
            numbers = [compared.standing[key].entry.id for key in part]
            told = await self._store.read_apart(board_store.histories, numbers, tokens.HISTORY)
            moved = await asyncio.to_thread(self._write_some, part, compared, told)
            done.written += len(part)
            await self._count(moved)
        await self._keep_orphans(compared)
        done.removed += await asyncio.to_thread(self._clear, compared)

    async def _keep_orphans(self, compared: Compared) -> None:
        """Turn tokens of entries that are not known into requests: the store may be a new one."""
        gone = {
            key: placed
            for key, placed in self._placed.items()
            if key not in compared.stands and placed.stage in self._board.columns
        }
        known = await self._keep.catalogue.get(self._source.shows, list(gone)) if gone else {}
        for key, placed in gone.items():
            if key not in known:
                del self._placed[key]
                await asyncio.to_thread(self._make_request, key, placed)

    def _make_request(self, key: str, placed: Placed) -> None:
        path = self._disk.directory(placed.stage) / f"{name_of(key)}{TOKEN}"
        try:
            told = json.loads(path.read_text())
        except (OSError, ValueError):
            return
        fields = {name: told[name] for name in self._setting.options.fields if name in told}
        text = json.dumps({self._board.key: key, **fields}, ensure_ascii=False) + "\n"
        self._disk.write(self._board_first, path.name, text)
        if placed.stage != self._board_first:
            self._remove_at(placed, key)

    @property
    def _board_first(self) -> str:
        return next(iter(self._board.columns))

    def _signature(self, key: str, compared: Compared) -> tuple[Any, ...]:
        one, at = compared.standing[key], compared.stands[key]
        entry = one.entry
        return (
            at.stage,
            at.failed,
            self._said.get(key, ""),
            entry.changed_at,
            entry.state,
            entry.stage,
            entry.reason,
            entry.priority,
            one.job,
            one.job_state,
            tuple(step.state for step in one.steps),
        )

    def _is_stale(self, key: str, compared: Compared) -> bool:
        placed = self._placed.get(key)
        if placed is None or placed.signature != self._signature(key, compared):
            return True
        seen = compared.seen.get((placed.stage, name_of(key) + TOKEN))
        return seen is None or seen.mark != placed.mark

    def _is_taken(self, key: str, compared: Compared) -> bool:
        """Tell whether a file lies where a token belongs that asks for something, or has to be corrected."""
        seen = compared.seen.get((compared.stands[key].stage, name_of(key) + TOKEN))
        placed = self._placed.get(key)
        if seen is None or seen.mark in self._taken:
            return False
        return placed is None or seen.mark != placed.mark

    def _write_some(
        self, keys: Sequence[str], compared: Compared, told: Mapping[int, Sequence[Any]]
    ) -> list[tuple[Placed, Placed]]:
        """Write tokens; return (before, now) of those that were elsewhere. Blocking."""
        moved = []
        for key in keys:
            one, at, before = compared.standing[key], compared.stands[key], self._placed.get(key)
            known = self._setting.options.fields
            text = tokens.text(self._name, self._board, one, at, told.get(one.entry.id, ()), known)
            self._disk.prepare([at.stage])
            status = self._disk.write(at.stage, name_of(key) + TOKEN, text)
            mark = Seen(stage=at.stage, name=name_of(key) + TOKEN, status=status).mark
            now = Placed(stage=at.stage, mark=mark, signature=self._signature(key, compared), words=at.words)
            self._placed[key] = now
            fail_points.point("board.written")
            if before is not None and before.stage != at.stage:
                self._said.pop(key, None)
                self._remove_at(before, key)
                moved.append((before, now))
            self._explain(key, at)
        return moved

    def _remove_at(self, placed: Placed, key: str) -> None:
        with_name = self._disk.directory(placed.stage) / f"{name_of(key)}{TOKEN}"
        try:
            seen = Seen(stage=placed.stage, name=with_name.name, status=with_name.lstat())
        except OSError:
            return
        if seen.mark == placed.mark:
            self._disk.remove(seen)

    def _explain(self, key: str, at: Stand) -> None:
        """Say beside a token why it does not go on."""
        if at.failed:
            todo = f"dittohead source show {self._name} {key}"
            text = tokens.reason(key, "does not go on", at.failed, todo)
        elif key in self._said:
            text = tokens.reason(
                key, "is where it was", self._said[key], "Nothing was changed; it goes on as before"
            )
        else:
            return
        self._reasons[at.stage, name_of(key) + REASON] = text

    async def _count(self, moved: Sequence[tuple[Placed, Placed]]) -> None:
        """Count how many folders came to each stage of their pipeline, also to those that no look saw."""
        came: Counter[tuple[str, str]] = Counter()
        for before, now in moved:
            way = [DOWNLOADED, *now.words] if now.stage in (DOWNLOADED, STORED, *now.words) else []
            ahead = list(dict.fromkeys([*way, *([STORED] if way else [])]))
            if now.stage in ahead:
                begin = ahead.index(before.stage) + 1 if before.stage in ahead else 0
                came.update((stage, "") for stage in ahead[begin : ahead.index(now.stage) + 1])
        if came:
            await self._store.write(catalogue_store.flow, self._name, FLOW, came, time.time())

    def _clear(self, compared: Compared) -> int:
        """Remove tokens that stand nowhere, files whose requests are made, reasons that no longer apply."""
        count = 0
        for key in [key for key in self._placed if key not in compared.stands]:
            self._remove_at(self._placed.pop(key), key)
            count += 1
        ours = {placed.mark for placed in self._placed.values()}
        for where, seen in compared.seen.items():
            if seen.mark in self._taken and seen.mark not in ours and not seen.name.endswith(REASON):
                count += self._disk.remove(seen)
                self._refused.pop(where, None)
        self._taken = {seen.mark for seen in compared.seen.values() if seen.mark in self._taken}
        self._said = {key: why for key, why in self._said.items() if key in compared.stands}
        for where in [where for where in self._refused if where not in compared.seen]:
            del self._refused[where]
        self._write_reasons(compared)
        return count

    def _write_reasons(self, compared: Compared) -> None:
        """Write the reasons that are new; remove ours that explain nothing any more."""
        wanted = {(stage, _reason_name(name)) for stage, name in self._refused}
        for key, at in compared.stands.items():
            if at.failed or key in self._said:
                wanted.add((at.stage, name_of(key) + REASON))
        for (stage, name), text in self._reasons.items():
            self._disk.write(stage, name, text)
        fresh, self._reasons = set(self._reasons), {}
        now = time.time()
        for where, seen in compared.seen.items():
            if not seen.name.endswith(REASON) or not seen.is_ours or not seen.is_file:
                continue
            if where not in wanted and where not in fresh and not self._is_of_list(seen, now):
                self._disk.remove(seen)

    def _is_of_list(self, seen: Seen, now: float) -> bool:
        """Tell whether a reason says which keys of a list are not known: it stays for a while."""
        if seen.stage != self.row[0] or now - seen.status.st_mtime > _REASON_S:
            return False
        try:
            return _NOT_ALL.encode() in self._disk.read(seen, _REASON_MOST)
        except (OSError, DittoheadError, ValueError):
            return False

    # -- for `source check` ------------------------------------------------------------------

    async def differences(self) -> list[tuple[str, str]]:
        """Return (token, what is wrong) where board and store disagree now."""
        compared = await self._compare()
        wrong = []
        for key, at in compared.stands.items():
            name = name_of(key) + TOKEN
            seen = compared.seen.get((at.stage, name))
            if seen is None:
                wrong.append((f"{at.stage}/{name}", "it is missing"))
            elif not seen.is_file:
                wrong.append((f"{at.stage}/{name}", "it is not a file"))
        belongs = {(at.stage, name_of(key) + TOKEN) for key, at in compared.stands.items()}
        for where, seen in compared.seen.items():
            if where not in belongs and not seen.name.endswith(REASON):
                asks = where in self._refused
                why = "it asks for something that cannot be done" if asks else "no entry stands there"
                wrong.append((f"{where[0]}/{where[1]}", why))
        return wrong

    def forget(self) -> None:
        """Believe nothing of what was written: all of it is read again."""
        self._placed.clear()
        self._refused.clear()
        self._started = False


def _digest(mark: str) -> str:
    """Return a short name of a file's mark, as requests keep it."""
    return hashlib.sha256(mark.encode("utf-8", "surrogateescape")).hexdigest()[:24]


def _reason_name(name: str) -> str:
    return name.removesuffix(TOKEN) + REASON
