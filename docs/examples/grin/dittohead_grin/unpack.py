"""grin-unpack FOLDER TARGET: decrypt a volume, unpack it and hold it against its own checksums, in one pass.

The passphrase stands in the environment as GRIN_PASSPHRASE; gpg gets it by a pipe. Nothing decrypted is
written but the pages themselves. Exit status 65: the volume is not what it should be; the last line says why.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import IO

#: Names of members: flat, and nothing hidden.
PLAIN = re.compile(r"\w[\w.-]*", re.ASCII)
CHECKSUMS = "checksum.md5"


def main() -> int:
    """Unpack the folder's only archive."""
    folder, target = Path(sys.argv[1]), Path(sys.argv[2])
    archives = list(folder.glob("*.tar.gz.gpg"))
    if len(archives) != 1:
        return wrong(f"one archive is wanted, and there are {len(archives)}")
    # A home of its own: no agent of somebody's, and none that stays.
    home = tempfile.mkdtemp(prefix="gpg")
    try:
        return decrypted(archives[0], target, home)
    except (tarfile.TarError, EOFError, OSError) as error:
        return wrong(f"{archives[0].name}: {error}")
    finally:
        subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=False)
        shutil.rmtree(home, ignore_errors=True)


def decrypted(archive: Path, target: Path, home: str) -> int:
    """Let gpg write into the unpacking; its exit status says that nothing was cut off or changed."""
    reading, writing = os.pipe()
    os.write(writing, os.environ["GRIN_PASSPHRASE"].encode())
    os.close(writing)
    argv = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode", "loopback"]
    argv += ["--passphrase-fd", str(reading), "--decrypt", str(archive)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[reading]) as gpg:
        os.close(reading)
        assert gpg.stdout is not None
        assert gpg.stderr is not None
        reason = broken = ""
        try:
            reason = unpacked(gpg.stdout, target)
        except (tarfile.TarError, EOFError, OSError) as error:
            broken = f"the archive cannot be read: {error}"
        gpg.stdout.close()
        said = gpg.stderr.read().decode("utf-8", "replace").strip().rpartition("\n")[2]
        status = gpg.wait()
    if reason or broken or status:
        # Where gpg itself has failed, what came of it is broken for that reason.
        return wrong(f"{archive.name}: {reason or (said if status else '') or broken}")
    print(f"{len(list(target.iterdir()))} files")
    return 0


def unpacked(stream: IO[bytes], target: Path) -> str:
    """Write the members and return what is wrong with them; "" for nothing."""
    digests: dict[str, str] = {}
    with tarfile.open(fileobj=stream, mode="r|gz") as tar:
        for member in tar:
            if not member.isreg() or not PLAIN.fullmatch(member.name) or member.name in digests:
                return f"a member that is no plain file, or there twice: {member.name!r}"
            source = tar.extractfile(member)
            assert source is not None
            digest = hashlib.md5(usedforsecurity=False)
            with open(target / member.name, "xb") as file:
                while chunk := source.read(1 << 20):
                    digest.update(chunk)
                    file.write(chunk)
            digests[member.name] = digest.hexdigest()
    while stream.read(1 << 20):  # gpg is to come to its end, where it says whether all was sound
        pass
    return compared(digests, target)


def compared(digests: dict[str, str], target: Path) -> str:
    """Hold the members against checksum.md5, and the pages against each other."""
    if CHECKSUMS not in digests:
        return f"there is no {CHECKSUMS}"
    lines = (target / CHECKSUMS).read_text("utf-8").splitlines()
    wanted = {name: digest for digest, _, name in (line.partition("  ") for line in lines if line)}
    del digests[CHECKSUMS]
    different = sorted(
        name for name in wanted.keys() | digests.keys() if wanted.get(name) != digests.get(name)
    )
    if different:
        return f"{len(different)} files are not as {CHECKSUMS} says, {different[0]} the first"
    stems = {
        ending: {Path(name).stem for name in digests if Path(name).suffix in endings}
        for ending, endings in {"image": (".jp2", ".tif"), "text": (".txt",), "hOCR": (".html",)}.items()
    }
    if not stems["image"] or len({frozenset(found) for found in stems.values()}) != 1:
        return "not every page has an image, text and hOCR"
    if not any(name.endswith(".xml") for name in digests):
        return "there is no METS file"
    return ""


def wrong(why: str) -> int:
    """Say why, as the last line."""
    print(why)
    return os.EX_DATAERR


if __name__ == "__main__":
    sys.exit(main())
