"""The command line: dittohead-send FOLDER... user@host:[inbox]."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from dittohead_send import __version__, errors, follow, local, target
from dittohead_send.errors import INTERRUPTED, OK, SendError
from dittohead_send.progress import Progress, stream
from dittohead_send.sending import Link, send_folder
from dittohead_send.ssh import Login
from dittohead_send.upload import Plan, Upload
from dittohead_send.words import counted, duration, shown, size, some, visible

_EPILOG = """\
Nothing is taken from the inbox before it is complete: a folder is sent as .NAME, and gets its name when every
file is confirmed. If it breaks, type the same command again: it continues.

exit codes: 0 all sent (with --follow: and processed), 64 wrong usage, 65 the folder cannot be sent as it is,
or its job failed, 66 no such folder, 69 no server or no inbox, 73 the name is taken, 74 a file cannot be
read, 75 broken off or disk full: type it again, 76 the server is not known or not the known one, 77 login or
access refused, 130 interrupted. Of several folders, the code of the first that failed.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.print_usage(sys.stderr)
        self.exit(errors.USAGE, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = _Parser(
        prog="dittohead-send",
        description="Send folders to a dittohead inbox over SFTP: complete, verified, resumed after a break.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("folders", nargs="+", metavar="FOLDER", help="a folder on this computer")
    made.add_argument("target", metavar="USER@HOST:[INBOX]", help="the account, and the path of the inbox")
    made.add_argument("--name", help="another name in the inbox; for a single FOLDER")
    made.add_argument("--port", type=_port, help="of the server; default 22, or what ~/.ssh/config says")
    made.add_argument("--identity", metavar="FILE", help="the private key to log in with")
    made.add_argument("--known-hosts", metavar="FILE", help="instead of ~/.ssh/known_hosts")
    made.add_argument("--ssh-config", metavar="FILE", help="instead of ~/.ssh/config; none: no such file")
    made.add_argument("--jobs", type=_jobs, default=4, metavar="N", help="files at once, 1 to 10; default 4")
    made.add_argument("--verify", action="store_true", help="read everything back, and compare")
    made.add_argument(
        "--follow-links", action="store_true", help="send what links stand for; otherwise they are refused"
    )
    made.add_argument(
        "--restart", action="store_true", help="remove what an earlier run has sent; send all again"
    )
    made.add_argument(
        "--retry-for",
        type=_seconds,
        default=600.0,
        metavar="SECONDS",
        help="how long to try again after a break; default 600",
    )
    made.add_argument("--follow", metavar="URL", help="wait for the result: the address of the daemon's page")
    made.add_argument("--token-file", metavar="FILE", help="for --follow: a file with the token of the API")
    made.add_argument("--dry-run", action="store_true", help="list what would be sent; connect to nothing")
    made.add_argument("--quiet", "-q", action="store_true", help="show no progress")
    made.add_argument("--json", action="store_true", help="print one line of JSON for each folder")
    made.add_argument("--version", action="version", version=f"dittohead-send {__version__}")
    return made


def _jobs(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 10:
        return int(text)
    raise argparse.ArgumentTypeError("a number from 1 to 10 is required")


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError("a number from 1 to 65535 is required")


def _seconds(text: str) -> float:
    if text.isascii() and text.isdigit():
        return float(text)
    raise argparse.ArgumentTypeError("a number of seconds is required")


@dataclass(kw_only=True)
class _Result:
    """One folder's, for --json."""

    folder: str
    name: str = ""
    state: str = "failed"  #: would be sent, sent, already there, done, failed
    files: int = 0
    bytes: int = 0
    bytes_sent: int = 0
    seconds: float = 0.0
    left_out: list[str] = field(default_factory=list)
    error: dict[str, Any] | None = None
    job: str = ""

    @property
    def status(self) -> int:
        return OK if self.error is None else int(self.error["exit_code"])

    def fail(self, error: SendError) -> None:
        self.state = "failed"
        self.error = {"what": error.what, "where": error.where, "hint": error.hint, "exit_code": error.status}


class _Run:
    """One call of the command."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given = given
        self.target = target.parse(given.target)
        if given.name is not None and len(given.folders) > 1:
            raise SendError("--name is for a single FOLDER", status=errors.USAGE)
        if given.token_file is not None and given.follow is None:
            raise SendError("--token-file is for --follow URL", status=errors.USAGE)
        self.api = None if given.follow is None else follow.api(given.follow, given.token_file)
        self.progress = Progress(stream(quiet=given.quiet))
        login = Login(
            target=self.target,
            port=given.port,
            identity=given.identity,
            known_hosts=given.known_hosts,
            config=given.ssh_config,
            pause=self.progress.clear,
        )
        self.link = Link(login=login, progress=self.progress, jobs=given.jobs, patience_s=given.retry_for)

    async def all(self) -> int:
        """Send each folder; a failing one does not stop the others. Return the exit code."""
        status = OK
        names: set[str] = set()
        try:
            for folder in self.given.folders:
                result = _Result(folder=visible(folder))
                try:
                    await self._one(folder, result, names)
                except SendError as error:
                    result.fail(error)
                    self.progress.clear()
                    print(f"{visible(folder)}: {error}", file=sys.stderr)
                if self.given.json:
                    print(json.dumps(vars(result)), flush=True)
                status = status or result.status
        finally:
            await self.link.close()
        return status

    async def _one(self, folder: str, result: _Result, names: set[str]) -> None:
        result.name = local.name_of(folder, self.given.name)
        if result.name in names:
            raise SendError(f'this command sends a folder "{result.name}" already', status=errors.USAGE)
        names.add(result.name)
        listing = await asyncio.to_thread(local.scan, folder, follow=self.given.follow_links)
        result.files, result.bytes, result.left_out = len(listing.files), listing.size, listing.left_out
        self._say_what(listing)
        if self.given.dry_run:
            result.state = "would be sent"
            self._list(listing, result)
            return
        await self._send(listing, result)

    def _say_what(self, listing: local.Listing) -> None:
        tell = self.progress.tell
        if listing.left_out:
            tell(f"left out: {some(listing.left_out)}")
        if listing.unfinished:
            tell(f"the daemon may wait for these, as for unfinished uploads: {some(listing.unfinished)}")
        if listing.decomposed:
            tell(
                f"{counted(listing.decomposed, 'name')} with letter and accent apart (NFD, as macOS has it), "
                "sent unchanged"
            )

    def _list(self, listing: local.Listing, result: _Result) -> None:
        if self.given.json:
            return
        for path, file in sorted(listing.files.items()):
            print(f"{file.state.size:>15,}  {visible(result.name)}/{shown(path)}")
        kept = {path.rpartition(b"/")[0] for path in (*listing.files, *listing.folders) if path}
        for path in sorted(listing.folders.keys() - kept - {b""}):
            print(f"{'empty':>15}  {visible(result.name)}/{shown(path)}/")
        print(
            f"{visible(result.name)}: {counted(result.files, 'file')}, {result.bytes:,} bytes would be sent"
        )

    async def _send(self, listing: local.Listing, result: _Result) -> None:
        follower = None
        if self.api is not None:
            follower = follow.Follower(self.api, result.name, self.progress.tell)
            await asyncio.to_thread(follower.begin)
        plan = Plan(
            name=result.name,
            inbox=self.target.path.encode("utf-8", "surrogateescape"),
            follow=self.given.follow_links,
            verify=self.given.verify,
            restart=self.given.restart,
        )
        self.progress.begin(result.name, result.files, result.bytes)
        upload = Upload(listing, plan, self.progress)
        started = time.monotonic()
        try:
            outcome = await send_folder(self.link, upload)
        finally:
            result.bytes_sent, result.seconds = self.progress.sent, round(time.monotonic() - started, 3)
            self.progress.clear()
        result.state = "already there" if outcome.already else "sent"
        self._say_sent(result, upload)
        if follower is not None:
            await self._follow(follower, result)

    def _say_sent(self, result: _Result, upload: Upload) -> None:
        if upload.not_kept:
            self.progress.tell(f"not kept: {upload.not_kept}")
        if self.given.json:
            return
        name = visible(result.name)
        if result.state == "already there":
            print(f"{name}: was sent already, and waits in the inbox")
            return
        sent, there = result.bytes_sent, result.bytes - result.bytes_sent
        rate = f", {size(sent / result.seconds)}/s" if result.seconds and sent else ""
        again = f", {size(there)} were there already" if there > 0 else ""
        print(
            f"{name}: {counted(result.files, 'file')}, {result.bytes:,} bytes sent and confirmed in "
            f"{duration(result.seconds)}{rate}{again}",
            flush=True,
        )
        if self.api is None and not self.given.quiet:
            self.progress.tell(
                f"What becomes of it: the page of the daemon, or on the server: dittohead show {result.name}"
            )

    async def _follow(self, follower: follow.Follower, result: _Result) -> None:
        job = await asyncio.to_thread(follower.end)
        result.job = job["id"]
        if job["state"] == "failed":
            raise follow.failure(job)
        result.state = "done"
        if not self.given.json:
            print(f"{visible(result.name)}: done", flush=True)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command, and leave with its exit code."""
    given = parser().parse_args(arguments)
    logging.getLogger("asyncssh").setLevel(logging.CRITICAL)  # what matters is said in words
    try:
        sys.exit(asyncio.run(_Run(given).all()))
    except SendError as error:
        print(f"dittohead-send: {error}", file=sys.stderr)
        sys.exit(error.status)
    except KeyboardInterrupt:
        print("interrupted. Type the same command again; it continues where it stopped", file=sys.stderr)
        sys.exit(INTERRUPTED)
