"""Proof by mailed link: opening it proves the ownership of a device.

Only the digest of the link's secret is stored, and only when the mail is sent: each attempt makes
a new secret. So a server that stopped in between mails the link later.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, delete, exists, insert, select, update

from handbell.apps.app import App
from handbell.apps.rows import APP_COLUMNS, app_of
from handbell.storage.database import Database
from handbell.storage.leases import Leases
from handbell.storage.tables import apps, proofs, sessions, users

from .ownership import prove
from .reader import read_session
from .registration import Registered, Registration
from .secret import digest_of, new_secret
from .session import Session
from .store import Registry

VALID_SECONDS: Final = 15 * 60
"""The validity of a link, from when it was mailed."""

MAIL_SECONDS: Final = 15 * 60
"""How long mailing a link is retried; after that a new request is needed."""

LEASE_SECONDS: Final = 90
"""The lease of one attempt to mail: after it another process may try."""

LEASES: Final = Leases(proofs, "mail_due_at", "digest", seconds=LEASE_SECONDS)
"""Each attempt to mail a link makes a new secret; its digest identifies the attempt."""

KEPT_SECONDS: Final = 24 * 3600
"""How long an expired or used link is still recognised as such."""

LinkRefusal = Literal["unknown", "used", "late"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MailLink:
    """A link to mail: its addressee, its app, and its secret."""

    proof: int
    mail: str
    app: App
    secret: str
    asked_at: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfirmation:
    """The question of a link's page: whether this device belongs to the reader."""

    app: App
    mail: str
    platform: str
    asked_at: int


