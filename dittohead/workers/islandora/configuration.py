"""What a site says of its fields: whether they are there, what they take, where their files are kept.

islandora_workbench_integration tells it from its version 1.2.0 on to who has `use islandora workbench`;
core's REST resources tell it to who has `administer node fields`. Who has neither is told nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from dittohead.model.errors import StepError
from dittohead.toolkit.rest import RestAnswer
from dittohead.workers.islandora.site import Drupal

_MODULE = "/islandora_workbench_integration/node_actions"

#: Fields of media that hold files, of the bundles that images and their texts go to.
_FILES = ("field_media_file", "field_media_image")

Config = Mapping[str, Any]


class Configuration:
    """Asks one site for its fields, in the way that it answers.

    Args:
        content_type: of the nodes.
    """

    def __init__(self, site: Drupal, content_type: str) -> None:
        self._site, self._type = site, content_type
        self._way: str | None = None  #: "module", "core" or "" for none; None before it was asked

    async def told(self) -> bool:
        """Tell whether the site tells anything of its fields."""
        return bool(await self._found_way())

    async def field(self, name: str) -> Config | None:
        """Return a field of the content type; None when it has none. Ask `told` before."""
        return _config(
            await self._ask("field_config", f"node/{self._type}/{name}", f"node.{self._type}.{name}")
        )

    async def storage(self, name: str) -> Config:
        """Return the storage of a field of nodes; empty when it is not told."""
        return _config(await self._ask("field_storage_config", f"node/{name}", f"node.{name}")) or {}

    async def takes(self, name: str) -> frozenset[str] | None:
        """Return the vocabularies whose terms a field takes: none where there is no field; None: not told."""
        if not await self.told():
            return None
        config = await self.field(name)
        if config is None:
            return frozenset()
        named = _within(config, "settings", "handler_settings", "target_bundles")
        return frozenset(named) or None

    async def schemes(self) -> dict[str, str]:
        """Return the schemes of URIs at which the site keeps files, by field of media; none: not told."""
        found = {}
        for name in _FILES:
            answer = await self._ask("field_storage_config", f"media/{name}", f"media.{name}")
            config = _config(answer) or {}
            scheme = _within(config, "settings").get("uri_scheme", config.get("uri_scheme"))
            if isinstance(scheme, str):
                found[name] = scheme
        return found

    async def _found_way(self) -> str:
        if self._way is None:
            self._way = ""
            for way in ("module", "core"):
                answer = await self._by(way, "field_config", f"node/{self._type}/field_model", "")
                if _config(answer) is not None:
                    self._way = way
                    break
        return self._way

    async def _ask(self, kind: str, path: str, config: str) -> RestAnswer | None:
        way = await self._found_way()
        return await self._by(way, kind, path, config) if way else None

    async def _by(self, way: str, kind: str, path: str, config: str) -> RestAnswer:
        if way == "module":
            return await self._site.rest.send("GET", f"{_MODULE}/{kind}/{path}")
        config = config or path.replace("/", ".")
        return await self._site.rest.send("GET", f"/entity/{kind}/{config}", params={"_format": "json"})


def _config(answer: RestAnswer | None) -> Config | None:
    if answer is not None and answer.status == 200:
        with contextlib.suppress(StepError):
            found = answer.json()
            return found if isinstance(found, dict) else None
    return None


def _within(config: Config, *names: str) -> dict[str, Any]:
    for name in names:
        found = config.get(name)
        config = found if isinstance(found, dict) else {}
    return dict(config)
