"""The page's style, scripts and icon: under names made of their content, so that browsers keep them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

_STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

#: A name is a promise: whatever it holds never changes.
_FOR_EVER = "public, max-age=31536000, immutable"


@dataclass
class Assets:
    """All of them, in memory."""

    paths: dict[str, str] = field(default_factory=dict)  #: file's name -> path of its URL
    _files: dict[str, tuple[bytes, str, str]] = field(default_factory=dict)

    @classmethod
    def load(cls) -> Assets:
        """Read them. Blocking."""
        made = cls()
        for path in sorted(_STATIC.iterdir()):
            if path.suffix in _TYPES:
                data = path.read_bytes()
                digest = hashlib.sha256(data).hexdigest()[:16]
                served = f"{path.stem}.{digest}{path.suffix}"
                made.paths[path.name] = f"/static/{served}"
                made._files[served] = (data, _TYPES[path.suffix], f'"{digest}"')
        return made

    async def serve(self, request: web.Request) -> web.Response:
        """Answer a request for one."""
        known = self._files.get(request.match_info["asset"])
        if known is None:
            raise web.HTTPNotFound
        data, kind, tag = known
        headers = {"Content-Type": kind, "ETag": tag, "Cache-Control": _FOR_EVER}
        if any(given.value == tag.strip('"') for given in request.if_none_match or ()):
            return web.Response(status=304, headers=headers)
        return web.Response(body=data, headers=headers)
