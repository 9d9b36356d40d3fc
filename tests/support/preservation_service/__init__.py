"""A preservation service, as the national services of Finland are: strict, slow, and forgetful.

Written from what is known of the services, and from nothing of dittohead's. What each part rests on:

Proved with the real thing
    - SFTP is spoken by asyncssh's server. A rename onto a name that is there is refused.
    - METS documents are validated by the services' own schemas and schematrons (dpres-xml-schemas 1.3.0), where
      these lie at `shared/data`; `left_out` says loudly what is not looked at where they do not.
    - Reports are written by their schema, and validated by it and by its schematron before they are given out.
    - Signatures are verified by `openssl smime`.

Read in the services' own programs and documents
    - `transfer/NAME.incomplete` is not looked at; the rename to `transfer/NAME` starts the ingest, once; the file
      goes away at some time. Answers lie in `accepted|rejected/DAY/NAME/`, with the unpacked package beside a
      rejection, for ten days.
    - A submission whose OBJID is there is rejected, and so is an update without it.
    - REST 2.0: Basic auth, {"status", "data"}, strings for booleans, links prev/next. REST 3.0: tus 1.0.0 with
      creation and termination, links previous/next, {"status": "fail", "message"} for what is not there.

Assumed
    - How long each step takes: a tick of a virtual clock each. Which step comes first where several fail.
    - That a file whose size changes after the rename is rejected.
    - REST answers 3.0 within {"status", "data"} as 2.0 does; an upload is found at /api/3.0/transfers/ID.
    - Digital objects are not opened: formats are believed.
"""

from __future__ import annotations

from tests.support.preservation_service.served import Served, served
from tests.support.preservation_service.state import Fault, PreservationService

__all__ = ["Fault", "PreservationService", "Served", "served"]
