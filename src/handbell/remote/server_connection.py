"""Requests to a send server: made again where they did not arrive, and read to values or errors."""

import asyncio
import socket
import time
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

from handbell._text import without_password
from handbell._variables import (
    certificate_variable,
    check_variables,
    proxy_variable,
    wrong_exceptions,
)
from handbell.errors import SettingsError, UnavailableError

from .answers import read_error

PAUSES: Final = (0.2, 1.0, 3.0)
"""The seconds before each further attempt at a call that did not arrive."""

WAIT_SECONDS: Final = 30
"""How long the server is asked to wait for an outcome; beyond that the client asks again."""

_TIMEOUT_SECONDS: Final = WAIT_SECONDS + 15.0
_CONNECT_SECONDS: Final = 5.0
"""How long all attempts of a call may take to reach the server, with the look-up of its name."""

_UNKNOWN: Final = frozenset({socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)})
_NO_CONTENT: Final = 204
_PROXY_AUTHENTICATION: Final = 407


class ServerConnection:
    """The way to one send server. Its connections belong to the event loop that uses them.

    ``pauses`` are the seconds before each further attempt at a call that did not arrive. Raises
    SettingsError for an address or a key that cannot be one, and for a variable of proxies or
    certificates (``HTTPS_PROXY``, ``SSL_CERT_FILE``) that cannot be followed.
    """

    def __init__(self, url: str, api_key: str | None, *, pauses: Sequence[float] = PAUSES) -> None:
        self._httpx = _load_httpx()
        self._url = _read_address(url)
        self._headers = {"Authorization": f"Bearer {_read_key(api_key)}"}
        check_variables()
        self._pauses = pauses
        self._clients: dict[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[None]]] = {}

    async def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | Sequence[Any] | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        wait: int = 0,
        is_repeatable: bool = True,
    ) -> Any:
        """Return what the server answers. Raises the error that it answers with.

        UnavailableError where it cannot be reached.
        """
        httpx = self._httpx
        headers = {"Prefer": f"wait={wait}"} if wait else {}
        left = _CONNECT_SECONDS
        for pause in (*self._pauses, None):
            client = await self._client()
            begun = time.monotonic()
            try:
                answer = await client.request(
                    method,
                    f"{self._url}{path}",
                    json=body,
                    params=params,
                    headers=headers,
                    timeout=httpx.Timeout(_TIMEOUT_SECONDS, connect=left),
                )
            except httpx.ProxyError as error:
                raise self._through_no_proxy(error) from None
            except httpx.TransportError as error:
                if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
                    left -= time.monotonic() - begun
                    is_final = left <= 0 or _is_unknown(error)
                else:
                    is_final = not is_repeatable
                if pause is None or is_final:
                    raise self._not_reached(error) from None
                await asyncio.sleep(pause)
            else:
                return self._read(answer)
        raise AssertionError("The last attempt returns or raises")

    def _through_no_proxy(self, error: object) -> SettingsError:
        name = proxy_variable(self._url)
        return SettingsError(
            f"The proxy that {name} names does not lead to {self._url}: {error}",
            fix=f"Correct {name} (http://user:password@host:port), or name the host in NO_PROXY",
        )

    def _not_reached(self, error: Exception) -> UnavailableError:
        said = _why(error)
        fix = "Check the address, and that handbell serve runs there"
        if "CERTIFICATE_VERIFY_FAILED" in said and (name := certificate_variable()):
            fix = f"Name the authority of its certificate in {name}, which says whom to trust"
        elif name := proxy_variable(self._url):
            fix = f"{fix}; it was asked through the proxy in {name}, unless NO_PROXY names the host"
        return UnavailableError(
            f"The send server at {self._url} cannot be reached: {said}", fix=fix
        )

    def _read(self, answer: Any) -> Any:
        if answer.status_code == _NO_CONTENT:
            return None
        try:
            value = answer.json()
        except ValueError:
            value = None
        if answer.is_success and value is not None:
            return value
        if isinstance(value, Mapping) and "code" in value:
            raise read_error(value, answer.headers)
        if answer.status_code == _PROXY_AUTHENTICATION and proxy_variable(self._url):
            raise self._through_no_proxy("407, it asks for a user and a password")
        raise UnavailableError(
            f"{self._url} answered {answer.status_code}, and not as a send server does",
            fix="Check the address, and what stands between",
        )

    async def _client(self) -> Any:
        for gone in [loop for loop in self._clients if loop.is_closed()]:
            del self._clients[gone]
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            try:
                client = self._httpx.AsyncClient(headers=self._headers)
            except (self._httpx.InvalidURL, ValueError):
                raise wrong_exceptions() from None
            guard = _close_with_loop(client)
            self._clients[loop] = (client, guard)
            # From its first step on the event loop knows it.
            await anext(guard)
        return self._clients[loop][0]

    async def close(self) -> None:
        """Close the connections of the running event loop; they open again when needed."""
        _, guard = self._clients.pop(asyncio.get_running_loop(), (None, None))
        if guard is not None:
            await guard.aclose()


async def _close_with_loop(client: Any) -> AsyncGenerator[None]:
    """Close a client when its event loop ends its asynchronous generators, which are at the end."""
    try:
        yield
    finally:
        await client.aclose()


def _is_unknown(error: BaseException) -> bool:
    """Return whether an error says that there is no host of that name: asking again is no use."""
    return any(isinstance(one, socket.gaierror) and one.errno in _UNKNOWN for one in _chain(error))


def _why(error: BaseException) -> str:
    if _is_unknown(error):
        return "there is no host of that name"
    if any(isinstance(one, socket.gaierror) for one in _chain(error)):
        return "the host's name could not be looked up"
    return str(error) or type(error).__name__


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _read_address(url: str) -> str:
    try:
        parts = urlsplit(url.strip())
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
        # Reading the port raises for one that cannot be.
        is_address = is_address and parts.port != 0 and not any(map(str.isspace, parts.netloc))
    except (AttributeError, ValueError):
        is_address = False
    if not is_address:
        raise SettingsError(
            f"{without_password(str(url))!r} is not the address of a send server",
            fix="Give it as https://push.example.com",
        )
    return url.strip().rstrip("/")


def _read_key(api_key: str | None) -> str:
    """Return an API key without the line's end that a file or a variable adds to it.

    Raises SettingsError, which does not show it, for what no header can carry.
    """
    key = (api_key or "").strip()
    if not key:
        raise SettingsError(
            "A send server needs an API key", fix="Make one with: handbell api-key add"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise SettingsError(
            "The API key has characters that no API key has",
            fix="Copy it again: hbk_ and what follows, letters, digits and _ only",
        )
    return key


def _load_httpx() -> ModuleType:
    import httpx  # noqa: PLC0415 - only a program that asks a server needs it

    return httpx
