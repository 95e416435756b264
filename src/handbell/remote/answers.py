"""What a send server answers, as the values that the library itself returns."""

from collections.abc import Iterable, Mapping
from dataclasses import fields
from datetime import datetime
from types import MappingProxyType
from typing import Any, Protocol

from handbell._portal import portal
from handbell._retry_after import retry_after
from handbell.delivery.deliveries import DeliveryBatch
from handbell.delivery.delivery import Delivery
from handbell.delivery.ids import read_apns_id
from handbell.delivery.ledger.device_stories import DeliveryStory, SessionStory
from handbell.delivery.ledger.why import NotificationStory, Story
from handbell.delivery.response import Response
from handbell.diagnostic import Diagnostic
from handbell.errors import HandbellError, RequestError
from handbell.registry.session import Session


def read_error(
    problem: Mapping[str, Any], headers: Mapping[str, str] = MappingProxyType({})
) -> HandbellError:
    """Return the error that a problem tells of, of the class that the server raised.

    A code of a later server is a plain RequestError with its words. ``headers`` are those that
    came with it, by lower-case name.
    """
    kind = _kinds().get(str(problem.get("code")), RequestError)
    error = kind.__new__(kind)
    what, fix = str(problem.get("detail", "")), str(problem.get("fix", ""))
    HandbellError.__init__(error, what, fix=fix)
    for name in ("size", "limit"):
        if name in problem:
            setattr(error, name, problem[name])
    if "candidates" in problem:
        error.candidates = tuple(problem["candidates"])  # type: ignore[attr-defined]
    after = retry_after(headers)
    if after is not None:
        error.retry_after = after  # type: ignore[attr-defined]
    return error


def _kinds() -> dict[str, type[HandbellError]]:
    known: list[type[HandbellError]] = [HandbellError]
    for kind in known:
        known += kind.__subclasses__()
    # A subclass without a code of its own has its parent's, and the parent comes first.
    return {kind.code: kind for kind in reversed(known)}


class DeliveryStore(Protocol):
    """Where the deliveries of a server's notifications are asked for."""

    async def deliveries(self, notification_id: str, cursor: str | None) -> DeliveryBatch:
        """Return a page of a notification's deliveries, the first one without a cursor."""

    async def count_deliveries(self, notification_id: str) -> int:
        """Return how many deliveries of a notification there are now."""


class _RemoteDeliveries:
    """Asks a server for the deliveries of one notification, page by page."""

    def __init__(self, store: DeliveryStore, notification_id: str) -> None:
        self._store = store
        self._notification_id = notification_id

    def count(self) -> int:
        return portal().run(self._count())

    def page(self, start: str | None) -> DeliveryBatch:
        return portal().run(self.fetch(start))

    async def fetch(self, start: str | None) -> DeliveryBatch:
        return await self._store.deliveries(self._notification_id, start)

    async def _count(self) -> int:
        return await self._store.count_deliveries(self._notification_id)


def read_response(
    answer: Mapping[str, Any], store: DeliveryStore, warnings: tuple[Diagnostic, ...] = ()
) -> Response:
    """Return the outcome that a server answered; its deliveries are asked of the ``store``.

    ``warnings`` were given when it was accepted. What the answer leaves out is not known.
    """
    return Response(
        success=answer.get("success", False),
        warnings=(*warnings, *read_told(answer, "warning")),
        errors=read_told(answer, "error"),
        notification_id=answer["id"],
        reached=answer.get("reached", 0),
        total=answer.get("total", 0),
        states=dict(answer.get("states", {})),
        is_running=answer.get("is_running", False),
        _source=_RemoteDeliveries(store, answer["id"]),
    )


def read_told(answer: Mapping[str, Any], kind: str) -> tuple[Diagnostic, ...]:
    """Return the warnings or errors of an answer; a server of 0.1 tells their texts alone."""
    texts = answer.get(f"{kind}s", ())
    parts = answer.get(f"{kind}_details") or [{}] * len(texts)
    return tuple(
        Diagnostic(
            text,
            recipient=part.get("recipient"),
            reason=part.get("reason", ""),
            fix=part.get("fix", ""),
        )
        for text, part in zip(texts, parts, strict=True)
    )


def read_deliveries(answers: Iterable[Mapping[str, Any]]) -> list[Delivery]:
    """Return deliveries as the ledger's own are."""
    found = []
    for answer in answers:
        # The id names both the notification and the delivery's number.
        _, number = read_apns_id(answer["id"]) or ("", 0)
        told = {**answer, "number": number, "address": answer["device_token"]}
        found.append(Delivery(**_members(Delivery, told)))
    return found


def read_session(answer: Mapping[str, Any]) -> Session:
    """Return a session as the registry's own are; ``user_id`` is 0, for a server tells none."""
    told = {**answer, "user_id": 0, "token": answer["device_token"]}
    return Session(**_members(Session, told))


def read_story(answer: Mapping[str, Any]) -> Story:
    """Return the story that a server told."""
    return Story(
        mail=answer["mail"],
        app=answer["app"],
        is_sent=answer["is_sent"],
        answer=answer["answer"],
        to_do=tuple(answer["to_do"]),
        obstacles=tuple(answer["obstacles"]),
        cautions=tuple(answer.get("cautions", ())),
        sessions=tuple(
            SessionStory(**{**one, "session": read_session(one["session"])})
            for one in answer["sessions"]
        ),
        notifications=tuple(_read_told(one) for one in answer["notifications"]),
    )


def _read_told(answer: Mapping[str, Any]) -> NotificationStory:
    deliveries = []
    for one in answer["deliveries"]:
        (delivery,) = read_deliveries([one["delivery"]])
        deliveries.append(DeliveryStory(**{**one, "delivery": delivery}))
    return NotificationStory(**{**_dated(answer), "deliveries": tuple(deliveries)})


def _members(kind: type[Delivery | Session], value: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a value is made of; what a later server tells beside is left aside."""
    known = {item.name for item in fields(kind)}
    return {name: value for name, value in _dated(value).items() if name in known}


def _dated(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members with every instant in UNIX milliseconds, as the core has them."""
    return {
        name: _milliseconds(value) if name.endswith("_at") and isinstance(value, str) else value
        for name, value in answer.items()
    }


def _milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
