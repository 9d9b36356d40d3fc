"""A museum: a daemon that makes packages and submits them, and the service at the other end."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.daemon import Site, site
from tests.support.images import tiff
from tests.support.package import _KEY, CONTRACT, LIDO
from tests.support.preservation_service import PreservationService, Served, served

#: A folder from which a package is made.
OBJECT: dict[str | bytes, Any] = {"lido.xml": LIDO.encode(), "images": {"front 1.tif": tiff(60, 40)}}

CONFIG = """
root: {root}
space: {{floor: 0}}
retry: {{first: 10ms, most: 50ms}}
limits: {{jobs: 8}}
pipelines:
  museum:
    match: "object-(?P<number>[0-9]+)"
    steps:
      - identify: {{}}
      - package:
          profile: dpres-1.8
          id: "Museum_Object_{{number}}"
          creator: City Museum
          values: {{contract: "{contract}", service: cultural-heritage}}
          metadata: [lido.xml]
          formats: identify
          schemas: {schemas}
          signing_credential: signing.pem
          update_of: history
      - submit:
          from: package
          ask_first: {ask}
          ask_most: 1h
{places}
{more}
"""


@dataclass
class Museum:
    here: Site
    served: Served

    @property
    def service(self) -> PreservationService:
        return self.served.service

    def until_waits(self, name: str, times: int = 1) -> dict[str, Any]:
        """Return the line with which a job waits for the service, for the `times`-th time."""

        def waiting() -> dict[str, Any] | None:
            found = [
                line
                for line in self.here.events("step.waiting")
                if line["name"] == name and "is with the preservation service" in line["reason"]
            ]
            return found[times - 1] if len(found) >= times else None

        found: dict[str, Any] = self.here.until(waiting)
        return found

    def lies_in(self, station: str, name: str) -> None:
        self.here.until((self.here.root / station / name).exists)


@contextlib.contextmanager
def museum(
    base: Path, schemas: Path, *, way: str = "sftp", ticks_s: float = 0.0, ask: str = "50ms", more: str = ""
) -> Iterator[Museum]:
    """Run a service, and let a daemon be started."""
    certificate = base / "cert.pem"
    certificate.write_text("-----BEGIN CERT" + _KEY.partition("-----BEGIN CERT")[2])
    service = PreservationService(base / "sip", contract=CONTRACT, ca=certificate, schemas=schemas)
    with served(service, ticks_s=ticks_s) as there, site(base / "root", "") as here:
        places = "".join(
            f"          {name}: {{{', '.join(f'{key}: {value!r}' for key, value in getattr(there, name).items())}}}\n"
            for name in way.split("+")
        )
        here.configure(
            CONFIG.format(
                root=here.root, schemas=schemas, contract=CONTRACT, places=places, more=more, ask=ask
            )
        )
        credentials = here.root / "credentials"
        credentials.mkdir(mode=0o700)
        for name, secret in {**there.secrets, "signing.pem": _KEY}.items():
            (credentials / name).write_text(secret)
            (credentials / name).chmod(0o600)
        yield Museum(here, there)
