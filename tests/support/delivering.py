"""A worker whose target is the test's: what it says later of what it has delivered is set from outside."""

from __future__ import annotations

from dittohead.contract.worker import Done, StepContext, StepResult, VerifyContext
from dittohead.model.records import Location
from tests.support.harness import ScriptOptions, ScriptWorker


class Delivering(ScriptWorker):
    """Says that it has delivered one file for each that it took; what lies there later is the test's."""

    name = "delivering"
    delivers = True

    def __init__(self) -> None:
        super().__init__()
        self.wrong: dict[str, str] = {}  #: folder's name -> what is said of its files
        self.raises: dict[str, Exception] = {}
        self.asked: list[str] = []

    async def run(self, ctx: StepContext, options: ScriptOptions) -> StepResult:
        for entry in ctx.source.entries():
            uri = f"s3://bucket/{ctx.name}/{entry.path.decode()}"
            ctx.location(
                Location(uri=uri, path=entry.path, size=entry.size, sha256=entry.sha256, verified_by="v")
            )
        return Done()

    async def verify(self, ctx: VerifyContext, options: ScriptOptions) -> None:
        for location in ctx.locations():
            name = location.uri.split("/")[3]
            self.asked.append(name)
            await ctx.pace.spend(location.size)
            if name in self.raises:
                raise self.raises[name]
            what = self.wrong.get(name, "")
            ctx.report(not what, location.uri, what)
