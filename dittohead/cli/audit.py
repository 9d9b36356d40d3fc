"""What `source audit` compares: the store, the receipts and a bucket."""

from __future__ import annotations

import asyncio
from typing import Any

from dittohead.admin.audit import Audit, ComparedBucket, audit, bucket_of
from dittohead.cli.base import USAGE
from dittohead.cli.open_config import reading
from dittohead.cli.source_rounds import setting_of
from dittohead.cli.terminal import fail
from dittohead.config import registry
from dittohead.system.credentials import Credentials
from dittohead.toolkit.s3 import connection
from dittohead.toolkit.s3.bucket import Bucket
from dittohead.toolkit.s3.request_rate import RequestRate

#: Requests at once to the bucket's store.
_REQUESTS = 8


def audited(name: str, against: str, endpoint_url: str, credentials: str, *, read: bool) -> dict[str, Any]:
    """Return what was found, as JSON fields.

    Args:
        name: the source's name.
        against: s3://BUCKET/PREFIX; "" compares with receipts alone.
        endpoint_url: address of a store that is not Amazon's; "" for Amazon's.
        credentials: name of the bucket's credential; "" for what the machine has.
        read: read each object, whole.

    Raises: DittoheadError.
    """
    config, setting = setting_of(name)
    source = registry.sources().get(setting.kind)
    if not source.shows:
        fail(f"{name}: a source of the kind {setting.kind} keeps no catalogue to compare", USAGE)
    given = {"endpoint_url": endpoint_url or None, "credentials": credentials or None}
    place_of = connection.Connection.model_validate(given)
    with reading(config) as (store, stations):

        async def run() -> Audit:
            kept = (store, stations.receipts, name, source.shows, source.stored)
            if not against:
                return await audit(*kept, None)
            bucket, prefix = bucket_of(against)
            async with connection.client(place_of, Credentials(config.path).needed) as client:
                where = Bucket(client, bucket, place_of.address(), RequestRate(_REQUESTS))
                return await audit(*kept, ComparedBucket(bucket=where, prefix=prefix, read=read))

        return asyncio.run(run()).as_dict()
