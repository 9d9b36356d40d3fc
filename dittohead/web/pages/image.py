"""One of a job's images, large, with the way to the one before and the next: also without scripts."""

from __future__ import annotations

from aiohttp import web

from dittohead.model.roles import Role
from dittohead.web.pages.page import answer
from dittohead.web.pages.thumbnails import one_of
from dittohead.web.server.identity import needs


def install(app: web.Application) -> None:
    """Give an application the page."""
    app.router.add_get("/jobs/{job}/images/{number}", page)


@needs(Role.READER)
async def page(request: web.Request) -> web.Response:
    """Show one image."""
    job, pictures, number = await one_of(request)
    return await answer(
        request,
        "image.html",
        job=job,
        picture=pictures[number].large,
        count=len(pictures),
        before=number - 1 if number else None,
        after=number + 1 if number + 1 < len(pictures) else None,
    )
