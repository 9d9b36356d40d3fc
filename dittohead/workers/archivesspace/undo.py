"""Taking out again what a job has put in, where nobody has changed it since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dittohead.contract.worker import UndoContext
from dittohead.model.errors import TargetError
from dittohead.workers.archivesspace import events, records
from dittohead.workers.archivesspace.client import ArchivesSpaceClient
from dittohead.workers.archivesspace.preflight import permission
from dittohead.workers.archivesspace.records import Record

Line = dict[str, Any]

_DELETE = "delete_archival_record"
_DELETE_EVENT = "delete_event_record"


class ArchivesSpaceUndo:
    """One undoing of one step of one job."""

    def __init__(self, ctx: UndoContext, client: ArchivesSpaceClient, lines: Sequence[Line]) -> None:
        self._ctx, self._client = ctx, client
        self._lines = [line for line in lines if "do" in line]
        #: What components and digital objects were when they were created, by what names them.
        self._contents: dict[str, set[str]] = {}
        self._links: dict[str, set[str]] = {}  #: digital object -> archival objects
        self._children: dict[str, dict[str, set[str]]] = {}
        self._restored: dict[str, Record] = {}  #: records as they would be, in a dry run
        self._removed: dict[str, int] = {}  #: components at the top that go or are gone, by digital object
        self._with: dict[str, list[tuple[str, str]]] = {}  #: components that go with theirs: uri and id
        for line in self._lines:
            self._sort(line)

    def _sort(self, line: Line) -> None:
        if line["do"] == "link":
            for uri in (line["digital_object"], *line.get("more", ())):
                self._links.setdefault(uri, set()).add(line["archival_object"])
        elif line["do"] == "create" and line["what"] == "digital object":
            self._contents.setdefault(line["of"], set()).add(line["content"])
        elif line["do"] == "create" and line["what"] == "components":
            of = self._children.setdefault(line["uri"], {})
            for id_, content in line["contents"].items():
                of.setdefault(id_, set()).add(content)

    async def run(self) -> None:
        """Undo everything, what was done last first. Raises: StepError."""
        await self._see_rights()
        await self._events()
        for line in reversed(self._lines):
            if line["do"] == "change":
                await self._restore(line)
        for uri, children in self._children.items():
            await self._components(uri, children)
        await self._objects()
        for line in self._lines:
            if line.get("what") == "agent":
                name = f"{line['name']} {line['version']}"
                self._ctx.report(
                    False, "/agents/software", f"the agent {name} stays: other events may name it"
                )
                break

    async def _see_rights(self) -> None:
        wanted = set()
        if self._contents or self._children:
            wanted.add(_DELETE)
        if any(line.get("what") == "event" for line in self._lines):
            wanted.add(_DELETE_EVENT)
        if lacking := await self._client.lacks(wanted):
            named = ", ".join(map(permission, lacking))
            raise TargetError(
                f'the user "{self._client.options.user}" lacks {named}; nothing was removed',
                where=self._client.shown(self._client.base),
                hint="Give the user that permission for as long as it takes, then undo again",
            )
        await self._client.see_all(may_set=not self._ctx.dry_run)

    def _say(self, gone: bool, uri: str, statement: str) -> None:
        self._ctx.report(gone, self._client.shown(uri), statement)

    # -- events ------------------------------------------------------------------------------

    async def _events(self) -> None:
        keys: dict[str, set[str]] = {}
        for line in self._lines:
            if line.get("what") == "event":
                keys.setdefault(line["uri"], set()).add(line["key"])
        for digital_object, ours in keys.items():
            if await self._client.find(digital_object) is None:
                continue
            for key, uri in (await events.recorded(self._client, digital_object)).items():
                if key in ours:
                    if not self._ctx.dry_run:
                        await self._client.delete(uri)
                    self._say(True, uri, "event deleted")

    # -- what was changed --------------------------------------------------------------------

    async def _restore(self, line: Line) -> None:
        """Bring a record's file versions back to what they were; those that others changed stay."""
        uri = line["uri"]
        outcome: list[str] = []

        async def apply(record: Record) -> bool:
            outcome[:] = restore(record, line)
            return bool(outcome)

        if uri not in self._restored and await self._client.find(uri) is None:
            self._say(True, uri, "is gone already")
            return
        if self._ctx.dry_run:
            record = self._restored.get(uri) or await self._client.get(uri)
            await apply(record)
            self._restored[uri] = record
        else:
            await self._client.change(uri, apply)
        if outcome:
            self._say(True, uri, "; ".join(outcome))

    # -- what was created --------------------------------------------------------------------

    async def _components(self, digital_object: str, ours: dict[str, set[str]]) -> None:
        object_ = await self._client.find(digital_object)
        if object_ is None:
            return
        gone: list[tuple[str, str, str]] = []  # uri, id, content
        holding: set[str] = set()
        count = top = 0
        async for record in self._client.components(digital_object):
            count += 1
            top += not record.get("parent")
            holding.add((record.get("parent") or {}).get("ref", ""))
            if record.get("component_id") in ours:
                gone.append((record["uri"], record["component_id"], self._content(record)))
        whole = len(gone) == count and all(content in ours[id_] for _, id_, content in gone)
        if whole and not self._why_kept(object_):
            self._with[digital_object] = [(uri, id_) for uri, id_, _ in gone]
            self._removed[digital_object] = top
            return  # they go with it, in one request
        for uri, id_, content in gone:
            why = "was changed since" if content not in ours[id_] else ""
            why = why or ("holds others" if uri in holding else "")
            if why:
                self._say(False, uri, f"component {id_} {why}: it stays")
                continue
            self._removed[digital_object] = self._removed.get(digital_object, 0) + 1
            if not self._ctx.dry_run:
                await self._client.delete(uri)
            self._say(True, uri, f"component {id_} deleted")

    def _why_kept(self, object_: Record) -> str:
        """Return why a digital object must stay, whatever happens to its components; "" when it may go."""
        uri, id_ = object_["uri"], object_["digital_object_id"]
        others = {one["ref"] for one in object_.get("linked_instances", ())} - self._links.get(uri, set())
        if self._content(object_) not in self._contents.get(id_, ()):
            return "was changed since"
        return f"is linked to {', '.join(sorted(others))} too" if others else ""

    def _content(self, record: Record) -> str:
        """Return the digest of a record's content; in a dry run as if changes had been taken back."""
        return records.content(self._restored.get(record["uri"], record))

    async def _objects(self) -> None:
        """Delete the digital objects that are ours; take the links to the others out."""
        for id_ in self._contents:
            exact, _ = await self._client.find_by_id("digital_objects", "digital_object_id", [id_])
            for record in exact:
                await self._object(record)
        for uri in list(self._links):
            await self._unlink(uri)

    async def _object(self, record: Record) -> None:
        uri, id_ = record["uri"], record["digital_object_id"]
        below = self._with.get(uri, [])
        why = self._why_kept(record)
        if not why:
            left = (await self._client.get(f"{uri}/tree/root"))["child_count"]
            left -= self._removed.get(uri, 0) if self._ctx.dry_run or below else 0
            why = "holds components that stay" if left > 0 else ""
        if why:
            self._links.pop(uri, None)  # what stays, stays where people find it
            self._say(False, uri, f"digital object {id_} {why}: it stays")
            return
        await self._unlink(uri)
        if not self._ctx.dry_run:
            await self._client.delete(uri)
        for component, component_id in below:
            self._say(True, component, f"component {component_id} deleted")
        self._say(True, uri, f"digital object {id_} deleted")

    async def _unlink(self, digital_object: str) -> None:
        for uri in sorted(self._links.pop(digital_object, ())):
            linked = False

            async def apply(record: Record) -> bool:
                nonlocal linked
                kept = [one for one in record.get("instances", ()) if _ref(one) != digital_object]
                linked = len(kept) < len(record.get("instances", ()))
                record["instances"] = kept
                return linked and not self._ctx.dry_run

            if await self._client.find(uri) is not None:
                await self._client.change(uri, apply)
            if linked:
                self._say(True, uri, f"no longer linked to {digital_object}")


