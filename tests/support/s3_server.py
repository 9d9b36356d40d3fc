"""An S3 server in this process: moto's, made as strict as S3 about checksums, with faults on demand.

moto takes whatever checksum it is sent. S3 does not: it computes x-amz-checksum-* and Content-MD5
of what arrives, refuses what does not fit with 400 BadDigest, keeps the checksum with the object, and
gives it with HEAD and x-amz-checksum-mode. Source: Amazon S3 User Guide, "Checking object integrity".
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, unquote

from botocore.session import get_session
from werkzeug.serving import WSGIRequestHandler, make_server

from dittohead.toolkit.checksums import checksum

_ALGORITHMS = {"crc64nvme": "CRC64NVME", "crc32c": "CRC32C", "crc32": "CRC32", "sha256": "SHA256"}


@dataclass
class Request:
    """One request as the server saw it."""

    method: str
    path: str  #: /bucket/key, decoded
    query: dict[str, str]
    headers: dict[str, str]
    size: int

    @property
    def operation(self) -> str:
        if self.method == "PUT" and "partNumber" in self.query:
            return "part"
        if self.method == "POST" and "uploads" in self.query:
            return "create"
        if self.method == "POST" and "uploadId" in self.query:
            return "complete"
        if self.method == "DELETE" and "uploadId" in self.query:
            return "abort"
        return {"PUT": "put", "HEAD": "head", "GET": "get", "DELETE": "delete"}.get(self.method, self.method)


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of an operation."""

    operation: str
    kind: str  #: a status ("500"), "slow-down", a code with 403 ("ExpiredToken"), "cut", "lost-answer", "flip"...
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    key: str = ""  #: only where the path ends so


class Cut(Exception):
    """Close the connection without an answer."""


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_: Any) -> None:
        pass

    def run_wsgi(self) -> None:
        try:
            super().run_wsgi()
        except Cut:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(2)


