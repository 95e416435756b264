"""What a send server answers, as the values that the library itself returns."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from handbell._portal import portal
from handbell.delivery.delivery import Delivery
from handbell.delivery.ids import read_apns_id
from handbell.delivery.ledger.why import DeliveryStory, NotificationStory, SessionStory, Story
from handbell.delivery.response import Response
from handbell.errors import HandbellError, RequestError
from handbell.registry.session import Session


def read_error(problem: Mapping[str, Any], *, retry_after: str | None = None) -> HandbellError:
    """Return the error that a problem tells of, of the class that the server raised.

    A code of a later server is a plain RequestError with its words.
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
    if retry_after is not None and retry_after.isdigit():
        error.retry_after = float(retry_after)  # type: ignore[attr-defined]
    return error


def _kinds() -> dict[str, type[HandbellError]]:
    known: list[type[HandbellError]] = [HandbellError]
    for kind in known:
        known += kind.__subclasses__()
    # A subclass without a code of its own has its parent's, and the parent comes first.
    return {kind.code: kind for kind in reversed(known)}


def read_response(
    answer: Mapping[str, Any], load: Callable[[str], Awaitable[Sequence[Delivery]]]
) -> Response:
    """Return the outcome that a server answered.

    ``load`` reads the deliveries that the answer does not hold, when somebody asks for them.
    """
    notification_id: str = answer["id"]
    shown = answer.get("deliveries")
    told = None if shown is None else tuple(read_deliveries(shown))

    async def read() -> Sequence[Delivery]:
        return await load(notification_id)

    def deliveries() -> Sequence[Delivery]:
        if told is not None and len(told) >= answer["total"]:
            return told
        return portal().run(read())

    return Response(
        success=answer["success"],
        warnings=tuple(answer["warnings"]),
        errors=tuple(answer["errors"]),
        notification_id=notification_id,
        reached=answer["reached"],
        total=answer["total"],
        _load=deliveries,
    )


def read_deliveries(answers: Iterable[Mapping[str, Any]]) -> list[Delivery]:
    """Return deliveries as the ledger's own are."""
    found = []
    for answer in answers:
        one = _dated(answer)
        del one["session_id"]
        # The apns-id names both the notification and the delivery's number.
        _, one["number"] = read_apns_id(one.pop("id")) or ("", 0)
        found.append(Delivery(address=one.pop("device_token"), **one))
    return found


def read_session(answer: Mapping[str, Any]) -> Session:
    """Return a session as the registry's own are; ``user_id`` is 0, for a server tells none."""
    one = _dated(answer)
    return Session(user_id=0, token=one.pop("device_token"), **one)


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


def _dated(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members with every instant in UNIX milliseconds, as the core has them."""
    return {
        name: _milliseconds(value) if name.endswith("_at") and isinstance(value, str) else value
        for name, value in answer.items()
    }


def _milliseconds(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1000)
