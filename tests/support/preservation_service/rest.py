"""The ways in over REST: 2.0, which is asked for reports, and 3.0, which takes packages by tus 1.0.0."""

from __future__ import annotations

import base64
import hmac
import uuid
from typing import Any

from aiohttp import web

from tests.support.preservation_service.state import PreservationService, Transfer

HOW = web.RequestKey("how", str)
TUS = {"Tus-Resumable": "1.0.0"}


def _ok(data: dict[str, Any], status: int = 200) -> web.Response:
    return web.json_response({"status": "success", "data": data}, status=status)


def _none(what: str) -> web.Response:
    return web.json_response({"status": "fail", "message": f"{what} not found"}, status=404)


class Api:
    def __init__(self, service: PreservationService) -> None:
        self.service = service
        self.app = web.Application(middlewares=[self._guard], client_max_size=1 << 30)
        two, three = "/api/2.0/{contract}", "/api/3.0"
        add = self.app.router
        add.add_get(f"{two}/search", self.search)
        add.add_get(f"{two}/ingest/report/{{objid}}", self.reports)
        add.add_get(f"{two}/ingest/report/{{objid}}/{{id}}", self.report2)
        add.add_get(f"{two}/statistics/overview", self.statistics)
        add.add_options(f"{three}/transfers", self.tus_options)
        add.add_post(f"{three}/transfers", self.tus_create)
        add.add_route("HEAD", f"{three}/transfers/{{id}}", self.tus_head)
        add.add_patch(f"{three}/transfers/{{id}}", self.tus_patch)
        add.add_delete(f"{three}/transfers/{{id}}", self.tus_delete)
        add.add_get(f"{three}/{{contract}}/transfers", self.transfers, allow_head=False)
        add.add_get(f"{three}/{{contract}}/transfers/{{id}}", self.transfer, allow_head=False)
        add.add_delete(f"{three}/{{contract}}/transfers/{{id}}", self.tus_delete)
        add.add_get(f"{three}/{{contract}}/transfers/{{id}}/report", self.report3)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        wanted = base64.b64encode(f"{self.service.user}:{self.service.password}".encode()).decode()
        if not hmac.compare_digest(request.headers.get("Authorization", ""), f"Basic {wanted}"):
            return web.Response(status=401, headers={"WWW-Authenticate": "Basic"})
        if request.match_info.get("contract", self.service.contract) != self.service.contract:
            return web.json_response({"status": "fail", "message": "no such contract"}, status=403)
        how = self.service.called(f"{request.method} {request.path}")
        if how == "lost before":
            assert request.transport is not None
            request.transport.abort()
            return web.Response(status=500)
        if how[:3].isdigit():
            status, _, after = how.partition(":")
            headers = {"Retry-After": after} if after else {}
            return web.json_response(
                {"status": "error", "message": "try later"}, status=int(status), headers=headers
            )
        request[HOW] = how
        answer: web.StreamResponse = await handler(request)
        if how == "lost after":
            assert request.transport is not None
            request.transport.abort()
        return answer

    # -- 2.0 ---------------------------------------------------------------------------------

    async def search(self, request: web.Request) -> web.Response:
        field, _, value = request.query.get("q", "").partition(":")
        found = [
            {
                "id": kept["aip"],
                "pkg_type": "AIP",
                "createdate": kept["created"],
                "lastmoddate": kept["modified"],
            }
            for objid, kept in self.service.kept.items()
            if field == "OBJID" and objid == value.strip('"')
        ]
        return _ok({"results": found, "links": {}})

    async def reports(self, request: web.Request) -> web.Response:
        objid = request.match_info["objid"]
        found = [
            one for one in self.service.transfers.values() if one.answered and one.told.get("objid") == objid
        ]
        if not found:
            return _none("report")
        base = request.path
        return _ok(
            {
                "results": [
                    {
                        "id": one.id, "date": one.answered.strftime("%Y-%m-%dT%H:%M:%SZ") if one.answered else "", "status": one.status,
                        "download": {"html": f"{base}/{one.id}?type=html", "xml": f"{base}/{one.id}?type=xml"},
                    }
                    for one in found
                ]
            }
        )  # fmt: skip

    async def report2(self, request: web.Request) -> web.Response:
        one = self.service.transfers.get(request.match_info["id"])
        if one is None or not one.answered or one.told.get("objid") != request.match_info["objid"]:
            return _none("report")
        return self._report(one, request)

    async def statistics(self, request: web.Request) -> web.Response:
        return _ok({"capacity": {"aips": str(len(self.service.kept))}})

    # -- 3.0 ---------------------------------------------------------------------------------

    def _told(self, one: Transfer) -> dict[str, Any]:
        return {
            "transfer_id": one.id, "filename": one.name, "status": one.status,
            "timestamp": one.at.strftime("%a, %d %b %Y %H:%M:%S GMT"), "sip": {"objid": one.told.get("objid")},
            "actions": {},
        }  # fmt: skip

    async def transfers(self, request: web.Request) -> web.Response:
        status, page, limit = (
            request.query.get("status"),
            int(request.query.get("page", 1)),
            int(request.query.get("limit", 20)),
        )
        if not 1 <= limit <= 100:
            return web.json_response({"status": "fail", "message": "limit"}, status=400)
        found = [
            one
            for one in self.service.transfers.values()
            if one.over == "rest" and status in (None, one.status)
        ]
        begin = (page - 1) * limit
        links = {
            "previous": f"{request.path}?page={page - 1}&limit={limit}" if page > 1 else None,
            "next": f"{request.path}?page={page + 1}&limit={limit}" if begin + limit < len(found) else None,
        }
        return _ok({"results": [self._told(one) for one in found[begin : begin + limit]], "links": links})

    def _one(self, request: web.Request) -> Transfer | None:
        one = self.service.transfers.get(request.match_info["id"])
        return one if one is not None and one.over == "rest" else None

    async def transfer(self, request: web.Request) -> web.Response:
        one = self._one(request)
        return _none("transfer") if one is None else _ok(self._told(one))

    async def report3(self, request: web.Request) -> web.Response:
        one = self._one(request)
        return _none("report") if one is None or not one.answered else self._report(one, request)

    def _report(self, one: Transfer, request: web.Request) -> web.Response:
        if request.query.get("type") == "html":
            return web.Response(body=one.html, content_type="text/html")
        return web.Response(body=one.xml, content_type="application/xml")

    async def tus_options(self, request: web.Request) -> web.Response:
        headers = {**TUS, "Tus-Version": "1.0.0", "Tus-Extension": "creation,termination"}
        return web.Response(status=204, headers=headers)

    def _wrong_version(self, request: web.Request) -> web.Response | None:
        if request.headers.get("Tus-Resumable") == "1.0.0":
            return None
        return web.Response(status=412, headers={"Tus-Version": "1.0.0"})

    async def tus_create(self, request: web.Request) -> web.Response:
        if (wrong := self._wrong_version(request)) is not None:
            return wrong
        pairs = dict(one.strip().split(" ") for one in request.headers["Upload-Metadata"].split(","))
        told = {key: base64.b64decode(value).decode() for key, value in pairs.items()}
        name = told["filename"]
        if (
            told["contract_id"] != self.service.contract
            or not name.endswith((".zip", ".tar", ".tar.gz", ".tar.bz2"))
            or "/" in name
        ):
            return web.json_response({"status": "fail", "message": "bad metadata"}, status=400)
        number = str(uuid.uuid4())
        one = Transfer(
            number, name, self.service.uploads / number, self.service.now, "rest", status="uploading"
        )
        one.length = int(request.headers["Upload-Length"])
        one.path.touch()
        with self.service.lock:
            self.service.transfers[number] = one
        return web.Response(status=201, headers={**TUS, "Location": f"/api/3.0/transfers/{number}"})

    async def tus_head(self, request: web.Request) -> web.Response:
        one = self._one(request)
        if one is None:
            return web.Response(status=404, headers=TUS)
        size = one.length if one.status != "uploading" else one.path.stat().st_size
        headers = {
            **TUS,
            "Upload-Offset": str(size),
            "Upload-Length": str(one.length),
            "Cache-Control": "no-store",
        }
        return web.Response(status=200, headers=headers)

    async def tus_patch(self, request: web.Request) -> web.Response:
        if (wrong := self._wrong_version(request)) is not None:
            return wrong
        one = self._one(request)
        if one is None:
            return web.Response(status=404, headers=TUS)
        if request.content_type != "application/offset+octet-stream":
            return web.Response(status=415, headers=TUS)
        at = one.path.stat().st_size if one.status == "uploading" else one.length
        if request.headers.get("Upload-Offset") != str(at):
            return web.Response(status=409, headers=TUS)
        how, left = request[HOW], None
        if how.startswith("bytes:"):
            left = int(how[6:])
        with open(one.path, "ab") as file:
            async for piece in request.content.iter_chunked(1 << 16):
                piece = piece if left is None else piece[:left]
                file.write(piece)
                at += len(piece)
                if left is not None and (left := left - len(piece)) <= 0:
                    file.flush()
                    assert request.transport is not None
                    request.transport.abort()
                    return web.Response(status=500)
        if at > one.length:
            return web.Response(status=413, headers=TUS)
        if at == one.length:
            self.service.upload_done(one)
        return web.Response(status=204, headers={**TUS, "Upload-Offset": str(at)})

    async def tus_delete(self, request: web.Request) -> web.Response:
        one = self._one(request)
        if one is None:
            return _none("transfer")
        if one.status == "accepted":
            return web.json_response({"status": "fail", "message": "it is accepted"}, status=409)
        with self.service.lock:
            self.service.transfers.pop(one.id, None)
        return web.Response(status=204, headers=TUS)
