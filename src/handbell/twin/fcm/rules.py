"""FCM's rules: what it answers to a request. Pure but for the quotas that it counts.

Sources are named in ``services/fcm/protocol.py``; the order of FCM's checks is not documented:
here path, then access token, form, values, the project's quota, and the device last (our choice).

Some codes report trouble on Google's side, or a state that a twin cannot have (``INTERNAL``,
``UNAVAILABLE``, ``THIRD_PARTY_AUTH_ERROR``): no rule returns those, only an injected fault.
"""

import re
from dataclasses import dataclass
from typing import Any, Final, Protocol

from handbell.services.fcm.protocol import (
    AUTHORIZATION,
    MAX_PAYLOAD_BYTES,
    MAX_TOPIC_PAYLOAD_BYTES,
    PERMISSION,
)
from handbell.twin.device_store import Device
from handbell.twin.wire.exchange import Request

from .accounts import AccessToken
from .message import Message, RefusalError, check_message, read_body, size_of
from .quota import Quotas
from .responses import FcmRefusal

SEND_PATH: Final = re.compile(r"/v1/projects/([^/:?]+)/messages:send(?:\?.*)?")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_\-]+:[A-Za-z0-9_\-]+")


class RuleState(Protocol):
    """The state that rules may query."""

    quotas: Quotas

    def now(self) -> float:
        """Return the time in UNIX seconds."""

    def find_token(self, token: str) -> AccessToken | None:
        """Return what an access token stands for."""

    def find_device(self, target: str, value: str) -> Device | None:
        """Return the device of a registration token or of an installation id."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """An accepted message; ``device`` is None for one to a topic or a condition."""

    project: str
    message: Message
    device: Device | None
    validate_only: bool


def judge(request: Request, world: RuleState) -> Accepted | FcmRefusal | None:
    """Return the message or its refusal; None where the path is none of FCM's."""
    found = SEND_PATH.fullmatch(request.path)
    if found is None or request.method != "POST":
        return None
    project = found[1]
    try:
        _access(request, project, world)
        body = read_body(request.body)
        message: Message = body["message"]
        check_message(message)
        _size(message, request)
        _refuse(world.quotas.take_project(project, world.now()))
        device = _device(message, project, world)
    except RefusalError as refusal:
        return refusal.refused
    return Accepted(project, message, device, validate_only=body.get("validate_only", False))


def _refuse(refused: FcmRefusal | None) -> None:
    if refused is not None:
        raise RefusalError(refused)


def _access(request: Request, project: str, world: RuleState) -> None:
    scheme, _, token = (request.header(AUTHORIZATION) or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise RefusalError(
            FcmRefusal(
                code="UNAUTHENTICATED",
                why="There is no 'authorization: Bearer ...'.",
                message=(
                    "Request is missing required authentication credential. Expected OAuth 2 "
                    "access token, login cookie or other valid authentication credential."
                ),
            )
        )
    access = world.find_token(token.strip())
    if access is None:
        why = "The access token is not one of the twin's, or it has expired."
        raise RefusalError(
            FcmRefusal(code="UNAUTHENTICATED", why=why, details=(_info("ACCESS_TOKEN_EXPIRED"),))
        )
    if not access.can_send:
        why = "The access token was asked for without the scope of messaging."
        raise RefusalError(
            FcmRefusal(
                code="PERMISSION_DENIED",
                why=why,
                message="Request had insufficient authentication scopes.",
                details=(_info("ACCESS_TOKEN_SCOPE_INSUFFICIENT"),),
            )
        )
    account = access.account
    if account.project != project or not account.may_send:
        resource = f"//cloudresourcemanager.googleapis.com/projects/{project}"
        why = f"{account.client_email} may not send for the project {project}."
        raise RefusalError(
            FcmRefusal(
                code="PERMISSION_DENIED",
                why=why,
                message=(
                    f"Permission '{PERMISSION}' denied on resource '{resource}' (or it may not "
                    "exist)."
                ),
                details=(_info("IAM_PERMISSION_DENIED"),),
            )
        )


def _info(reason: str) -> dict[str, Any]:
    return {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": reason,
        "domain": "googleapis.com",
        "metadata": {"service": "fcm.googleapis.com"},
    }


def _size(message: Message, request: Request) -> None:
    """Refuse a message over the limit; FCM names neither code nor field then."""
    is_to_topic = "topic" in message or "condition" in message
    limit = MAX_TOPIC_PAYLOAD_BYTES if is_to_topic else MAX_PAYLOAD_BYTES
    size = size_of(message)
    if size > limit or request.size > len(request.body):
        raise RefusalError(
            FcmRefusal(
                code="INVALID_ARGUMENT",
                why=f"Keys and values have {size} bytes; {limit} are the most.",
                is_front=True,
            )
        )


def _device(message: Message, project: str, world: RuleState) -> Device | None:
    """Return the device of the message; refuse one that is unknown, elsewhere or gone."""
    target = "token" if "token" in message else "fid"
    value = message.get(target)
    if value is None:
        return None
    device = world.find_device(target, value)
    if device is None:
        malformed = target == "token" and not _TOKEN.fullmatch(value)
        raise RefusalError(
            FcmRefusal(
                code="INVALID_ARGUMENT",
                why="It is no registration token." if malformed else "No phone has this token.",
                message="The registration token is not a valid FCM registration token",
                violations=((f"message.{target}", "Invalid registration token"),),
            )
        )
    phone = device.phone
    if phone.project != project:
        why = f"The token was given out for the project {phone.project}, not for {project}."
        raise RefusalError(FcmRefusal(code="SENDER_ID_MISMATCH", why=why))
    if device.gone_at is not None:
        raise RefusalError(
            FcmRefusal(code="UNREGISTERED", why="The app was removed from the phone.")
        )
    package = message.get("android", {}).get("restricted_package_name")
    if package is not None and phone.package is not None and package != phone.package:
        raise RefusalError(
            FcmRefusal(
                code="INVALID_ARGUMENT",
                why=f"The token belongs to the package {phone.package}, not to {package}.",
                violations=(
                    ("message.android.restricted_package_name", "The package does not match"),
                ),
            )
        )
    _refuse(world.quotas.take_device(phone.token, world.now()))
    return device
