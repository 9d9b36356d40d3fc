"""The documentation says what the code does; that its examples load is tested with all pages."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "archivesspace.md").read_text()


def test_the_pattern_fits_its_names() -> None:
    """And needs its group."""
    (pattern,) = re.findall(r'`pattern: "([^"]+)"`', PAGE)
    match = re.fullmatch(pattern, "HBF_001_02-0001.tif")
    assert match is not None
    assert match["object"] == "HBF_001_02"


def test_every_permission_that_is_asked_for_is_told() -> None:
    """In the table that an archivist reads."""
    from dittohead.workers.archivesspace.options import ArchivesSpaceOptions
    from dittohead.workers.archivesspace.preflight import needed

    options = ArchivesSpaceOptions(
        url="https://a.example.org", user="u", credential="c", repository=2, events=True
    )
    sight = {"view_suppressed", "manage_agent_record"}  # of which others would do
    told = set(re.findall(r"`([a-z]+_[a-z_]+)`", PAGE.split("| permission | for |")[1].split("\n\n")[0]))
    assert told == {*needed(options), *sight, "delete_archival_record", "delete_event_record"}
