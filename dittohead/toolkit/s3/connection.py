"""The only door to aiobotocore: connections to S3 and SQS, and what their errors mean for a job.

Retries are ours, because a whole step, not one call, must know that a store is
throttling; checksums are ours (`dittohead.toolkit.checksums`), because botocore's newer defaults break
stores that are not Amazon's.
"""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import gc
import json
import os
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from functools import cache
from importlib.metadata import version
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore import exceptions as boto
from botocore.handlers import add_expect_header
from botocore.parsers import ResponseParserError
from botocore.utils import parse_timestamp
from pydantic import BaseModel, ConfigDict, Field, field_validator

from dittohead.model.errors import ItemError, StepError, TargetError, TransientError
from dittohead.model.text import short
from dittohead.toolkit import retry_after

#: Seconds to connect, and without a byte of an answer, before a request is given up.
_CONNECT_S = 10.0
_SILENT_S = 60.0

#: Requests a connection pool can carry at once; what runs at once is decided where the work is.
_POOL = 128

#: Code of an error -> what to do about it. Everything is put right at the store or by its admin.
_STANDING: dict[str, str] = {
    "AccessDenied": "Allow this user what it asked for, or name other credentials",
    "AllAccessDisabled": "Ask the store's operator",
    "AccountProblem": "Ask the store's operator",
    "InvalidAccessKeyId": "Give valid credentials",
    "SignatureDoesNotMatch": "Give the secret key that belongs to the access key",
    "ExpiredToken": "Renew the credentials",
    "ExpiredTokenException": "Renew the credentials",
    "InvalidToken": "Renew the credentials",
    "InvalidClientTokenId": "Give valid credentials",
    "UnrecognizedClientException": "Give valid credentials",
    "TokenRefreshRequired": "Renew the credentials",
    "RequestTimeTooSkewed": "Set this host's clock (or the store's)",
    "NoSuchBucket": "Create the bucket, or correct its name",
    "PermanentRedirect": "Set region: to the bucket's own",
    "AuthorizationHeaderMalformed": "Set region: to the bucket's own",
    "IllegalLocationConstraintException": "Set region: to the bucket's own",
    "QuotaExceeded": "Make room at the store, or raise the quota",
    "XMinioStorageFull": "Make room at the store",
    "InsufficientCapacity": "Make room at the store",
    "InvalidStorageClass": "Name a storage class that the store knows",
    "KMS.DisabledException": "Enable the key, or name another",
    "KMS.NotFoundException": "Name a key that exists",
    "InvalidBucketState": "Ask the store's operator",
    "ObjectLockConfigurationNotFoundError": "Enable object lock at the bucket, or leave object_lock out",
    "AWS.SimpleQueueService.NonExistentQueue": "Create the queue, or correct its address",
    "QueueDoesNotExist": "Create the queue, or correct its address",
}

#: Codes that say that credentials are wrong or too old.
_STALE = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "ExpiredTokenException", "InvalidToken"}
)

#: Codes by which a store says that it has too much to do.
_SLOW_DOWN = frozenset(
    {
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "RequestThrottled",
        "TooManyRequests",
        "TooManyRequestsException",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "ServiceUnavailable",
    }
)

#: Codes that pass, whatever status they come with.
_PASSING = _SLOW_DOWN | frozenset(
    {
        "InternalError",
        "RequestTimeout",
        "RequestTimeoutException",
        "OperationAborted",
        "ConditionalRequestConflict",
        "BadDigest",  # what arrived was not what was sent: sent again
        "XAmzContentChecksumMismatch",
        "XAmzContentSHA256Mismatch",
        "IncompleteBody",
    }
)

#: Statuses of errors without a body (HEAD has none).
_BY_STATUS = {401: "SignatureDoesNotMatch", 403: "AccessDenied", 301: "PermanentRedirect"}


