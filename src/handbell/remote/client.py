"""The same front door to a send server elsewhere: what :mod:`handbell.push` does, over HTTP.

A call whose connection fails is made again, under an
idempotency key, so that nobody is notified twice; whatever the server answers is final.
"""

import asyncio
import math
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from handbell._chunks import chunks
from handbell.delivery.deliveries import DeliveryBatch
from handbell.delivery.ledger.answer import refused, still_running
from handbell.delivery.ledger.why import Story
from handbell.delivery.response import Response
from handbell.errors import (
    AmbiguousAppError,
    HandbellError,
    UnavailableError,
    UnknownAppError,
    UnknownNotificationError,
)
from handbell.registry.backend_registration import BackendRegistration
from handbell.registry.session import RegisteredSession, Session

from .answers import (
    read_deliveries,
    read_error,
    read_response,
    read_session,
    read_story,
    read_told,
)
from .server_connection import PAUSES, WAIT_SECONDS, ServerConnection

_POLL_SECONDS: Final = 0.25
_SLOWEST_POLL_SECONDS: Final = 5.0
_PAGE: Final = 200
_AT_ONCE: Final = 400
"""How many sends go in one call of many."""

_ASKED_AT_ONCE: Final = 8
"""How many outcomes are asked for at the same time."""


class OutcomeDeadline:
    """How long somebody waits for outcomes: ``timeout`` seconds from now, None for ever."""

    def __init__(self, timeout: float | None) -> None:
        self.timeout = timeout
        self._until = math.inf if timeout is None else time.monotonic() + timeout

    @property
    def left(self) -> float:
        """The seconds that are left."""
        return self._until - time.monotonic()

    @property
    def preferred(self) -> int:
        """The whole seconds that the server is asked to wait; 0 is not at all."""
        return int(max(0, min(WAIT_SECONDS, self.left)))


