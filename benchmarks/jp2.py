"""One image to a proved master in JPEG 2000, against OpenJPEG's programs with its profile, and libvips."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.common import Row, ratio_of, settle_disk
from benchmarks.convert import images
from dittohead.system.files import sha256_file
from dittohead.toolkit.images.options import ConvertOptions

_PRECINCTS = "[256,256],[256,256],[128,128],[128,128],[128,128],[128,128]"
_PROFILE = f"-p RPCL -n 6 -t 1024,1024 -b 64,64 -PLT -TLM -c {_PRECINCTS}"


@dataclass
class Runs:
    """What one way took in each turn."""

    make: Callable[[Path], list[list[str]]]  #: the commands, one after another
    ask: str = ""  #: what our child is asked for
    seconds: list[float] = field(default_factory=list)
    mib: int = 0  #: the most memory of any of its programs
    size: int = 0  #: bytes of the result

    def run(self, out: Path) -> None:
        settle_disk()
        started = time.perf_counter()
        for command in self.make(out):
            self.mib = max(self.mib, _run(command, self.ask))
        self.seconds.append(time.perf_counter() - started)
        self.size = (out / "a.jp2").stat().st_size


def _run(command: list[str], ask: str) -> int:
    """Run a program with one thread; return its peak memory in MiB."""
    # OpenJPEG's programs take no more than one thread unless told; libvips does.
    env = {**os.environ, "VIPS_CONCURRENCY": "1", "OPENBLAS_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(ask)
        process.stdin.close()
        said = process.stdout.read()
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or (ask and '"ok": true' not in said):
        raise SystemExit(f"{command[0]}: {said or process.returncode}")
    return used.ru_maxrss >> 10


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Compare writing alone, and writing with the proof."""
    rounds, size = (1, (3000, 4000)) if quick else (3, (6000, 8000))
    source = images(base, 1, *size)
    tiff = source / sorted(os.listdir(source))[0]
    ways = {
        "written": Runs(_child, _ask(tiff, base / "written", master=False, verify=False)),
        "proved": Runs(_child, _ask(tiff, base / "proved")),
        "opj": Runs(lambda out: [_compress(tiff, out)]),
        "opj, decoded": Runs(lambda out: [_compress(tiff, out), _decompress(out)]),
        "vips": Runs(lambda out: [["vips", "jp2ksave", str(tiff), str(out / "a.jp2"), "--lossless"]]),
    }
    for name in ways:
        (base / name).mkdir()
    for _ in range(rounds):
        for name, way in ways.items():
            way.run(base / name)
    yield _row("master, written", ways["written"], "opj_compress, same profile", ways["opj"], 1.5)
    yield _row("  against jp2ksave, which has no such profile", ways["written"], "vips", ways["vips"], None)
    yield _row("master, proved", ways["proved"], "opj_compress, opj_decompress", ways["opj, decoded"], 2.0)


def _row(name: str, ours: Runs, peer_name: str, peer: Runs, most: float | None) -> Row:
    ratio = ratio_of(ours.seconds, peer.seconds)
    return Row(
        name,
        f"{statistics.median(ours.seconds):.1f} s, {ours.mib} MiB",
        f"{statistics.median(peer.seconds):.1f} s, {peer.mib} MiB ({peer_name})",
        f"{ratio:.2f} of its time, {ours.mib / peer.mib:.2f} of its memory, size {ours.size / peer.size:.3f}",
        "" if most is None else f"<= {most} of its time",
        None if most is None else ratio <= most,
    )


def _child(_: Path) -> list[list[str]]:
    return [[sys.executable, "-m", "dittohead.toolkit.images", str(2 << 30)]]


def _ask(tiff: Path, out: Path, **options: bool) -> str:
    """Return what a child is asked for."""
    digest, _ = sha256_file(tiff)
    request = {
        "root": str(tiff.parent),
        "path": tiff.name,
        "sha256": digest,
        "work": str(out),
        "out": "a.jp2",
        "temp": str(out / "temp"),
        "recipe": ConvertOptions.model_validate({"format": "jp2", **options}).child_recipe(),
    }
    return json.dumps(request) + "\n"


def _compress(tiff: Path, out: Path) -> list[str]:
    return ["opj_compress", "-i", str(tiff), "-o", str(out / "a.jp2"), *_PROFILE.split()]


def _decompress(out: Path) -> list[str]:
    return ["opj_decompress", "-i", str(out / "a.jp2"), "-o", str(out / "a.tif"), "-quiet"]
