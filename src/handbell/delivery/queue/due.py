"""A delivery that is due."""

from typing import NamedTuple

from handbell.delivery.delivery import GatewayName
from handbell.registry.session import Environment


class Due(NamedTuple):
    """One delivery that is due, as a worker needs it.

    ``status`` is the session's, ``closed`` for one that is gone; None where no session holds the
    address, or where it was just seen to be active. ``locale`` chooses the language. ``begun_at``
    is from when its retries count, in UNIX milliseconds; None before its first attempt.
    ``was_accepted`` says that a push to the session was accepted before. ``details`` is JSON of
    what belongs to the address beside the token, if anything does. ``failures`` is how often in a
    row it failed in our own code, or its worker was lost.
    """

    notification: int
    number: int
    gateway: GatewayName
    token: str
    environment: Environment
    attempts: int
    is_repeat: bool
    mail: str | None
    user_id: int | None
    time_zone: str | None
    status: str | None = None
    locale: str | None = None
    begun_at: int | None = None
    was_accepted: bool = False
    details: str | None = None
    failures: int = 0
