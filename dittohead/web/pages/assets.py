"""The page's style, scripts and icon: under names made of their content, so that browsers keep them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

_STATIC = Path(__file__).parent / "static"
_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

#: What a script imports: a script beside it that imports nothing.
_IMPORT = re.compile(rb'from "\./([a-z]+\.js)";')

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
        found = {path: path.read_bytes() for path in sorted(_STATIC.iterdir()) if path.suffix in _TYPES}
        # Those that others import come first: they are imported by the names that they are served under.
        for path, data in sorted(found.items(), key=lambda one: bool(_IMPORT.search(one[1]))):
            data = _IMPORT.sub(made._served, data)
            digest = hashlib.sha256(data).hexdigest()[:16]
            served = f"{path.stem}.{digest}{path.suffix}"
            made.paths[path.name] = f"/static/{served}"
            made._files[served] = (data, _TYPES[path.suffix], f'"{digest}"')
        return made

    def _served(self, imported: re.Match[bytes]) -> bytes:
        return b'from "%s";' % self.paths[imported[1].decode()].encode()

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
