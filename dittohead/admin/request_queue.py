"""The queue of people's requests: rows of the store, with the answers that the daemon gives.

A request is a row before it is anything else: what was asked, by whom, and what became of it stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from dittohead.model.records import RequestAnswer
from dittohead.model.states import Action
from dittohead.store import Store
from dittohead.store import requests as request_store

#: How long somebody waits for an answer. Seconds; afterwards the request is still carried out.
PATIENCE_S = 30.0


class RequestQueue:
    """Takes requests for the daemon and waits for its answers; belongs to one event loop."""

    def __init__(self, store: Store, poke: Callable[[], None]) -> None:
        self._store, self._poke = store, poke
        self._waiting: dict[int, asyncio.Future[RequestAnswer]] = {}

    async def ask(
        self, action: Action | str, job: str, who: str, args: dict[str, Any] | None = None
    ) -> RequestAnswer | None:
        """Hand in a request and return its answer; None: not yet answered.

        Args:
            job: an id, the beginning of one, or a name; of actions on sources, the source.

        Raises: StoreError: the request was not taken.
        """
        number = await self._store.write(request_store.add, action, job, args or {}, who)
        future: asyncio.Future[RequestAnswer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            # Somebody else's poke may have had it answered before anybody waited for it.
            early = await self._store.read(request_store.answer_to, number)
            if early is not None:
                return early
            self._poke()
            async with asyncio.timeout(PATIENCE_S):
                return await future
        except TimeoutError:
            return None
        finally:
            del self._waiting[number]

    def answered(self, number: int, answer: RequestAnswer) -> None:
        """Tell everyone who waits for the answer."""
        future = self._waiting.get(number)
        if future is not None and not future.done():
            future.set_result(answer)
