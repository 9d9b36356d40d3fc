"""All the pages."""

from __future__ import annotations

from aiohttp import web

from dittohead.web.pages import (
    batches,
    board,
    drop,
    files,
    image,
    log,
    page,
    plots,
    rename,
    replace,
    thumbnails,
)


def install(app: web.Application) -> None:
    """Give an application every page. Blocking: it reads their files."""
    special = (rename, replace, files, image)  # before those of any action on a job
    for module in (*special, page, batches, board, log, plots, thumbnails, drop):
        module.install(app)
