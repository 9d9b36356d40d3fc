"""A volume's files and their archive, as GRIN gives them: a gzipped tar, encrypted by a real gpg."""

from __future__ import annotations

import hashlib
import io
import random
import subprocess
import tarfile
from pathlib import Path

PASSPHRASE = "correct horse 45"

METS = """<?xml version="1.0" encoding="UTF-8"?>
<METS:mets xmlns:METS="http://www.loc.gov/METS/" OBJID="LIB_{barcode}"><METS:dmdSec ID="DMD1">
<METS:mdWrap MDTYPE="MARC"><METS:xmlData><slim:record xmlns:slim="http://www.loc.gov/MARC21/slim">
<slim:datafield tag="245" ind1="1" ind2="0"><slim:subfield code="a">A title</slim:subfield></slim:datafield>
</slim:record></METS:xmlData></METS:mdWrap></METS:dmdSec></METS:mets>
"""


def volume(barcode: str, pages: int = 2, *, wrong: str = "") -> dict[str, bytes]:
    """Return a volume's files; `wrong` names one that is not as checksum.md5 says."""
    files: dict[str, bytes] = {f"LIB_{barcode}.xml": METS.format(barcode=barcode).encode()}
    for number in range(1, pages + 1):
        files[f"{number:08}.jp2"] = random.Random(f"{barcode}-{number}").randbytes(16_000)
        files[f"{number:08}.txt"] = f"page {number} of {barcode}\n".encode()
        files[f"{number:08}.html"] = b"<html/>"
    lines = [f"{hashlib.md5(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())]
    if wrong:
        files[wrong] += b"!"
    return {**files, "checksum.md5": "".join(lines).encode()}


def sealed(files: dict[str, bytes], home: Path, passphrase: str = PASSPHRASE) -> bytes:
    """Return files as GRIN gives them: a gzipped tar, encrypted by gpg with a passphrase."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w:gz") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    home.mkdir(mode=0o700, exist_ok=True)
    argv = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode", "loopback"]
    argv += ["--passphrase", passphrase, "--symmetric", "--output", "-"]
    try:
        return subprocess.run(argv, input=plain.getvalue(), capture_output=True, check=True).stdout
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


def unreadable(barcode: str, size: int = 40_000) -> bytes:
    """Return bytes in place of an archive, where nobody decrypts it: the same for a barcode."""
    return random.Random(barcode).randbytes(size)