class S3Server:
    """The server; `checks=False` leaves checksums to nobody, as moto does."""

    def __init__(self, *, checks: bool = True, conditions: bool = True, etags: bool = True) -> None:
        from moto.server import DomainDispatcherApplication, create_backend_app

        self.checks, self.conditions, self.etags = checks, conditions, etags
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.stalled, self.release = threading.Event(), threading.Event()
        self.on_request: Callable[[Request], None] = lambda request: None
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._kept: dict[str, dict[str, str]] = {}  #: path -> checksum headers
        self._parts: dict[str, dict[int, bytes]] = {}
        self._part_sums: dict[tuple[str, int], list[tuple[str, str]]] = {}
        self.parts_kept: Counter[tuple[str, int]] = Counter()  #: how often each part of an upload was taken
        self._lock = threading.Lock()
        self._server = make_server("127.0.0.1", 0, self, threaded=True, request_handler=_Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> S3Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    def count(self, operation: str) -> int:
        return sum(request.operation == operation for request in self.requests)

    def fail(self, operation: str, kind: str, times: int = 1, key: str = "", **headers: str) -> None:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(operation, kind, times, given, key))

    def client(self) -> Any:
        """Return a client of botocore's, which waits for its answers."""
        return get_session().create_client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def overwrite(self, path: str, body: bytes) -> None:
        """Put an object behind everybody's back; for the moment of another request."""
        from moto.s3.models import s3_backends

        bucket, _, key = path.lstrip("/").partition("/")
        backend = s3_backends["123456789012"]["aws"]
        backend.put_object(bucket, key, body)
        self._kept.pop(path, None)

    # -- WSGI --------------------------------------------------------------------------------

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        query = {
            name: values[0]
            for name, values in parse_qs(environ["QUERY_STRING"], keep_blank_values=True).items()
        }
        path = unquote(environ.get("RAW_URI", environ["PATH_INFO"]).split("?")[0])
        headers = {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
        request = Request(environ["REQUEST_METHOD"], path, query, headers, len(body))
        with self._lock:
            self.requests.append(request)
            fault = self._fault(request)
        self.on_request(request)
        if fault is not None:
            body, answer = self._go_wrong(fault, body, environ, start)
            if answer is not None:
                return answer
        answered = self._answer(environ, request, body, start)
        if fault is not None and fault.kind == "lost-answer":
            raise Cut
        if fault is not None and fault.kind == "flip-answer":
            data = b"".join(answered)
            return [bytes([data[0] ^ 1]) + data[1:]]
        if fault is not None and fault.kind in ("half", "half-stall"):
            return self._half(b"".join(answered), stall=fault.kind == "half-stall")
        return answered

    def _fault(self, request: Request) -> Fault | None:
        for fault in self.faults:
            if fault.times > 0 and fault.operation == request.operation and request.path.endswith(fault.key):
                fault.times -= 1
                return fault
        return None

    def _go_wrong(
        self, fault: Fault, body: bytes, environ: dict[str, Any], start: Any
    ) -> tuple[bytes, Iterable[bytes] | None]:
        if fault.kind == "cut":
            raise Cut
        if fault.kind == "stall":
            self.stalled.set()
            self.release.wait(60)
            raise Cut
        if fault.kind == "flip":
            return bytes([body[0] ^ 1]) + body[1:], None
        if fault.kind in ("lost-answer", "flip-kept", "flip-answer", "half", "half-stall"):
            return body, None
        if fault.kind == "slow-down":
            return body, _error(environ, start, 503, "SlowDown", fault.headers)
        if fault.kind.isdigit():
            return body, _error(environ, start, int(fault.kind), "InternalError", fault.headers)
        return body, _error(environ, start, 403, fault.kind, fault.headers)

    def _answer(self, environ: dict[str, Any], request: Request, body: bytes, start: Any) -> Iterable[bytes]:
        refused = self._refused(request, body)
        if refused:
            return _error(environ, start, *refused, {})
        environ["wsgi.input"] = BytesIO(body)
        said: dict[str, Any] = {}

        def keep(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            said.update(status=status, headers=headers)
            return lambda data: None

        for name in [name for name in environ if name.startswith("HTTP_X_AMZ_CHECKSUM")]:
            del environ[name]  # ours to keep
            environ["HTTP_CONTENT_MD5"] = "given"  # which is what moto asks for before it locks
        if not self.conditions:
            environ.pop("HTTP_IF_NONE_MATCH", None)
        answer = list(self._moto(environ, keep))
        headers = [(k, v) for k, v in said["headers"] if not k.lower().startswith("x-amz-checksum")]
        if said["status"].startswith("2"):
            headers += self._kept_now(request, body)
        if request.method == "GET" and "uploadId" in request.query:
            answer = [self._listed(request, b"".join(answer))]
            headers = [(k, v) for k, v in headers if k.lower() != "content-length"]
        if not self.etags:
            headers = [(k, '"opaque-1"' if k.lower() == "etag" else v) for k, v in headers]
        start(said["status"], headers)
        return answer

    def _half(self, data: bytes, *, stall: bool) -> Iterator[bytes]:
        """Send half of an answer, then nothing more or the end of the connection."""
        yield data[: len(data) // 2]
        if stall:
            self.stalled.set()
            self.release.wait(60)
        raise Cut

    # -- checksums ---------------------------------------------------------------------------

    def _refused(self, request: Request, body: bytes) -> tuple[int, str] | None:
        guarded = request.operation == "complete" and "if-none-match" in request.headers
        if guarded and self.conditions and request.path in self._kept:
            return 412, "PreconditionFailed"
        if not self.checks:
            return None
        if request.operation == "complete":
            body = b"".join(data for _, data in sorted(self._parts[request.query["uploadId"]].items()))
        md5 = request.headers.get("content-md5")
        if md5 is not None and base64.b64encode(hashlib.md5(body).digest()).decode() != md5:
            return 400, "BadDigest"
        for name, value in self._given(request):
            if checksum(name, body) != value:
                return 400, "BadDigest"
        return None

    def _given(self, request: Request) -> Iterator[tuple[str, str]]:
        for name, value in request.headers.items():
            algorithm = _ALGORITHMS.get(name.removeprefix("x-amz-checksum-"))
            if name.startswith("x-amz-checksum-") and algorithm is not None:
                yield algorithm, value

    def _listed(self, request: Request, text: bytes) -> bytes:
        """Return ListParts' answer with the parts' checksums, which S3 gives and moto does not."""

        def checksums(match: re.Match[bytes]) -> bytes:
            given = self._part_sums.get((request.query["uploadId"], int(match[1])), [])
            return match[0] + b"".join(f"<Checksum{k}>{v}</Checksum{k}>".encode() for k, v in given)

        return re.sub(rb"<PartNumber>(\d+)</PartNumber>", checksums, text)

    def _kept_now(self, request: Request, body: bytes) -> list[tuple[str, str]]:
        """Keep what was sent, and return the headers that tell of it."""
        given = {f"x-amz-checksum-{name.lower()}": value for name, value in self._given(request)}
        if not self.checks:
            given = {}
        if request.operation == "part":
            upload, number = request.query["uploadId"], int(request.query["partNumber"])
            self._parts.setdefault(upload, {})[number] = body
            self.parts_kept[upload, number] += 1
            if self.checks:
                self._part_sums[upload, number] = list(self._given(request))
            return list(given.items())
        if request.operation in ("put", "complete"):
            self._kept[request.path] = {**given, "x-amz-checksum-type": "FULL_OBJECT"} if given else {}
            return list(given.items())
        if request.operation == "delete":
            self._kept.pop(request.path, None)
        if request.operation in ("head", "get") and request.headers.get("x-amz-checksum-mode") == "ENABLED":
            return list(self._kept.get(request.path, {}).items())
        return []


_STATUS = {400: "400 Bad Request", 403: "403 Forbidden", 412: "412 Precondition Failed", 500: "500 Error"}


def _error(
    environ: dict[str, Any], start: Any, status: int, code: str, headers: dict[str, str]
) -> Iterable[bytes]:
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>as wished</Message></Error>".encode()
    start(
        _STATUS.get(status, f"{status} Error"),
        [("Content-Type", "application/xml"), ("Content-Length", str(len(text))), *headers.items()],
    )
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [text]
