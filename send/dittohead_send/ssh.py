"""The connection: whose server it is, and who logs in. What is typed is never written anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncssh

from dittohead_send.errors import (
    HOST_KEY,
    NO_INPUT,
    NO_PERMISSION,
    UNAVAILABLE,
    USAGE,
    ConnectionGone,
    SendError,
)
from dittohead_send.target import Target
from dittohead_send.words import plain, visible

#: How often a password is asked for in one login.
_TRIES = 3
#: After so many seconds without an answer, three times, the connection counts as broken.
_KEEPALIVE_S = 15
#: For the TCP connection and the exchange of keys; a person who types a password has longer. Seconds.
_CONNECT_S = 30
#: First what the processor does by itself, then all that asyncssh has. Ciphers in ~/.ssh/config win.
_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"


class Terminal:
    """The person at the terminal; where there is none, nothing is asked."""

    def __init__(self) -> None:
        self.is_there = sys.stdin is not None and sys.stdin.isatty()

    def line(self, prompt: str) -> str:
        """Return a line; what is typed is seen. Blocking."""
        print(prompt, end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip()

    def secret(self, prompt: str) -> str:
        """Return a line that is not shown. Blocking."""
        return getpass.getpass(prompt)

    def tell(self, text: str) -> None:
        """Show a line."""
        print(text, file=sys.stderr, flush=True)


@dataclass(kw_only=True)
class Login:
    """How to log in, and what a person has typed: it is used again if the connection breaks."""

    target: Target
    port: int | None = None
    identity: str | None = None
    known_hosts: str | None = None
    config: str | None = None  #: instead of ~/.ssh/config
    terminal: Terminal = field(default_factory=lambda: Terminal())
    #: Before a question: what shows progress makes way.
    pause: Callable[[], None] = lambda: None
    typed: dict[str, str] = field(default_factory=dict, repr=False)
    accepted: set[str] = field(default_factory=set)  #: fingerprints

    def ask(self, key: str, prompt: str, *, echo: bool = False, fresh: bool = False) -> str | None:
        """Return what a person types, or typed before. Blocking.

        Args:
            key: under which it is kept for the next connection.
            fresh: what was typed before was wrong.
        """
        if not fresh and key in self.typed:
            return self.typed[key]
        if not self.terminal.is_there:
            return None
        self.pause()
        shown = visible(prompt)
        self.typed[key] = self.terminal.line(shown) if echo else self.terminal.secret(shown)
        return self.typed[key]


async def connect(login: Login) -> asyncssh.SSHClientConnection:
    """Connect and log in.

    Raises: SendError: the server is not the known one, refuses the login or does not exist; ConnectionGone:
        it cannot be reached now.
    """
    where = str(login.target)
    options = _options(login)
    asker = _Asker(login, options)
    try:
        return await _dial(login, options, asker)
    except asyncssh.HostKeyNotVerifiable as error:
        raise asker.fault or SendError(
            f"the server's key is not valid ({error.reason})",
            where=where,
            hint="Ask the administrator",
            status=HOST_KEY,
        ) from error
    except asyncssh.PermissionDenied as error:
        raise _refused(login, options, error) from error
    except asyncssh.KeyExchangeFailed as error:
        raise SendError(
            f"no agreement on how to encrypt ({error.reason})",
            where=where,
            hint="Ask the administrator",
            status=UNAVAILABLE,
        ) from error
    except socket.gaierror as error:
        raise SendError(
            f"there is no such host ({plain(error)})",
            where=where,
            hint="Check its name, and the network",
            status=UNAVAILABLE,
        ) from error
    except (asyncssh.Error, OSError, TimeoutError) as error:
        raise ConnectionGone(plain(error) if isinstance(error, OSError) else str(error)) from error


async def _dial(
    login: Login, options: asyncssh.SSHClientConnectionOptions, asker: _Asker
) -> asyncssh.SSHClientConnection:
    async def once(**more: Any) -> asyncssh.SSHClientConnection:
        return await asyncssh.connect(
            login.target.host,
            options=options,
            client_factory=lambda: asker,
            known_hosts=asker.known.match,
            **more,
        )

    try:
        return await once()
    except (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost, ConnectionError):
        if asker.has_begun or not asker.known.has_keys:
            raise
    # The server may have no key of the known kinds: asked for any, it shows which one it has.
    return await once(server_host_key_algs="default")


def _options(login: Login) -> asyncssh.SSHClientConnectionOptions:
    given: dict[str, Any] = {
        "host": login.target.host,
        "keepalive_interval": _KEEPALIVE_S,
        "connect_timeout": _CONNECT_S,
        "login_timeout": 0,
        "client_version": "dittohead-send",
        "config": (),  # ~/.ssh/config, where it can be read
    }
    if login.target.user:
        given["username"] = login.target.user
    if login.port:
        given["port"] = login.port
    if login.config is not None:
        given["config"] = [login.config] if login.config != "none" else []
    if login.identity is not None:
        try:
            keys = _key(login, str(Path(login.identity).expanduser()))
        except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, OSError) as error:
            raise _unusable(error, login.identity) from error
        given |= {"client_keys": keys} if keys else {}
    try:
        made = asyncssh.SSHClientConnectionOptions(**given)
        if not made.config.get("Ciphers"):
            made = asyncssh.SSHClientConnectionOptions(made, encryption_algs=_CIPHERS)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, OSError) as error:
        raise _unusable(error, "~/.ssh") from error
    except ValueError as error:  # this user has no name, or the configuration of ssh an unknown value
        raise SendError(str(error), where="~/.ssh/config", hint="Check this file", status=USAGE) from error
    return made


def _key(login: Login, path: str) -> list[Any]:
    """Return what asyncssh is given for a key; nothing if nobody types its passphrase: an agent may have it.

    Raises: asyncssh.KeyImportError, asyncssh.KeyEncryptionError, OSError.
    """
    try:
        asyncssh.read_private_key(path)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        if "passphrase" not in str(error).lower():
            raise
        typed = login.ask(f"key {path}", f"Passphrase of the key {path}: ")
        return [asyncssh.read_private_key(path, typed)] if typed else []
    return [path]


def _unusable(error: Exception, where: str) -> SendError:
    why = plain(error) if isinstance(error, OSError) else str(error)
    hint = "Check the path, the passphrase, and that it is the private key"
    return SendError(f"this key cannot be used ({why})", where=visible(where), hint=hint, status=NO_INPUT)


def _refused(
    login: Login, options: asyncssh.SSHClientConnectionOptions, error: asyncssh.PermissionDenied
) -> SendError:
    user = options.username
    hint = (
        f"Check the name {visible(user)} and the password"
        if login.terminal.is_there
        else "Without a terminal no password is asked for: use a key (--identity FILE) or an agent"
    )
    return SendError(
        f"the server refused the login of {visible(user)} ({error.reason})",
        where=str(login.target),
        hint=f"{hint}. A key with a passphrase is used if `ssh-add` has it, or --identity names it",
        status=NO_PERMISSION,
    )


class _Known:
    """The known hosts of some files; lines that cannot be read are left out, as ssh does."""

    def __init__(self, files: Sequence[str]) -> None:
        self._hosts = asyncssh.SSHKnownHosts()
        self.has_keys = False
        for file in files:
            try:
                text = Path(file).expanduser().read_text("utf-8", "replace")
            except OSError:
                continue
            for line in text.splitlines():
                with contextlib.suppress(ValueError):
                    self._hosts.load(line)

    def match(self, host: str, addr: str, port: int | None) -> Any:
        """Return the keys of a host, as asyncssh asks."""
        found = self._hosts.match(host, addr, port)
        self.has_keys = bool(found[0] or found[1])
        return found


class _Asker(asyncssh.SSHClient):
    """Answers the server's questions."""

    def __init__(self, login: Login, options: asyncssh.SSHClientConnectionOptions) -> None:
        self._login = login
        self._options = options
        self._passwords = self._challenges = 0
        self.fault: SendError | None = None
        self.has_begun = False  #: the server is the known one, and the login has begun
        given: Any = login.known_hosts or options.known_hosts
        # None comes of `UserKnownHostsFile none`: nobody is known then, and not everybody.
        files = [given] if isinstance(given, str) else [str(one) for one in given or ()]
        self._files = files or ["~/.ssh/known_hosts"]
        self.known = _Known(self._files)

    def begin_auth(self, username: str) -> None:
        self.has_begun = True

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        fingerprint = key.get_fingerprint()
        if fingerprint in self._login.accepted:
            return True
        if self.known.has_keys:
            self.fault = self.changed(f"it has {fingerprint}")
            return False
        return self._accepts(host, port, key, fingerprint)

    def changed(self, how: str) -> SendError:
        """Return the error of a server that is not the known one."""
        return SendError(
            f"the server is not the one that is known here: {how}. Nothing was sent",
            where=str(self._login.target),
            hint="Somebody may be in between, or the server was set up again. Ask the administrator for its "
            f"fingerprint; if it is right, remove the old key: ssh-keygen -R {self._entry_name()}",
            status=HOST_KEY,
        )

    def _entry_name(self) -> str:
        host = self._options.host_key_alias or self._options.host
        port = self._options.port
        return host if port == 22 else f"[{host}]:{port}"

    def _accepts(self, host: str, port: int, key: asyncssh.SSHKey, fingerprint: str) -> bool:
        login = self._login
        if not login.terminal.is_there:
            self.fault = SendError(
                f"the server is not known here; its key has the fingerprint {fingerprint}",
                where=str(login.target),
                hint="Send once from a terminal, or put its key into the file of --known-hosts",
                status=HOST_KEY,
            )
            return False
        login.pause()
        login.terminal.tell(f"The server {visible(host)} is not known here. The fingerprint of its key is")
        login.terminal.tell(f"  {fingerprint}")
        if login.terminal.line("Is this what the administrator says? (yes/no) ").lower() not in ("y", "yes"):
            self.fault = SendError(
                "the server's key was not accepted",
                where=str(login.target),
                hint="Nothing was sent",
                status=HOST_KEY,
            )
            return False
        login.accepted.add(fingerprint)
        self._remember(key)
        return True

    def _remember(self, key: asyncssh.SSHKey) -> None:
        """Add the key to the first file of known hosts. Source: sshd(8), SSH_KNOWN_HOSTS FILE FORMAT."""
        file = Path(self._files[0]).expanduser()
        text = key.export_public_key("openssh").decode().split()
        try:
            file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            whole = not file.exists() or file.read_bytes()[-1:] in (b"", b"\n")
            with open(file, "a", encoding="utf-8") as out:
                out.write(f"{'' if whole else os.linesep}{self._entry_name()} {text[0]} {text[1]}\n")
        except OSError as error:
            self._login.terminal.tell(f"The key could not be kept in {file} ({plain(error)})")

    async def password_auth_requested(self) -> str | None:
        self._passwords += 1
        if self._passwords > _TRIES:
            return None
        prompt = f"Password of {self._options.username}@{self._options.host}: "
        return await self._typed("password", prompt, fresh=self._passwords > 1)

    async def _typed(self, key: str, prompt: str, *, echo: bool = False, fresh: bool = False) -> str | None:
        return await asyncio.to_thread(self._login.ask, key, prompt, echo=echo, fresh=fresh)

    def kbdint_auth_requested(self) -> str | None:
        self._challenges += 1
        return "" if self._login.terminal.is_there and self._challenges <= _TRIES else None

    async def kbdint_challenge_received(
        self, name: str, instructions: str, lang: str, prompts: Sequence[tuple[str, bool]]
    ) -> list[str] | None:
        for text in (name, instructions):
            if text.strip():
                self._login.pause()
                self._login.terminal.tell(visible(text))
        answers = []
        for prompt, echo in prompts:
            # A password is used again after the connection broke; a code of one use would be wrong.
            fresh = self._challenges > 1 or "password" not in prompt.lower()
            answer = await self._typed(f"prompt {prompt}", prompt, echo=echo, fresh=fresh)
            if answer is None:
                return None
            answers.append(answer)
        return answers