class Connection(BaseModel):
    """How a store is reached: options that the upload step and the S3 source share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint_url: str | None = Field(
        None, description="Address of a store that is not Amazon's, such as `https://minio.example.org`."
    )
    region: str | None = Field(
        None, description="Region; by default that of the environment or profile, or `us-east-1`."
    )
    path_style: bool | None = Field(
        None,
        description="Whether the bucket stands in the path and not in the host's name; by default wherever "
        "there is an `endpoint_url`.",
    )
    credentials: str | None = Field(
        None,
        description="Name of a credential (LoadCredential=) holding keys as AWS writes them: a "
        "`credentials` file or the JSON of a `credential_process`. By default the standard chain: "
        "environment, `~/.aws`, container, instance.",
    )
    profile: str | None = Field(
        None, description="Profile of the credentials file, or of the standard chain."
    )
    ca_bundle: str | None = Field(None, description="File of certificates to trust instead of the system's.")

    @field_validator("endpoint_url")
    @classmethod
    def _endpoint(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not value.startswith(("https://", "http://")):
            raise ValueError('an address such as "https://minio.example.org" is required')
        if "@" in value.split("/", 3)[2]:
            raise ValueError("a password does not belong here; name a credential with credentials")
        parts = urlsplit(value)  # which refuses half an IPv6 address
        if not parts.hostname or parts.port == 0 or any(char.isspace() for char in value):
            raise ValueError('an address such as "https://minio.example.org" is required')
        return value.rstrip("/")

    def address(self) -> str:
        """Return the store's address for people and for telling targets apart; "" for Amazon's own."""
        return "" if self.endpoint_url is None else self.endpoint_url.split("://", 1)[1]


class Keys(BaseModel):
    """An access key; never shown."""

    access_key: str = Field(repr=False)
    secret_key: str = Field(repr=False)
    token: str | None = Field(None, repr=False)


def parse_keys(text: str, profile: str | None) -> Keys:
    """Read a credential: AWS' shared credentials file, or the JSON of a credential_process.

    Raises: ValueError: it is neither; the message shows nothing of it.
    Source: AWS SDKs and Tools Reference Guide, "Shared config and credentials files" and
    "Process credential provider".
    """
    try:
        if text.lstrip().startswith("{"):
            given = json.loads(text)
            return Keys(
                access_key=given["AccessKeyId"],
                secret_key=given["SecretAccessKey"],
                token=given.get("SessionToken"),
            )
        parser = configparser.RawConfigParser()
        parser.read_string(text)
        section = parser[profile or "default"]
        return Keys(
            access_key=section["aws_access_key_id"],
            secret_key=section["aws_secret_access_key"],
            token=section.get("aws_session_token"),
        )
    except (KeyError, ValueError, TypeError, configparser.Error):
        raise ValueError(
            "the credential holds no keys: it should look like AWS' credentials file, with "
            "aws_access_key_id and aws_secret_access_key below [default]"
        ) from None


@cache
def _session(profile: str | None) -> AioSession:
    # One for each profile and process: what it has read of S3's description costs 100 ms.
    session = AioSession(profile=profile)
    parsers = session.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_moment)
    return session


@contextlib.asynccontextmanager
async def client(
    connection: Connection,
    secret: Callable[[str], str],
    service: Literal["s3", "sqs"] = "s3",
    *,
    queue_endpoint: str | None = None,
) -> AsyncIterator[Any]:
    """Open a client of the store, and close its connections at the end.

    Args:
        secret: gives a credential by its name.
        queue_endpoint: address of the queues, for "sqs"; Amazon's own by default.

    Raises: ItemError: the credential is missing; TargetError: it holds no keys.
    """
    keys = _keys(connection, secret)
    if connection.ca_bundle is not None and not os.path.isfile(connection.ca_bundle):
        raise TargetError("ca_bundle: there is no such file", where=connection.ca_bundle, hint="Correct it")
    session = _session(None if keys else connection.profile)
    if not hasattr(session, "warm"):
        await asyncio.to_thread(_warm, session)
        session.warm = True
    path_style = (
        connection.endpoint_url is not None if connection.path_style is None else connection.path_style
    )
    config = AioConfig(
        user_agent=f"dittohead/{version('dittohead')}",  # by default it is worked out again for each request
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=_CONNECT_S,
        read_timeout=_SILENT_S,
        max_pool_connections=_POOL,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        # Bodies are covered by checksums of ours, which are signed; signing them takes a second pass.
        s3={"addressing_style": "path" if path_style else "auto", "payload_signing_enabled": False},
    )
    given = (
        {}
        if keys is None
        else {
            "aws_access_key_id": keys.access_key,
            "aws_secret_access_key": keys.secret_key,
            "aws_session_token": keys.token,
        }
    )
    try:
        opened = session.create_client(
            service,
            endpoint_url=connection.endpoint_url if service == "s3" else queue_endpoint,
            region_name=connection.region or session.get_config_variable("region") or "us-east-1",
            verify=connection.ca_bundle,
            config=config,
            **given,
        )
        async with opened as made:
            # Not every store answers "100 Continue", and aiohttp would wait for it forever.
            made.meta.events.unregister("before-call.s3", add_expect_header)
            yield made
    except (boto.ProfileNotFound, boto.PartialCredentialsError, boto.CredentialRetrievalError) as error:
        raise fault(error, where=connection.address() or "S3", doing="connecting") from error


def _keys(connection: Connection, secret: Callable[[str], str]) -> Keys | None:
    if connection.credentials is None:
        return None
    try:
        return parse_keys(secret(connection.credentials), connection.profile)
    except ValueError as error:
        raise TargetError(str(error), where=f"credential {connection.credentials}") from None


def _moment(value: Any) -> Any:
    """Read a time; botocore's own parser takes 60 us for each, 60 ms for a page of a listing."""
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):  # a header's form, or seconds
        return parse_timestamp(value)


