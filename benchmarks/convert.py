"""(c) Images of 6000x8000 pixels to pyramid TIFFs, against the vips program, two at once."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import Daemon, Row, ratio_of, running, settle_disk, settled, shown

_FLAGS = "--tile --pyramid --compression jpeg --Q 85 --tile-width 256 --tile-height 256"


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Compare the step's own seconds, verified and not, with the program's."""
    count, rounds = (8, 1) if quick else (16, 2)
    source = images(base, count)
    peer, steps, jobs = [], {False: [], True: []}, {False: [], True: []}  # type: ignore[var-annotated]
    for turn in range(rounds):
        here = base / str(turn)
        peer.append(_peer(here, source))
        for verify in (False, True):
            step, job = _ours(here / str(verify), source, verify=verify)
            steps[verify].append(step)
            jobs[verify].append(job)
    theirs = f"{statistics.median(peer):.1f} s (vips, xargs -P2)"
    for verify, name, goal, most in (
        (False, "unverified", ">= 1.0 of its speed", 1.0),
        (True, "read back", "<= 1.5 of its time", 1.5),
    ):
        ratio = ratio_of(steps[verify], peer)
        said = f"{ratio:.2f} of its time" if verify else f"{1 / ratio:.2f} of its speed"
        ours = f"{statistics.median(steps[verify]):.1f} s"
        yield Row(f"convert {count} images, {name}", ours, theirs, said, goal, ratio <= most)
        whole = ratio_of(jobs[verify], peer)
        ours = f"{statistics.median(jobs[verify]):.1f} s"
        yield Row("  the whole job, manifest to done/", ours, "", f"{whole:.2f} of its time")


def images(base: Path, count: int, width: int = 6000, height: int = 8000) -> Path:
    """Make two images of noise and waves; link them under many names."""
    source = base / "source"
    source.mkdir()
    for seed in (1, 2):
        for line in (
            f"vips perlin waves.v {width} {height} --cell-size 512 --uchar --seed {seed}",
            f"vips gaussnoise noise.v {width} {height} --sigma 12 --mean 0 --seed {seed}",
            "vips add waves.v noise.v grey.v",
            "vips cast grey.v byte.v uchar",
            "vips bandjoin 'byte.v waves.v byte.v' three.v",
            f"vips copy three.v image{seed}.tif --interpretation srgb",
        ):
            subprocess.run(line, shell=True, check=True, cwd=base)
    for scrap in base.glob("*.v"):
        scrap.unlink()
    for i in range(count):
        os.link(base / f"image{i % 2 + 1}.tif", source / f"{i:02}.tif")
    return source


def _peer(here: Path, source: Path) -> float:
    out = here / "peer"
    out.mkdir(parents=True)
    settle_disk()
    started = time.perf_counter()
    line = f"ls {source} | xargs -P2 -I@ vips tiffsave {source}/@ {out}/@ {_FLAGS}"
    subprocess.run(line, shell=True, check=True)
    seconds = time.perf_counter() - started
    shutil.rmtree(out)
    return seconds


def _ours(root: Path, source: Path, *, verify: bool) -> tuple[float, float]:
    """Return the seconds of the step, and from the rename to done/."""
    config = f"""
        limits: {{convert: 2}}
        pipelines: {{all: {{match: ".*", steps: [{{convert: {{verify: {str(verify).lower()}}}}}]}}}}
        """
    with running(Daemon(root, config)) as made:
        shutil.copytree(source, root / "inbox/.x", copy_function=os.link)
        settle_disk()
        settled()
        started = time.perf_counter()
        os.rename(root / "inbox/.x", root / "inbox/x")
        made.until(made.done(1), pause_s=0.02)
        whole = time.perf_counter() - started
        step = next(s["seconds"] for s in shown(root, "x")["all_steps"] if s["name"] == "convert")
    shutil.rmtree(root)
    return step, whole
