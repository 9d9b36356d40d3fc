"""The child program: makes the METS document of one package from what others made, and validates it.

The arguments are the path of a request (`content.PackageRequest` as JSON), its address space in bytes, and
two descriptors: compiled schematrons, {key: XSLT}, are read from the first, and written to the second where
there are more. It answers lines of JSON: {"files": N} as it goes on, and at its end {"result": ..., "faulty":
TEXT, "count": N, "named": [TEXT], "others": [TEXT]}. What is wrong stands on standard error, a line for each.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

from dittohead.model.text import visible
from dittohead.toolkit.sip import schemas
from dittohead.toolkit.sip.content import PackageRequest
from dittohead.toolkit.sip.making import Findings, MetsMaking


def warm() -> None:
    """Make ready what this package needs, and others may need after it; see system/template.py."""
    request, compiled = _asked(Path(sys.argv[1])), _compiled(int(sys.argv[3]))
    if request.schemas:
        schemas.make_ready(request.profile, Path(request.schemas), compiled)


def _asked(path: Path) -> PackageRequest:
    return PackageRequest.model_validate_json(path.read_bytes())


def _compiled(fd: int) -> dict[str, str]:
    with open(fd, "rb", closefd=False) as known:
        known.seek(0)
        found: dict[str, str] = json.loads(known.read() or b"{}")
    return found


def main() -> None:
    """Do what is asked for."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a library that prints must not break the protocol

    def answer(told: dict[str, Any]) -> None:
        answers.write(json.dumps(told).encode() + b"\n")

    most, known_at, now_at = map(int, sys.argv[2:5])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    request, compiled = _asked(Path(sys.argv[1])), _compiled(known_at)
    before = len(compiled)
    findings = Findings(write=lambda line: os.write(2, visible(line).encode() + b"\n"))
    making = MetsMaking(request, findings, compiled)
    making.progress = lambda files: answer({"files": files})
    result = making.run()
    if len(compiled) > before:
        with open(now_at, "wb") as out:
            out.write(json.dumps(compiled).encode())
    faulty = findings.faulty
    answer(
        {
            "result": result.as_dict(),
            "faulty": str(faulty),
            "count": faulty.count,
            "named": faulty.named,
            "others": findings.others,
        }
    )


if __name__ == "__main__":
    main()