def _warm(session: AioSession) -> None:
    """Have the session read what it needs to know of S3, away from the loop."""

    async def once() -> None:
        async with session.create_client(
            "s3",
            region_name="us-east-1",
            aws_access_key_id="-",
            aws_secret_access_key="-",  # noqa: S106
        ):
            pass

    asyncio.run(once())
    # What a session knows of S3 are tens of thousands of objects, forever. Left out here, they are not
    # gone through again by each full garbage collection, which held the loop for 50 ms.
    gc.freeze()


def code_of(error: BaseException) -> str:
    """Return the store's code of an error, such as "SlowDown"; "" when it is none of a store's."""
    if not isinstance(error, boto.ClientError):
        return ""
    code = str(error.response.get("Error", {}).get("Code", ""))
    return _BY_STATUS.get(status_of(error), code) if code.isdigit() else code


def says_slow_down(error: BaseException) -> bool:
    """Tell whether a store has too much to do; of HEAD, or from a proxy, the status alone says so."""
    return code_of(error) in _SLOW_DOWN or status_of(error) in (429, 503)


def status_of(error: BaseException) -> int:
    """Return the HTTP status of a store's error; 0 when it is none."""
    if not isinstance(error, boto.ClientError):
        return 0
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def retry_after_s(error: BaseException) -> float | None:
    """Return the seconds that an error's Retry-After asks for; None when it says nothing."""
    if not isinstance(error, boto.ClientError):
        return None
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    return retry_after.asked_s(str(headers.get("retry-after", "")))


#: Faults of the way to the store: it, or the network, is down.
_UNREACHABLE = (
    boto.EndpointConnectionError,
    boto.ConnectTimeoutError,
    boto.ProxyConnectionError,
    aiohttp.ClientConnectorError,
)
#: Faults of one exchange, which another try may be spared.
_BROKEN = (
    boto.HTTPClientError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    aiohttp.ClientError,
    ResponseParserError,  # a proxy's page, an answer truncated
    TimeoutError,
    ConnectionError,
)


def fault(error: BaseException, *, where: str, doing: str) -> StepError:
    """Return what an error of the store means for a job.

    Args:
        where: the object or bucket, such as "s3://iiif/a.tif".
        doing: what was tried, such as "uploading a part".
    """
    if isinstance(error, StepError):
        return error
    if isinstance(error, boto.ClientError):
        return _refusal(error, where, doing)
    if isinstance(error, boto.SSLError):
        return TargetError("its certificate is not trusted", where=where, hint="Set ca_bundle, or fix it")
    if isinstance(error, _UNREACHABLE):
        return TargetError("the store cannot be reached", where=where, hint="It is tried again by itself")
    if isinstance(error, _BROKEN):
        return TransientError(f"the connection broke while {doing} ({type(error).__name__})", where=where)
    if isinstance(
        error, (boto.NoCredentialsError, boto.PartialCredentialsError, boto.CredentialRetrievalError)
    ):
        return TargetError(
            "there are no credentials",
            where=where,
            hint="Name some with credentials:, or give them by AWS' standard chain",
        )
    if isinstance(error, boto.ProfileNotFound):
        return TargetError("there is no such profile", where=where, hint="Correct profile:")
    if isinstance(error, boto.BotoCoreError):
        # What botocore refuses by itself: a key it cannot send, an option it does not know.
        return ItemError(
            f"{doing} is not possible ({type(error).__name__}: {short(str(error))})", where=where
        )
    raise error


def _refusal(error: boto.ClientError, where: str, doing: str) -> StepError:
    code, status = code_of(error), status_of(error)
    said = short(str(error.response.get("Error", {}).get("Message", ""))).rstrip(".")
    what = f"the store answered {code or status} while {doing}" + (f" ({said})" if said else "")
    if code in _STALE:
        _session.cache_clear()  # which keeps credentials: the next try reads them again
    if code in _STANDING:
        return TargetError(what, where=where, hint=_STANDING[code])
    if status == 507:
        return TargetError(what, where=where, hint="Make room at the store", full=True)
    if code in _PASSING or status >= 500 or status == 429:
        return TransientError(what, where=where, retry_after_s=retry_after_s(error))
    return ItemError(what, where=where)
