"""What people ask for by hand: a test of receivers, and one that was disabled enabled again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ulid import ULID

from dittohead.config.notice_rules import Rule, shown
from dittohead.model.errors import DittoheadError
from dittohead.model.states import Action
from dittohead.model.text import utcnow
from dittohead.notices.outcome import NotSent
from dittohead.notices.sender import Notifier
from dittohead.store.outbox import Notice
from dittohead.store.requests import Request

#: Seconds in which a receiver must have taken a test: somebody waits for the answer.
_TEST_S = 15.0


def find(rules: list[Rule], wanted: str) -> Rule:
    """Return the rule of a name, a key, or a number as `dittohead notify list` gives it.

    Raises: DittoheadError: there is none.
    """
    for number, rule in enumerate(rules, 1):
        if wanted in (rule.name, rule.key, str(number)):
            return rule
    names = ", ".join(rule.name or str(number) for number, rule in enumerate(rules, 1)) or "none"
    raise DittoheadError(f'there is no rule "{wanted}"', hint=f"There are: {names}; dittohead notify list")


@dataclass(frozen=True)
class Commands:
    """Carries out what people ask for."""

    notifier: Notifier

    @property
    def handlers(self) -> dict[str, Callable[[Request], Awaitable[str]]]:
        """What can be asked for, by the name of the action."""
        return {Action.NOTIFY_TEST: self.carry_out, Action.NOTIFY_ENABLE: self.carry_out}

    async def carry_out(self, request: Request) -> str:
        """Do one thing and return what came of it, a line for each receiver.

        Raises: DittoheadError: with the same lines, where one is wrong.
        """
        rules = list(self.notifier.composer.rules)
        chosen = [find(rules, request.job)] if request.job else rules
        if request.action == Action.NOTIFY_ENABLE:
            return "\n".join([await self._enable(rule) for rule in chosen])
        if not chosen:
            raise DittoheadError("there is no rule under notify:, and nobody to be told")
        ends = await asyncio.gather(*(self._test(rule) for rule in chosen))
        # What went wrong first: the whole of it is shown as an error.
        said = "\n".join(line for _, line in sorted(ends, key=lambda end: end[0]))
        if not all(good for good, _ in ends):
            raise DittoheadError(said)
        return said

    async def _enable(self, rule: Rule) -> str:
        was = await self.notifier.enable(rule)
        return f"{shown(rule)}: {'enabled again' if was else 'was not disabled'}"

    async def _test(self, rule: Rule) -> tuple[bool, str]:
        """Return whether a receiver took a test, and that in words; one that does is enabled again."""
        to = shown(rule)
        subject, body, facts = await asyncio.to_thread(self.notifier.composer.test, to)
        notice = Notice(
            id=str(ULID()),
            rule=rule.key,
            event="test",
            job=None,
            subject=subject,
            body=body,
            created_at=utcnow(),
            attempts=0,
            data=facts,
        )
        try:
            async with asyncio.timeout(_TEST_S):
                await self.notifier.hand_over(rule, notice)
        except TimeoutError:
            return False, f"{to}: not sent: no answer within {_TEST_S:.0f} seconds"
        except NotSent as error:
            return False, f"{to}: not sent: {error}"
        was = await self.notifier.enable(rule, proven=True)
        only = rule.smtp is not None and not rule.smtp.fixed
        how = "the mail server is well; it writes to uploaders only" if only else "sent"
        return True, f"{to}: {how}" + ("; it is enabled again" if was else "")