def _ref(instance: Record) -> str:
    return str((instance.get("digital_object") or {}).get("ref", ""))


def restore(record: Record, line: Line) -> list[str]:
    """Take a noted change of a record's file versions back, in place; return what was done.

    A file version that is no longer as it was left is somebody's work: it stays.
    """
    done = []
    if line.get("publish") and record.get("publish"):
        record["publish"] = False
        done.append("no longer published")
    if "after" not in line:
        return done
    now = record.get("file_versions", [])
    before, after = line["before"], line["after"]
    if records.canonical(now) == records.canonical(after):
        record["file_versions"] = before
        return [*done, "file versions as they were"] if now != before else done
    old, left = _by_uri(before), _by_uri(after)
    result = []
    for version in now:
        uri = version["file_uri"]
        if uri not in left or records.canonical(version) != records.canonical(left[uri]):
            result.append(version)
        elif uri in old:
            result.append(old[uri])
    there = {version["file_uri"] for version in now}
    result += [version for uri, version in old.items() if uri not in left and uri not in there]
    if records.canonical(result) == records.canonical(now):
        return done
    record["file_versions"] = result
    return [*done, "our file versions taken out; those that others changed stay"]


def _by_uri(versions: Sequence[Record]) -> dict[str, Record]:
    return {version["file_uri"]: version for version in versions}