class RemoteApp:
    """One app on a send server. Its connections belong to the event loop that uses them.

    ``reference`` names the app as for PushNotification. ``pauses`` and what is raised are those of
    :class:`~handbell.remote.server_connection.ServerConnection`.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        reference: str | None = None,
        *,
        pauses: Sequence[float] = PAUSES,
    ) -> None:
        self._server = ServerConnection(url, api_key, pauses=pauses)
        self._call = self._server.call
        self._reference = reference
        self._app: Mapping[str, Any] | None = None

    async def find(self) -> Mapping[str, Any]:
        """Return the app as the server describes it, looked up once.

        Raises UnknownAppError or AmbiguousAppError when it cannot be told.
        """
        if self._app is None:
            if self._reference and _fits_path(self._reference):
                self._app = await self._call("GET", f"/v1/apps/{quote(self._reference, safe='')}")
            elif self._reference:
                self._app = _named([one async for one in self._pages("/v1/apps")], self._reference)
            else:
                self._app = _only([one async for one in self._pages("/v1/apps")])
        return self._app

    async def send(self, entry: Mapping[str, Any], *, timeout: float | None = None) -> Response:
        """Send, and return when every delivery has ended or waits; ``entry`` is the call's body.

        Not longer than ``timeout`` seconds; with 0 it returns what the server says at once.
        """
        body = {"idempotency_key": uuid.uuid4().hex, **entry}
        wait = OutcomeDeadline(timeout)
        path = await self._path("notifications")
        return await self._outcome(await self._call("POST", path, body, wait=wait.preferred), wait)

    async def wait(self, notification_id: str, *, timeout: float | None = None) -> Response:
        """Return what became of a notification when every delivery has ended or waits."""
        path = await self._notification(notification_id)
        wait = OutcomeDeadline(timeout)
        told = await self._call("GET", path)
        return await self._outcome({"id": told["id"], "warnings": []}, wait)

    async def send_each(
        self,
        template: str,
        entries: Mapping[str, Mapping[str, Any] | HandbellError],
        *,
        timeout: float | None = None,
    ) -> dict[str, Response]:
        """Send one entry for each name, and return each one's answer; an error is its own.

        Raises UnknownTemplateError.
        """
        if _fits_path(template):
            await self._call("GET", await self._path("templates", template))
        good = {name: one for name, one in entries.items() if not isinstance(one, HandbellError)}
        answers: dict[str, Mapping[str, Any] | HandbellError] = {
            name: one for name, one in entries.items() if isinstance(one, HandbellError)
        }
        for some in chunks(good, _AT_ONCE):
            calls = [{"idempotency_key": uuid.uuid4().hex, **good[name]} for name in some]
            told = await self._call("POST", await self._path("notifications"), calls)
            answers |= dict(zip(some, told, strict=True))
        return await self._outcomes(
            {name: answers[name] for name in entries}, OutcomeDeadline(timeout)
        )

    async def cancel(self, notification_id: str) -> int:
        """Cancel what is not sent yet, and return the number of cancelled deliveries."""
        path = await self._notification(notification_id, "cancel")
        return int((await self._call("POST", path))["cancelled"])

    async def replace(
        self,
        notification_id: str,
        notification: Mapping[str, Any],
        *,
        timeout: float | None = None,
    ) -> Response:
        """Send new content to those who got a notification, and wait as :meth:`send` does."""
        path = await self._notification(notification_id, "replace")
        body, wait = {"notification": notification}, OutcomeDeadline(timeout)
        # Without a key it must not be made twice: only what did not go out is tried again.
        return await self._outcome(
            await self._call("POST", path, body, wait=wait.preferred, is_repeatable=False),
            wait,
        )

    async def deliveries(self, notification_id: str, cursor: str | None) -> DeliveryBatch:
        """Return a page of a notification's deliveries, the first one without a cursor."""
        path = await self._path("notifications", notification_id, "deliveries")
        asked = {"limit": _PAGE} if cursor is None else {"limit": _PAGE, "cursor": cursor}
        page = await self._call("GET", path, params=asked)
        return DeliveryBatch(read_deliveries(page["data"]), page["next"])

    async def count_deliveries(self, notification_id: str) -> int:
        """Return how many deliveries of a notification there are now."""
        path = await self._path("notifications", notification_id)
        return int((await self._call("GET", path))["total"])

    async def register(self, device: BackendRegistration) -> RegisteredSession:
        """Register a device that a back end vouches for, and return its session."""
        about = {name: value for name, value in device.about.items() if value is not None}
        named = "device_token" if isinstance(device.address, str) else "subscription"
        body = {"mail": device.mail, named: device.address, **about}
        if device.service is not None:
            body["service"] = device.service
        told = await self._call("POST", await self._path("sessions"), body)
        session = read_session(told["session"])
        return device.registered(session, secret=told["secret"], warnings=tuple(told["warnings"]))

    async def close_session(self, session_id: int) -> None:
        """Log a device out; nothing is on its way to it any more when this returns."""
        await self._call("DELETE", await self._path("sessions", str(session_id)))

    async def sessions(self, **filters: str) -> list[Session]:
        """Return the app's sessions that the filters fit, the newest registration first."""
        path = await self._path("sessions")
        found = [read_session(one) async for one in self._pages(path, filters)]
        return sorted(found, key=lambda one: (-one.registered_at, -one.id))

    async def mail_addresses(self) -> list[str]:
        """Return the mail addresses of all users, sorted."""
        path = await self._path("users")
        return sorted([one["mail"] async for one in self._pages(path)])

    async def why(self, mail: str) -> Story:
        """Return why a person saw the last notifications, or did not."""
        return read_story(await self._call("GET", await self._path("users", mail, "why")))

    async def close(self) -> None:
        """Close the connections of the running event loop; they open again when needed."""
        await self._server.close()

    async def _outcomes(
        self, answers: Mapping[str, Mapping[str, Any] | HandbellError], wait: "OutcomeDeadline"
    ) -> dict[str, Response]:
        """Return each one's outcome, some asked for at a time, in the order of the answers."""
        found: dict[str, Response] = {}
        left = iter(answers)

        async def ask() -> None:
            for name in left:
                found[name] = await self._outcome_or_refusal(answers[name], wait)

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(_ASKED_AT_ONCE, len(answers))):
                    group.create_task(ask())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {name: found[name] for name in answers}

    async def _outcome_or_refusal(
        self, answer: Mapping[str, Any] | HandbellError, wait: "OutcomeDeadline"
    ) -> Response:
        if not isinstance(answer, HandbellError) and "error" not in answer:
            return await self._outcome(answer, wait)
        return refused(answer if isinstance(answer, HandbellError) else read_error(answer["error"]))

    async def _outcome(self, answer: Mapping[str, Any], wait: "OutcomeDeadline") -> Response:
        """Return the outcome that was answered, or the one that comes of what was accepted."""
        if "success" in answer:
            return read_response(answer, self)
        given = read_told(answer, "warning")
        try:
            told = await self._settled(answer["id"], wait)
        except UnavailableError:
            if wait.timeout is None:
                raise
            # It is accepted, and whoever does not wait for more must not take it for lost.
            told = {"id": answer["id"], "is_running": True}
        if told["is_running"] and wait.timeout:
            given = (*given, still_running(answer["id"], wait.timeout))
        return read_response(told, self, given)

    async def _settled(self, notification_id: str, wait: "OutcomeDeadline") -> Mapping[str, Any]:
        """Return how a notification stands when it has ended or waits, or nobody waits longer."""
        path = await self._path("notifications", notification_id)
        pause = _POLL_SECONDS
        while True:
            told: Mapping[str, Any] = await self._call("GET", path)
            left = wait.left
            if not told["is_running"] or left <= 0:
                return told
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, _SLOWEST_POLL_SECONDS)

    async def _notification(self, notification_id: str, *parts: str) -> str:
        # What is no id would lead to another address, whose answer speaks of something else.
        if not notification_id.isalnum():
            app = (await self.find())["id"]
            raise UnknownNotificationError(
                f"{app} has no notification {notification_id!r}",
                fix="See: handbell notification list",
            )
        return await self._path("notifications", notification_id, *parts)

    async def _path(self, *parts: str) -> str:
        app = (await self.find())["id"]
        return "/".join(["/v1/apps", *(quote(part, safe="") for part in (app, *parts))])

    async def _pages(
        self, path: str, filters: Mapping[str, str] | None = None
    ) -> AsyncIterator[Mapping[str, Any]]:
        asked: dict[str, Any] = {**(filters or {}), "limit": _PAGE}
        while True:
            page = await self._call("GET", path, params=asked)
            for one in page["data"]:
                yield one
            if page["next"] is None:
                return
            asked["cursor"] = page["next"]


def _only(apps: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    if not apps:
        raise UnknownAppError("The server has no app that the API key serves", fix="Add one there")
    if len(apps) > 1:
        names = tuple(str(one["id"]) for one in apps)
        raise AmbiguousAppError(
            "No app is named, and there is more than one",
            fix=f"Name one of: {', '.join(names)}",
            candidates=names,
        )
    return apps[0]


def _named(apps: list[Mapping[str, Any]], name: str) -> Mapping[str, Any]:
    found = [one for one in apps if one["name"] == name]
    if not found:
        raise UnknownAppError(f"There is no app {name!r}", fix="See: handbell app list")
    return _only(found)


def _fits_path(name: str) -> bool:
    """Say whether a name can be a part of an address: a slash is read as a border there."""
    return "/" not in name and name not in (".", "..")
