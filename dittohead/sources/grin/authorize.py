"""A person's sign-in: a browser's consent comes back to a port on this machine, or is pasted.

Over ssh the port is forwarded (`ssh -L 53682:127.0.0.1:53682 HOST`), or the address of the page that the
browser could not open is pasted. Source: RFC 8252, section 7.3. The out-of-band redirect was retired by
Google, and is not used.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp

from dittohead.contract.source import Person
from dittohead.model.errors import ItemError
from dittohead.model.text import short
from dittohead.sources.grin.sign_in import SCOPES, GrinSignIn, OAuthClient, base64url, exchange

#: A person has this long to consent. Seconds.
PATIENCE_S = 600.0

_PAGE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"
    b"dittohead has what it needs. You may close this page.\r\n"
)


async def authorize(
    client: OAuthClient, session: aiohttp.ClientSession, sign_in: GrinSignIn, port: int, person: Person
) -> str:
    """Have a person consent, keep the tokens, and return whose they are.

    Args:
        client: of an installed application.
        session: open.
        sign_in: keeps the tokens.
        port: on this machine, that the browser is led to.
        person: opens the address that is shown.

    Raises: ItemError, TransientError.
    """
    verifier, state = secrets.token_urlsafe(48), secrets.token_urlsafe(24)
    back = f"http://127.0.0.1:{port}"
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    async with _listening(port, answered, person):
        person.say("Open this address in a browser, and sign in with the account that GRIN knows:")
        person.say(_consent_url(client, back, verifier, state))
        asking = asyncio.create_task(_ask(person, answered), name="authorize:paste")
        try:
            async with asyncio.timeout(PATIENCE_S):
                address = await answered
        except TimeoutError:
            raise ItemError("nobody has consented", hint="Begin again with the same command") from None
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
    form = {"code": _code(address, state), "code_verifier": verifier, "redirect_uri": back}
    given = await exchange(client, session, form)
    if not given.get("refresh_token"):
        raise ItemError(
            "Google gave no refresh token",
            hint="Take the consent back at https://myaccount.google.com/permissions, and begin again",
        )
    token = await sign_in.keep(given, None, client)
    return token.email or "an account that Google did not name"


def _consent_url(client: OAuthClient, back: str, verifier: str, state: str) -> str:
    asked = {
        "client_id": client.id,
        "redirect_uri": back,
        "response_type": "code",
        "scope": " ".join(SCOPES),
        "state": state,
        "code_challenge": base64url(hashlib.sha256(verifier.encode()).digest()),
        "code_challenge_method": "S256",
        "access_type": "offline",  # both, or a second consent gives no refresh token
        "prompt": "consent",
    }
    return f"{client.auth_uri}?{urlencode(asked)}"


@contextlib.asynccontextmanager
async def _listening(port: int, answered: asyncio.Future[str], person: Person) -> AsyncIterator[None]:
    """Take the browser's request on the port; where it is taken the address can be pasted all the same."""

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError, ValueError, ConnectionError):
            line = await asyncio.wait_for(reader.readline(), 10)
            target = line.decode("latin-1").split(" ")[1] if line.count(b" ") == 2 else ""
            # A browser also asks for an icon.
            if "code=" in target or "error=" in target:
                _tell(answered, target)
            writer.write(_PAGE)
            await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(take, "127.0.0.1", port)
    except OSError as error:
        person.say(f"(port {port} cannot be listened at: {error.strerror}; paste the address instead)")
        yield
        return
    async with server:
        yield


async def _ask(person: Person, answered: asyncio.Future[str]) -> None:
    """Ask for the address while the port is listened at; whichever comes first."""
    with contextlib.suppress(EOFError, OSError):  # nobody is there: then only the port can answer
        while not answered.done():
            text = await person.ask(
                "Or, if the browser cannot open the page it is led to, paste that page's address here:"
            )
            if "code=" in text or "error=" in text:
                _tell(answered, text.strip())


def _tell(answered: asyncio.Future[str], text: str) -> None:
    if not answered.done():
        answered.set_result(text)


def _code(address: str, state: str) -> str:
    """Return the code in the address that the browser was led to. Raises: ItemError."""
    found = {key: values[0] for key, values in parse_qs(urlsplit(address).query).items()}
    again = "Begin again with the same command"
    if "error" in found:
        raise ItemError(f"the sign-in was refused ({short(found['error'])})", hint=again)
    if not secrets.compare_digest(found.get("state", "").encode(), state.encode()):
        raise ItemError("this is the answer to another sign-in", hint=again)
    if not found.get("code"):
        raise ItemError("there is no code in this address", hint=again)
    return found["code"]
