"""(i) A lossless pyramid TIFF of 48 megapixels by our own writer, against libvips' tiffsave."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import Row, ratio_of, settle_disk

#: One child for each picture, with one libvips thread, as the step has them. Waves and a little noise.
_CHILD = """
import json, os, sys, time
import pyvips
from dittohead.toolkit.images import tiles

how, source, out, width, height = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
if how == "make":
    waves = pyvips.Image.perlin(width, height, cell_size=512, uchar=True, seed=1)
    grain = [pyvips.Image.gaussnoise(width, height, sigma=2, mean=0, seed=seed) for seed in (1, 2)]
    bands = [waves + grain[0], waves, waves + grain[1]]
    bands[0].bandjoin(bands[1:]).cast("uchar").copy(interpretation="srgb").tiffsave(out)
    sys.exit()
options = json.loads(how)
image = pyvips.Image.new_from_file(source, access="sequential", fail_on="warning")
started = time.perf_counter()
if "threads" in options:
    with open(out, "wb") as file:
        tiles.write(image, file.fileno(), **options)
else:
    image.tiffsave(
        out, compression="deflate", tile=True, pyramid=True, tile_width=256, tile_height=256, **options
    )
seconds = time.perf_counter() - started
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, os.stat(out).st_size / 1e6, int(peak) / 1024]))
"""


@dataclass(frozen=True)
class _Turn:
    """What one child needed."""

    seconds: float
    megabytes: float
    peak_mb: float


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Compare with libvips at level 3 and at its default; the one in Debian 12 ignores the level."""
    width, height, rounds = (3000, 4000, 1) if quick else (6000, 8000, 3)
    _run(base, "make", width, height, out="source.tif")
    peers = {"at level 3": {"level": 3}, "by default": {}}
    ways = {
        "level 1, one thread": {"level": 1, "threads": 1},
        "level 1, two threads": {"level": 1, "threads": 2},
        "level 4, one thread": {"level": 4, "threads": 1},
        "level 4, two threads": {"level": 4, "threads": 2},
    }
    found: dict[str, list[_Turn]] = {}
    for _ in range(rounds):
        for name, options in {**peers, **ways}.items():
            settle_disk()
            turn = _Turn(*json.loads(_run(base, json.dumps(options), width, height)))
            found.setdefault(name, []).append(turn)
    for name in ways:
        for peer in peers:
            faster = 1 / ratio_of([t.seconds for t in found[name]], [t.seconds for t in found[peer]])
            goal, holds = (">= 1.5", faster >= 1.5) if peer == "at level 3" else ("", None)
            what = f"lossless, {name}"
            theirs = f"{_said(found[peer])} (libvips {peer})"
            yield Row(what, _said(found[name]), theirs, f"{faster:.1f} of its speed", goal, holds)


def _said(turns: list[_Turn]) -> str:
    seconds = statistics.median(turn.seconds for turn in turns)
    return f"{seconds:.2f} s, {turns[0].megabytes:.1f} MB, peak {turns[0].peak_mb:.0f} MB"


def _run(base: Path, how: str, width: int, height: int, out: str = "out.tif") -> str:
    files = [str(base / "source.tif"), str(base / out)]
    argv = [sys.executable, "-c", _CHILD, how, *files, str(width), str(height)]
    said: str = subprocess.check_output(argv, text=True, env={**os.environ, "VIPS_CONCURRENCY": "1"})
    return said
