"""All the pages."""

from __future__ import annotations

from aiohttp import web

from dittohead.web import (
    drop_form,
    page,
    page_batches,
    page_files,
    page_image,
    page_log,
    page_mend,
    page_replace,
    plots,
    thumbnails,
)


def install(app: web.Application) -> None:
    """Give an application every page. Blocking: it reads their files."""
    mending = (page_mend, page_replace, page_files, page_image)  # before those of any action on a job
    for room in (*mending, page, page_batches, page_log, plots, thumbnails, drop_form):
        room.install(app)
