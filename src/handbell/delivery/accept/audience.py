"""How many a send would reach: people and devices, and who is left out."""

from dataclasses import dataclass

from sqlalchemy import func, select

from handbell.apps.app import App
from handbell.storage.database import Database
from handbell.storage.tables import sessions, users

from .resolve import ResolvedRecipients


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Whom a send would reach, counted.

    ``people`` have ``devices`` among them; a device token that no session holds is a device of
    nobody. ``without`` people have no device that is active; ``left_out`` says who of those named,
    and why, in sentences.
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
    """Return the audience of a send to everybody; nobody is listed, whole indexes are counted."""
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
