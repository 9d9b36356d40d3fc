"""Tokens of people and programs: the credential file that holds them, read again when it changes."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass

from dittohead.model.errors import TransientError
from dittohead.model.roles import Role
from dittohead.system import log
from dittohead.system.credentials import UnreadableCredential

#: Characters of a token at least: shorter ones could be guessed.
LEAST = 20

_ROLES = {"reader": Role.READER, "operator": Role.OPERATOR}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_HASHED = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class AccessToken:
    """One line of the file."""

    role: Role
    name: str
    digest: bytes  #: SHA-256 of the token

    @property
    def mark(self) -> str:
        """What a session remembers of it: not the token, and of no use for finding it."""
        return hashlib.sha256(b"session of " + self.digest).hexdigest()[:32]


def parse(text: str) -> tuple[list[AccessToken], list[str]]:
    """Read lines of `role name token`; return the tokens, and what is wrong with other lines.

    A token is written as it is, or as `sha256:` and the hexadecimal digest of it. Empty lines and those that
    begin with # are left out. What is said about a wrong line never holds any of it.
    """
    found: list[AccessToken] = []
    problems: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        token = _token(words)
        if isinstance(token, str):
            problems.append(f"line {number}: {token}")
        elif any(token.digest == other.digest for other in found):
            problems.append(f"line {number}: this token stands on an earlier line too")
        else:
            found.append(token)
    return found, problems


def _token(words: list[str]) -> AccessToken | str:
    if len(words) != 3:
        return f"a role, a name and a token are required; there are {len(words)} words"
    role, name, secret = words
    if role not in _ROLES:
        return "the role is neither reader nor operator"
    if not _NAME.fullmatch(name):
        return "the name is not of letters, digits, and . _ @ -"
    hashed = _HASHED.fullmatch(secret)
    if hashed:
        return AccessToken(_ROLES[role], name, bytes.fromhex(hashed[1]))
    if secret.startswith("sha256:"):
        return "after sha256: 64 hexadecimal digits in small letters are required"
    if len(secret) < LEAST:
        return f"the token has {len(secret)} characters; at least {LEAST} are required"
    return AccessToken(_ROLES[role], name, digest_of(secret))


def digest_of(secret: str) -> bytes:
    """Return what is kept of a token. A plain digest will do: a token is random, and no password."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


class AccessTokens:
    """All tokens that hold now.

    Args:
        read: returns the file's text. Raises: KeyError: there is none; TransientError: not just now.
    """

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._text: str | None = ""  #: None: it could not be read, the last time
        self._known: list[AccessToken] = []

    def refresh(self) -> list[str]:
        """Read the file again; return what is wrong with it. Blocking.

        Wrong lines open nothing, and the others hold. While the file cannot be read for a temporary reason,
        such as a want of descriptors, what was known goes on to hold: nobody is signed out by that.
        """
        try:
            text = self._read()
        except (KeyError, ValueError) as error:
            why = str(error) if isinstance(error, UnreadableCredential) else "there is no such credential"
            return self._unread(f"the credential file cannot be read: {why}", known=[])
        except (TransientError, OSError) as error:
            return self._unread(str(error), known=self._known)
        known, problems = parse(text)
        if text != self._text:
            self._text, self._known = text, known
            if problems:
                log.get().error(log.HTTP_TOKENS_REFUSED, problems=problems)
        return problems

    def _unread(self, problem: str, known: list[AccessToken]) -> list[str]:
        if self._text is not None or known != self._known:  # said once, not each second
            log.get().error(log.HTTP_TOKENS_REFUSED, problems=[problem])
        self._text, self._known = None, known
        return [problem]

    def find(self, secret: str) -> AccessToken | None:
        """Return whose token it is. Compares with all of them, in the same time whatever fits."""
        digest, found = digest_of(secret), None
        for token in self._known:
            if hmac.compare_digest(digest, token.digest):
                found = token
        return found

    def marked(self, mark: str) -> AccessToken | None:
        """Return the token that a session was begun with, None when it no longer holds."""
        found = None
        for token in self._known:
            if hmac.compare_digest(mark.encode(), token.mark.encode()):
                found = token
        return found
