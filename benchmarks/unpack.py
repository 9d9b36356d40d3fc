"""Decrypting, decompressing, unpacking and hashing a volume in one pass, against `gpg -d | tar xz` alone."""

from __future__ import annotations

import asyncio
import random
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common import Row, ratio_of
from dittohead.workers.unpack.options import UnpackOptions
from dittohead.workers.unpack.worker import UnpackWorker
from tests.support.archives import PASSPHRASE
from tests.support.context import LoneContext, source_of

_PAGE = 450_000  #: bytes of a page's image


def measure(base: Path, quick: bool) -> Iterator[Row]:
    """Unpack a volume of some hundred pages: images that do not compress, text that does."""
    payload = base / "volume"
    _volume(payload, base, 200 if quick else 600)
    size = (payload / "v.tar.gz.gpg").stat().st_size
    source = source_of(payload)
    ours: list[float] = []
    peer: list[float] = []
    cpu: list[float] = []  #: seconds of processor time that the peer took, for each of ours
    for turn in range(4 if quick else 6):
        before = _cpu_s()
        peer.append(size / _peer(payload, base) / 1e6)
        peers = _cpu_s() - before
        context = LoneContext(
            base, payload, source=source, secrets={"pass": PASSPHRASE}, job_id=f"01JTEST{turn:020}"
        )
        before, started = _cpu_s(), time.perf_counter()
        options = UnpackOptions(credential="pass", checksums="checksum.md5")
        asyncio.run(_run(context, options))
        ours.append(size / (time.perf_counter() - started) / 1e6)
        cpu.append(peers / (_cpu_s() - before))
        shutil.rmtree(context.work)
    ratio = ratio_of(ours[1:], peer[1:])  # the first is for the page cache
    yield Row(
        f"a volume of {size / 1e6:,.0f} MB, decrypted, unpacked, MD5 and SHA-256",
        f"{statistics.median(ours):,.0f} MB/s",
        f"{statistics.median(peer):,.0f} MB/s (gpg -d | tar xz)",
        f"{ratio:.2f} of its speed",
        ">= 0.9",
        ratio >= 0.9,
    )
    # On a machine that is busy with something else this is what can be compared.
    less = statistics.median(cpu[1:])
    yield Row("  by processor time", f"{less:.2f} of its speed", goal=">= 0.9", holds=less >= 0.9)


def _cpu_s() -> float:
    """Return the processor time of this process and of those that it has waited for, in seconds."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


async def _run(context: LoneContext, options: UnpackOptions) -> None:
    await UnpackWorker().run(context, options)


def _volume(payload: Path, base: Path, pages: int) -> None:
    """Make an archive as GRIN gives it: `NNNNNNNN.jp2`, `.txt` and `.html` for each page, and their MD5s."""
    chance = random.Random(1)
    words = [bytes(chance.choices(b"abcdefghijklmnop", k=chance.randint(2, 9))) for _ in range(5000)]
    made = base / "made"
    made.mkdir()
    for number in range(1, pages + 1):
        text = b" ".join(chance.choices(words, k=400))
        (made / f"{number:08}.jp2").write_bytes(chance.randbytes(_PAGE))
        (made / f"{number:08}.txt").write_bytes(text)
        (made / f"{number:08}.html").write_bytes(b"".join(b"<span>%s</span>" % word for word in text.split()))
    sums = subprocess.run("md5sum *", shell=True, cwd=made, capture_output=True, check=True).stdout
    (made / "checksum.md5").write_bytes(sums)
    payload.mkdir()
    subprocess.run(
        f"tar cz * | {_gpg(base)} --output {payload}/v.tar.gz.gpg --symmetric",
        shell=True,
        cwd=made,
        stderr=subprocess.DEVNULL,
        check=False,  # it misses its agent, and has encrypted all the same: what is unpacked tells
    )
    shutil.rmtree(made)


def _gpg(base: Path) -> str:
    home = base / "gpg"
    home.mkdir(mode=0o700, exist_ok=True)
    (home / "passphrase").write_text(PASSPHRASE)
    return (
        f"gpg --homedir {home} --batch --quiet --no-autostart --pinentry-mode loopback "
        f"--passphrase-file {home}/passphrase"
    )


def _peer(payload: Path, base: Path) -> float:
    """Return the seconds of the plainest programs; made as durable as ours."""
    target = base / "peer"
    target.mkdir()
    argv = f"{_gpg(base)} --decrypt {payload}/v.tar.gz.gpg | tar xz -C {target} && sync -f {target}"
    started = time.perf_counter()
    subprocess.run(argv, shell=True, check=True)
    taken = time.perf_counter() - started
    shutil.rmtree(target)
    return taken
