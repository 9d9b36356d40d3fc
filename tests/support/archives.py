"""Archives as people's programs make them, sound and bad: by tar, gpg, zip, and by hand where none makes them."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

PASSPHRASE = "correct horse 45"


def member(name: str, data: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    """Return a header and its content; `fields` are those of `tarfile.TarInfo`, such as type."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def tar_of(
    files: Mapping[str, bytes] | Sequence[tuple[tarfile.TarInfo, bytes]],
    mode: str = "w",
    format: int = tarfile.PAX_FORMAT,
) -> bytes:
    """Return a tar archive; `mode` as `tarfile.open` has it: "w", "w:gz", "w:bz2", "w:xz"."""
    out = io.BytesIO()
    members = [member(*item) for item in files.items()] if isinstance(files, Mapping) else files
    with tarfile.open(fileobj=out, mode=mode, format=format) as tar:  # type: ignore[call-overload]
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def sealed(data: bytes, home: Path, passphrase: str = PASSPHRASE, *more: str, stream: bool = False) -> bytes:
    """Return data as gpg encrypts it with a passphrase.

    Args:
        stream: it is given to gpg as a stream, of which it does not know the length: it writes packets of
            partial lengths then.
    """
    home.mkdir(mode=0o700, exist_ok=True, parents=True)
    reading, writing = os.pipe()
    os.write(writing, passphrase.encode())
    os.close(writing)
    argv = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--no-autostart", "--s2k-count", "1024"]
    argv += ["--pinentry-mode", "loopback", "--passphrase-fd", str(reading), *more, "--symmetric"]
    if not stream:
        (home / "data").write_bytes(data)
        argv += ["--output", "-", str(home / "data")]
    said = subprocess.run(
        argv, input=data if stream else b"", capture_output=True, check=False, pass_fds=[reading]
    )
    os.close(reading)
    assert said.stdout, said.stderr
    return said.stdout


def flipped(data: bytes, at: int, bit: int = 1) -> bytes:
    """Return data with one bit changed; a negative place counts from the end."""
    changed = bytearray(data)
    changed[at] ^= bit
    return bytes(changed)
