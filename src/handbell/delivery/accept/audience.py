"""Audience counts of a send: users, devices, and recipients left out."""

from dataclasses import dataclass

from sqlalchemy import func, select

from handbell.apps.app import App
from handbell.storage.database import Database
from handbell.storage.tables import sessions, users

from .resolve import ResolvedRecipients


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Counts of the users and devices a send would reach.

    ``people`` users have ``devices`` active devices; a device token without a session counts as a
    device only. ``without`` users have no active device; ``left_out`` names the recipients that are
    not reached and the reason, one sentence each.
    """

    people: int
    devices: int
    without: int
    left_out: tuple[str, ...] = ()


def audience_of(plan: ResolvedRecipients) -> Audience:
    """Return the audience of a send to named recipients."""
    people = {target.mail for target in plan.targets if target.mail is not None}
    return Audience(
        people=len(people),
        devices=len(plan.targets),
        without=len(plan.warnings),
        left_out=tuple(plan.warnings),
    )


def count_everybody(database: Database, app: App) -> Audience:
    """Return the audience of a broadcast, counted from indexes; ``left_out`` is empty."""
    active = (sessions.c.app_id == app.row, sessions.c.status == "active")
    with database.read() as connection:
        devices = connection.scalar(select(func.count()).select_from(sessions).where(*active))
        people = connection.scalar(
            select(func.count(func.distinct(sessions.c.user_id))).where(*active)
        )
        known = connection.scalar(
            select(func.count()).select_from(users).where(users.c.app_id == app.row)
        )
    reached = people or 0
    return Audience(people=reached, devices=devices or 0, without=max(0, (known or 0) - reached))
