"""May a folder come into the inbox under a name, and which pipeline would take it: asked before it moves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from dittohead.config.loader import Config, Pipeline
from dittohead.engine.claim import wanted
from dittohead.folders import names
from dittohead.folders.stations import Stations
from dittohead.model.errors import ItemError
from dittohead.model.records import Job
from dittohead.model.states import Station
from dittohead.model.text import display, visible
from dittohead.system.ignored_names import fault
from dittohead.system.users import owner


def taker(config: Config, name: str) -> tuple[Pipeline, Mapping[str, str]]:
    """Return the pipeline that takes a name, and the match's groups. Raises: ItemError."""
    if why := fault(names.checked(name), config.settings.watch.ignore):
        raise ItemError(why, where=visible(name), hint="Choose another name")
    found = config.pipeline_for(name)
    if found is None:
        raise config.no_pipeline(visible(name), "Change it")
    return found


def must_be_free(stations: Stations, name: str) -> None:
    """Raises: ItemError: the name is in the inbox already."""
    for folder in (os.fsencode(name), b"." + os.fsencode(name)):
        if stations.exists(Station.INBOX, folder):
            raise ItemError(
                "a folder of this name is in the inbox already, or is being uploaded",
                where=visible(name),
                hint="Take up or give up that upload, or choose another name",
            )


def renamed(config: Config, stations: Stations, job: Job, name: str) -> Pipeline:
    """Return the pipeline that a job's folder would go through under another name. Blocking.

    Args:
        config: the current configuration; its pipelines are tried in their order.
        job: an ended job; its folder is read for what it asks for, and not moved.
        name: the new name, as text; without the collection's name in front.

    Raises: ItemError: under that name it would fail, or it cannot have it.
    """
    if name in (job.name, display(job.folder)):
        raise ItemError("the folder is called so already", where=visible(name), hint="Choose another name")
    pipeline, groups = taker(config, name)
    folder: Path | None = stations.folder(job.station, job.folder)
    wanted(pipeline, groups, folder)
    known, admitted = owner(job.uid), pipeline.settings.uploaders
    if not known.may_use(admitted):
        raise ItemError(
            f"the pipeline {pipeline.name} takes folders of {', '.join(admitted)}, and not of {known.user}",
            where=visible(name),
            hint="Choose a name of another pipeline",
        )
    must_be_free(stations, name)
    return pipeline
