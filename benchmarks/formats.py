"""Every format that convert makes against the vips program making the same, two at once."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import Daemon, Row, ratio_of, running, settle_disk, shown
from benchmarks.convert import images

_TIFF = "vips tiffsave @ OUT/#.tif --tile --pyramid --tile-width 256 --tile-height 256"


@dataclass(frozen=True)
class Case:
    """One format."""

    name: str
    options: dict[str, Any]  #: of the step
    peer: str  #: a command; @ is an image, # its name without ending, OUT where results go
    more: bool = False  #: ours does more than the peer: for information
    slow: bool = False  #: takes seconds an image: a quarter of the images will do


_CASES = (
    Case("pyramid, jpeg", {}, f"{_TIFF} --compression jpeg --Q 85"),
    Case("pyramid, jpeg, quality 90", {"quality": 90}, f"{_TIFF} --compression jpeg --Q 90"),
    *(
        Case(
            f"pyramid, {name}",
            {"compression": name},
            f"{_TIFF} --compression {name} --Q 85 --level 3",
            slow=name not in ("none", "lzw"),
        )
        for name in ("none", "lzw", "deflate", "zstd", "webp")
    ),
    Case("jpeg", {"format": "jpeg"}, "vips jpegsave @ OUT/#.jpg --Q 85 --optimize-coding"),
    Case(
        "jpeg in 843x560",
        {"format": "jpeg", "max_width": 843, "max_height": 560},
        "vips thumbnail @ OUT/#.jpg[Q=85,optimize_coding] 843 --height 560 --size down",
    ),
    Case("png", {"format": "png"}, "vips pngsave @ OUT/#.png", slow=True),
    Case(
        "jp2, access copy",
        {"format": "jp2", "master": False},
        "vips jp2ksave @ OUT/#.jp2 --lossless",
        slow=True,
    ),
    Case(
        "iiif-static (and full/max, sizes)",
        {"format": "iiif-static", "iiif_id": "https://iiif.example.org/{path}"},
        "vips dzsave @ OUT/# --layout iiif3 --tile-size 512 --suffix .jpg[Q=85]",
        more=True,
    ),
)


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Compare the step's own seconds, verified and not, with the program's."""
    most, rounds = (16, 1) if quick else (32, 3)
    full = images(base, most, 3000, 4000)
    few = base / "few"
    few.mkdir()
    for name in sorted(os.listdir(full))[: most // 4]:
        os.link(full / name, few / name)
    for number, case in enumerate(_CASES):
        source, count = (few, most // 4) if case.slow else (full, most)
        peer: list[float] = []
        ours: dict[bool, list[float]] = {False: [], True: []}
        for turn in range(rounds):
            here = base / f"{number}-{turn}"
            peer.append(_peer(here, source, case))
            for verify in (False, True):
                ours[verify].append(_ours(here / str(verify), source, {**case.options, "verify": verify}))
            shutil.rmtree(here)
        plain, checked = ratio_of(ours[False], peer), ratio_of(ours[True], peer)
        yield Row(
            f"{case.name}, {count} images",
            f"{statistics.median(ours[False]):.1f} s, verified {statistics.median(ours[True]):.1f} s",
            f"{statistics.median(peer):.1f} s ({case.peer.split()[1]})",
            f"{plain:.2f}, verified {checked:.2f} of its time",
            "" if case.more else "unverified: <= 1.5",
            None if case.more else plain <= 1.5,
        )


def _peer(here: Path, source: Path, case: Case) -> float:
    out = here / "peer"
    out.mkdir(parents=True)
    lines = []
    for name in sorted(os.listdir(source)):
        line = case.peer.replace("@", str(source / name)).replace("#", Path(name).stem)
        lines.append(line.replace("OUT", str(out)))
    settle_disk()
    started = time.perf_counter()
    subprocess.run(["xargs", "-P2", "-I@", "sh", "-c", "@"], input="\n".join(lines), text=True, check=True)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def _ours(root: Path, source: Path, options: dict[str, Any]) -> float:
    """Return the seconds of the step."""
    steps = json.dumps([{"convert": options}])
    config = f"limits: {{convert: 2}}\npipelines: {{all: {{match: '.*', steps: {steps}}}}}\n"
    with running(Daemon(root, config)) as made:
        shutil.copytree(source, root / "inbox/.x", copy_function=os.link)
        settle_disk()
        os.rename(root / "inbox/.x", root / "inbox/x")
        made.until(made.done(1), pause_s=0.02)
        step = next(s["seconds"] for s in shown(root, "x")["all_steps"] if s["name"] == "convert")
    shutil.rmtree(root)
    return float(step)