class ProofStore:
    """The requested links. ``now`` returns UNIX seconds."""

    def __init__(
        self, database: Database, registry: Registry, *, now: Callable[[], float] = time.time
    ) -> None:
        self._database = database
        self._registry = registry
        self._now = now

    def ask(self, app: App, registration: Registration) -> Session:
        """Add a pending session and queue a link for it, in one transaction."""
        return self._registry.claim(app, registration, then=self._note)

    def ask_again(self, app: App, digest: str) -> bool:
        """Queue another link for the pending session whose secret has this digest.

        Earlier links for it become void. False when no pending session has it.
        """
        wanted = select(sessions.c.id).where(
            sessions.c.app_id == app.row,
            sessions.c.secret_digest == digest,
            sessions.c.status == "pending",
        )
        with self._database.write() as connection:
            row = connection.scalar(wanted)
            if row is None:
                return False
            connection.execute(delete(proofs).where(proofs.c.session_id == row))
            self._note(connection, row)
        return True

    def take_due(self) -> list[MailLink]:
        """Lease the links that are due, each with a new secret.

        No other process gets them for :data:`LEASE_SECONDS`. Expired ones are deleted.
        """
        now = self._milliseconds()
        with self._database.write() as connection:
            rows = connection.execute(
                _QUESTION.where(LEASES.is_due(now)).order_by(proofs.c.mail_due_at).limit(20)
            ).all()
            return [link for row in rows if (link := self._take(connection, row, now)) is not None]

    def next_due(self) -> float | None:
        """Return when the next link is to be mailed, in UNIX seconds; None when none is."""
        with self._database.read() as connection:
            first = LEASES.next_due(connection)
        return None if first is None else first / 1000

    def mailed(self, link: MailLink) -> None:
        """Mark a link as mailed."""
        self._set_due(link, None)

    def postpone(self, link: MailLink, seconds: float) -> None:
        """Mail a link later; with a new secret, since the fate of the first is unknown."""
        self._set_due(link, self._milliseconds() + int(seconds * 1000))

    def look(self, secret: str) -> LinkConfirmation | LinkRefusal:
        """Return a link's question, or why it is invalid. The link stays valid."""
        with self._database.read() as connection:
            row = connection.execute(
                _QUESTION.where(proofs.c.digest == digest_of(secret))
            ).one_or_none()
        refusal = self._refusal(row)
        if refusal is not None or row is None:
            return refusal or "unknown"
        return LinkConfirmation(
            app=app_of(row), mail=row.mail, platform=row.platform, asked_at=row.created_at
        )

    def prove(self, secret: str) -> Registered | LinkRefusal:
        """Use a link: activate its session and move the token to it, in one transaction.

        A link is valid once, even in a race.
        """
        digest = digest_of(secret)
        now = self._milliseconds()
        with self._database.write() as connection:
            row = connection.execute(_QUESTION.where(proofs.c.digest == digest)).one_or_none()
            refusal = self._refusal(row)
            if refusal is not None or row is None:
                return refusal or "unknown"
            used = (
                update(proofs)
                .where(proofs.c.id == row.id, proofs.c.used_at.is_(None))
                .values(used_at=now, mail_due_at=None)
            )
            if not connection.execute(used).rowcount:
                return "used"
            proven = prove(
                connection, row.session_id, now, max_sessions=self._registry.most_sessions
            )
            if proven is None:
                return "late"
            return Registered(session=read_session(connection, proven[0]), moved=proven[1])

    def forget_old(self) -> int:
        """Prune links that expired a day ago, and claims that were never proven.

        Users without sessions are pruned too. Returns the number of pruned links, 0 when done.
        """
        before = self._milliseconds() - KEPT_SECONDS * 1000
        with self._database.write() as connection:
            over = proofs.c.expires_at < before
            rows = connection.execute(select(proofs.c.session_id).where(over).limit(500))
            claims = {row.session_id for row in rows}
            gone_links = delete(proofs).where(over, proofs.c.session_id.in_(claims))
            forgotten = connection.execute(gone_links).rowcount
            unproven = (
                sessions.c.id.in_(claims),
                sessions.c.status == "pending",
                ~exists().where(proofs.c.session_id == sessions.c.id),
            )
            gone = connection.execute(
                select(sessions.c.id, sessions.c.user_id).where(*unproven)
            ).all()
            connection.execute(
                delete(sessions).where(sessions.c.id.in_([item.id for item in gone]))
            )
            people = (
                users.c.id.in_({item.user_id for item in gone}),
                ~exists().where(sessions.c.user_id == users.c.id),
            )
            connection.execute(delete(users).where(*people))
        return forgotten

    def _note(self, connection: Connection, session: int) -> None:
        now = self._milliseconds()
        values = {
            "session_id": session,
            # The digest of a random secret: the mail's secret is made when that is sent.
            "digest": digest_of(new_secret()),
            "created_at": now,
            "expires_at": now + VALID_SECONDS * 1000,
            "mail_due_at": now,
        }
        connection.execute(insert(proofs).values(values))

    def _take(self, connection: Connection, row: Any, now: int) -> MailLink | None:
        if row.created_at + MAIL_SECONDS * 1000 < now or row.used_at is not None:
            LEASES.settle(connection, row.id, row.digest, None)
            return None
        secret = new_secret()
        valid = {"expires_at": now + VALID_SECONDS * 1000}
        # Another process may have been faster.
        if not LEASES.take(connection, [row.id], digest_of(secret), now, **valid):
            return None
        return MailLink(
            proof=row.id, mail=row.mail, app=app_of(row), secret=secret, asked_at=row.created_at
        )

    def _set_due(self, link: MailLink, due_at: int | None) -> None:
        with self._database.write() as connection:
            LEASES.settle(connection, link.proof, digest_of(link.secret), due_at)

    def _refusal(self, row: Any) -> LinkRefusal | None:
        if row is None:
            return "unknown"
        if row.used_at is not None:
            return "used"
        if row.expires_at <= self._milliseconds() or row.status != "pending":
            return "late"
        return None

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


_QUESTION: Final = (
    select(proofs, sessions.c.status, sessions.c.platform, users.c.mail, *APP_COLUMNS)
    .join_from(proofs, sessions, sessions.c.id == proofs.c.session_id)
    .join(users, users.c.id == sessions.c.user_id)
    .join(apps, apps.c.id == sessions.c.app_id)
)
