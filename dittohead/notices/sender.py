"""From the outbox to its receivers: each in a lane of its own, tried again for days, disabled loudly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from dittohead.config import notice_templates
from dittohead.config.notice_rules import Rule, shown
from dittohead.engine.metrics import Metrics
from dittohead.model.errors import StoreError
from dittohead.model.text import utcnow
from dittohead.notices import apprise, mail, ping, webhook
from dittohead.notices.compose import Composer
from dittohead.notices.outcome import NotSent
from dittohead.store.outbox import Notice, StoreOutbox
from dittohead.system import fail_points, log
from dittohead.system.threads import detached
from dittohead.system.waiting import event_or_time
from dittohead.toolkit.backoff import spread, wait_s

#: Waits between tries of mail and Apprise: doubled from the first to the last, with jitter.
RETRY_FIRST_S, RETRY_MOST_S = 30.0, 6 * 3600.0
#: After this long a notice is given up, loudly: nobody needs it any more.
GIVE_UP_S = 3 * 86400.0
#: A receiver that has taken nothing for this long, in at least so many tries of a notice, is disabled when
#: that is given up. Less than three days: the waits have jitter.
DISABLE_AFTER_S, DISABLE_TRIES = 2.5 * 86400.0, 5
#: Notices sent at once to one receiver.
AT_ONCE = 4
#: Looked for at least this often, in case a wake-up was lost.
_TURN_S = 300.0
#: After a look that the store did not answer. Seconds.
_AWAY_S = 10.0
#: What was handed over and could not be recorded would go out again and again: it waits this long.
_STORE_S = 60.0


class Notifier:
    """Sends what the outbox holds."""

    def __init__(
        self,
        outbox: StoreOutbox,
        composer: Composer,
        credentials: Callable[[str], str],
        now: Callable[[], datetime] = utcnow,
        metrics: Metrics | None = None,
    ) -> None:
        self.composer, self.credentials, self.outbox = composer, credentials, outbox
        self.metrics = metrics or Metrics()
        self._now = now
        self._wake = asyncio.Event()
        self._tidy_at = 0.0
        self._lanes: dict[str, asyncio.Task[None]] = {}  #: by rule's key

    def configure(self, composer: Composer) -> None:
        """Use the rules and words of a new configuration; what waits already goes on as it was."""
        self.composer = composer
        self._tidy_at = 0.0
        self.wake()

    def wake(self) -> None:
        """Look into the outbox now."""
        self._wake.set()

    async def run(self) -> None:
        """Send until cancelled; no receiver's fault ever leaves."""
        self.outbox.store.on_told = self.wake
        if self.composer.rules:
            await asyncio.to_thread(notice_templates.warm)
        try:
            while True:
                self._wake.clear()
                try:
                    due = await self._begin_lanes()
                    wait = _TURN_S if due is None else (due - self._now()).total_seconds()
                except StoreError as error:
                    log.get().error(log.NOTIFY_FAILED, error=str(error))
                    wait = _AWAY_S
                await event_or_time(self._wake, min(max(wait, 0.05), _TURN_S))
        finally:
            lanes = list(self._lanes.values())
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)

    async def _begin_lanes(self) -> datetime | None:
        """Begin a lane for each receiver that something is due for; return when the next is due."""
        if time.monotonic() >= self._tidy_at:
            before = self._now() - timedelta(seconds=GIVE_UP_S)
            await self.outbox.tidy([rule.key for rule in self.composer.rules], before)
            self._tidy_at = time.monotonic() + _TURN_S
        await self.gather_due()
        for key in await self.outbox.due_rules(self._now()):
            if key not in self._lanes:
                self._lanes[key] = asyncio.create_task(self._lane(key), name=f"notices:{key}")
        return await self.outbox.next_due(leaving_out=list(self._lanes))

    async def _lane(self, key: str) -> None:
        """Send what is due for one receiver; one that is slow or dead keeps no other waiting."""
        try:
            while await self._batch(key):
                pass
        except Exception as error:  # noqa: BLE001  # a lane begun again at once would only end again, forever
            foreseen = isinstance(error, StoreError)
            log.get().error(log.NOTIFY_FAILED, error=str(error), exc_info=None if foreseen else error)
            await asyncio.sleep(_STORE_S)
        finally:
            del self._lanes[key]
            self.wake()

    async def gather_due(self) -> None:
        """Make the digests that are due, durably, each with the id it keeps."""
        if not await self.outbox.has_held(self._now()):
            return
        for made in await self.outbox.gather(self._now(), self.composer.digest):
            log.get().info(log.NOTIFY_GATHERED, notice=made)

    async def send_due(self) -> int:
        """Try notices that are due, a few of each receiver; return how many there were."""
        await self.gather_due()
        keys = await self.outbox.due_rules(self._now())
        ends = await asyncio.gather(*(self._batch(key) for key in keys), return_exceptions=True)
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return sum(end for end in ends if isinstance(end, int))

    async def _batch(self, key: str) -> int:
        notices = await self.outbox.due(self._now(), AT_ONCE, key)
        ends = await asyncio.gather(*(self._send(notice) for notice in notices), return_exceptions=True)
        # All have ended before the next look: a notice still under way would be due again and go twice.
        for end in ends:
            if isinstance(end, BaseException):
                raise end
        return len(notices)

    async def _send(self, notice: Notice) -> None:
        rule = next((rule for rule in self.composer.rules if rule.key == notice.rule), None)
        if rule is None:
            await self._give_up(notice, "a rule that is gone", "its rule is no longer in config.yaml")
            return
        try:
            await self.hand_over(rule, notice)
        except NotSent as error:
            await self._failed(notice, rule, error)
            return
        fail_points.point("notice.sent")
        self.metrics.notices_sent.labels(rule.kind).inc()
        await self.outbox.sent(notice, self._now())
        log.get().info(
            log.NOTIFY_SENT, notice=notice.id, notice_event=notice.event, to=shown(rule), job=notice.job
        )

    async def hand_over(self, rule: Rule, notice: Notice) -> None:
        """Give a notice to a rule's receiver, once. Raises: NotSent."""
        try:
            # A receiver that says nothing would hold up a stop for longer than systemd waits. A send
            # left behind goes out again, with the same id.
            if (smtp := rule.smtp) is not None:
                await detached(lambda: mail.send(smtp, notice, self.credentials), "notice")
            elif rule.webhook is not None:
                await webhook.send(rule.webhook, notice, self.credentials, self._now())
            elif rule.ping is not None:
                await ping.send(rule.ping, self.credentials)
            else:
                await detached(lambda: apprise.send(rule, notice, self.credentials), "notice")
        except NotSent:
            raise
        except Exception as error:  # noqa: BLE001  # a receiver's library may raise anything, secrets in it
            raise NotSent(f"unforeseen {type(error).__name__}") from None

    async def _failed(self, notice: Notice, rule: Rule, error: NotSent) -> None:
        self.metrics.notices_failed.labels(rule.kind).inc()
        if error.gone:
            await self._disable(rule, str(error))
            return
        wait = self._wait(notice, rule, error.retry_after_s)
        if wait is None:
            await self._give_up(notice, shown(rule), str(error), rule.kind)
            await self._disable_if_dead(notice, rule, error)
            return
        log.get().warning(
            log.NOTIFY_FAILED, notice=notice.id, to=shown(rule), error=str(error), wait_s=round(wait)
        )
        await self.outbox.postponed(
            notice,
            self._now() + timedelta(seconds=wait),
            str(error),
            self._now(),
            receivers_fault=error.receivers_fault,
        )

    def _wait(self, notice: Notice, rule: Rule, asked_s: float | None) -> float | None:
        """Return the seconds until a notice's next try; None: it is to be given up."""
        age = (self._now() - notice.created_at).total_seconds()
        if rule.webhook is not None:
            # More tries than the schedule has, where other notices were taken meanwhile.
            last = len(webhook.WAITS_S) - 1
            over = notice.attempts > last and age >= DISABLE_AFTER_S
            return None if over else spread(webhook.WAITS_S[min(notice.attempts, last)], asked_s=asked_s)
        if age > GIVE_UP_S:
            return None
        return wait_s(notice.attempts + 1, first_s=RETRY_FIRST_S, most_s=RETRY_MOST_S, asked_s=asked_s)

    async def _give_up(self, notice: Notice, to: str, error: str, kind: str = "none") -> None:
        self.metrics.notices_given_up.labels(kind).inc()
        log.get().error(
            log.NOTIFY_GIVEN_UP, notice=notice.id, to=to, subject=notice.subject, error=error, job=notice.job
        )
        await self.outbox.given_up(notice, error)

    async def _disable_if_dead(self, notice: Notice, rule: Rule, error: NotSent) -> None:
        since = await self.outbox.failing_since(rule.key)
        dead = since is not None and self._now().timestamp() - since >= DISABLE_AFTER_S
        if dead and error.receivers_fault and notice.attempts >= DISABLE_TRIES:
            await self._disable(rule, str(error))

    async def _disable(self, rule: Rule, error: str) -> None:
        composer, to = self.composer, shown(rule)
        if await self.outbox.disable(
            rule.key, error, self._now(), lambda kept: composer.disabled(rule, to, error, kept)
        ):
            log.get().error(
                log.NOTIFY_DISABLED, to=to, error=error, hint="When it is fixed: dittohead notify test"
            )
            self.wake()

    async def enable(self, rule: Rule, *, proven: bool = False) -> bool:
        """Send a receiver notices again, with what was kept for it; return whether it was disabled.

        Args:
            proven: it has just taken something.
        """
        was = await self.outbox.enable(
            rule.key, self._now(), keep_s=GIVE_UP_S, gathered=rule.webhook is None, proven=proven
        )
        if was:
            log.get().info(log.NOTIFY_ENABLED, to=shown(rule))
        self.wake()
        return was
