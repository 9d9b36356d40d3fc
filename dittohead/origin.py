"""Which of the folder's own files an output was made of, through however many steps."""

from __future__ import annotations

from collections.abc import Mapping

from dittohead.threads import Stop
from dittohead.worker import Made, StepContext


def origins(ctx: StepContext, made: Made, stop: Stop) -> Mapping[bytes, bytes]:
    """Return {path of what a step took: path of the folder's own file it goes back to}.

    Empty for a step that took the folder itself: what its outputs name as their source is that file
    already. One line for each output of the steps between. Blocking.
    """
    found: dict[bytes, bytes] = {}
    chain: list[Made] = []
    before = ctx.made_by(made.source) if made.source else None
    while before is not None:
        chain.append(before)
        before = ctx.made_by(before.source) if before.source else None
    for step in reversed(chain):
        following = {}
        for output in step.outputs():
            stop.check()
            if output.source:
                following[output.path] = found.get(output.source, output.source)
        found = following
    return found
