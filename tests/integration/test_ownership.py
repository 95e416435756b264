"""Whose a token is: every way by which a token, a secret or a session changes hands."""

import itertools
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import insert, select
from tests.outcomes import Outcomes

from handbell.apps.app import App
from handbell.errors import ProofRequiredError, RegistryError, SessionLimitError
from handbell.registry.proofs import ProofStore
from handbell.registry.registration import DeviceDescription, Registration
from handbell.registry.store import Registry
from handbell.storage.database import Database
from handbell.storage.tables import apps, sessions, users

PEOPLE = st.sampled_from(["ada@example.com", "bob@example.com", "eve@example.com"])
TOKENS = st.sampled_from(["a1" * 16, "b2" * 16, "c3" * 16])


@dataclass(frozen=True)
class Row:
    """A session as the database has it."""

    id: int
    mail: str
    token: str
    status: str
    digest: str | None
    accepted: bool

    @property
    def is_proven(self) -> bool:
        """Whether it owns its token."""
        return self.status in ("active", "quarantined")


class Ownership(RuleBasedStateMachine):
    """People register, prove, refresh, move and sign out; each step is looked at."""

    numbers: ClassVar = itertools.count(1)
    database: ClassVar[Database]

    secrets: Bundle[str] = Bundle("secrets")
    links: Bundle[str] = Bundle("links")

    @initialize(most=st.sampled_from([1, 3]))
    def begin(self, most: int) -> None:
        """Begin with an app of its own."""
        self.most = most
        number = next(self.numbers)
        self.at = 1_800_000_000.0
        self.registry = Registry(self.database, most_sessions=most, now=self.now)
        self.outcomes = Outcomes(self.database, now=self.now)
        self.proofs = ProofStore(self.database, self.registry, now=self.now)
        self.barred: set[str] = set()
        values = {
            "public_id": f"TEAM123456.com.a{number}",
            "team_id": "TEAM123456",
            "bundle_id": f"com.a{number}",
            "name": "",
            "created_at": 0,
        }
        with self.database.write() as connection:
            key = connection.execute(insert(apps).values(values)).inserted_primary_key
        assert key is not None
        self.app = App(team_id="TEAM123456", bundle_id=f"com.a{number}", row=key[0])

    def now(self) -> float:
        """Return an instant after the one before."""
        self.at += 1
        return self.at

    def rows(self) -> dict[int, Row]:
        """Return every session of the app by its id."""
        told = (
            sessions.c.id,
            users.c.mail,
            sessions.c.token,
            sessions.c.status,
            sessions.c.secret_digest,
            sessions.c.accepted_at.is_not(None),
        )
        statement = (
            select(*told).join_from(sessions, users).where(sessions.c.app_id == self.app.row)
        )
        with self.database.read() as connection:
            return {row[0]: Row(*row) for row in connection.execute(statement)}

    def owners(self) -> dict[str, str]:
        """Return whose each token is."""
        return {row.token: row.mail for row in self.rows().values() if row.is_proven}

    def draw(self, data: st.DataObject, rows: dict[int, Row]) -> Row:
        """Return one of these sessions: by its place, since ids differ from run to run."""
        return rows[sorted(rows)[data.draw(st.integers(0, len(rows) - 1))]]

    def digest(self) -> str:
        """Return the digest of a new secret."""
        return f"secret {next(self.numbers)}"

    def proven(self, person: str, token: str, before: dict[int, Row]) -> None:
        """Look at what a proof has done, and bar the secrets that it must have made void."""
        assert self.owners()[token] == person
        self.barred |= {
            row.digest
            for row in before.values()
            if row.digest and row.token == token and row.mail != person
        }
        self.kept(before, person, token)

    def kept(self, before: dict[int, Row], person: str, token: str) -> None:
        """Look whether what works was kept: only a session with the token may have lost it."""
        after = self.rows()
        for row in before.values():
            if row.is_proven and row.accepted and row.token != token:
                assert after[row.id].is_proven, f"{row} was thrown away for {person}"

    @rule(target=secrets, person=PEOPLE, token=TOKENS)
    def register(self, person: str, token: str) -> MultipleResults[str] | str:
        """Register a device by a back end's key, or by an identity token."""
        before, digest = self.rows(), self.digest()
        registration = Registration.read(
            person, token, at=int(self.now() * 1000), secret_digest=digest
        )
        try:
            self.registry.admit(self.app, registration)
        except SessionLimitError:
            assert self.rows() == before
            return multiple()
        self.proven(person, token, before)
        return digest

    @rule(people=st.lists(st.tuples(PEOPLE, TOKENS, st.booleans()), max_size=4))
    def take_over(self, people: list[tuple[str, str, bool]]) -> None:
        """Import many at once, proven or not."""
        before = self.rows()
        batch = [
            Registration.read(
                person, token, status="active" if is_proven else "pending", at=int(self.at * 1000)
            )
            for person, token, is_proven in people
        ]
        refused = self.registry.admit_many(self.app, batch).refused
        done = [one for place, one in enumerate(batch) if place not in refused]
        last = {one.token: one.mail for one in done if one.status == "active"}
        for token, person in last.items():
            assert self.owners().get(token, person) == person
            self.barred |= {
                row.digest
                for row in before.values()
                if row.digest and row.token == token and row.mail != person
            }

    @rule(target=links, person=PEOPLE, token=TOKENS)
    def mail(self, person: str, token: str) -> str:
        """Mail a link to somebody whose secret is of no more use here."""
        return self.ask(person, token)[1]

    @rule(targets=(secrets,), person=PEOPLE, token=TOKENS)
    def claim(self, person: str, token: str) -> str:
        """Ask for a link that is never opened, and keep the secret."""
        return self.ask(person, token)[0]

    def ask(self, person: str, token: str) -> tuple[str, str]:
        """Ask for a link; return the digest of the device's secret, and the link's own."""
        before, digest = self.owners(), self.digest()
        self.proofs.ask(
            self.app,
            Registration.read(
                person, token, status="pending", at=int(self.now() * 1000), secret_digest=digest
            ),
        )
        (link,) = self.proofs.take_due()
        self.proofs.mailed(link)
        assert self.owners() == before
        return digest, link.secret

    @rule(link=consumes(links))
    def prove(self, link: str) -> None:
        """Open a link."""
        before = self.rows()
        try:
            found = self.proofs.prove(link)
        except SessionLimitError:
            assert self.rows() == before
            return
        if not isinstance(found, str):
            self.proven(found.session.mail, found.session.token, before)

    @rule(secret=secrets, token=st.none() | TOKENS)
    def refresh(self, secret: str, token: str | None) -> None:
        """Speak for a device, perhaps with a new token: nobody else loses theirs."""
        before, owners = self.rows(), self.owners()
        mine = next((row for row in before.values() if row.digest == secret), None)
        try:
            renewed = self.registry.renew(self.app, secret, DeviceDescription(), address=token)
        except (ProofRequiredError, SessionLimitError):
            assert self.rows() == before
            return
        if renewed is None:
            assert mine is None
            return
        assert mine is not None
        after = self.owners()
        for held, person in owners.items():
            assert after.get(held, person) == person, "a secret took somebody's token"
            assert held in after or person == mine.mail
        if mine.status == "pending":
            assert after == owners
        self.kept(before, mine.mail, renewed.session.token)

    @rule(data=st.data(), token=TOKENS)
    def correct(self, data: st.DataObject, token: str) -> None:
        """Correct a device's token by a back end's key."""
        before = self.rows()
        if not before:
            return
        row = self.draw(data, before)
        try:
            self.registry.change(self.app, row.id, DeviceDescription(), address=token)
        except RegistryError:
            assert row.status == "closed"
            return
        if row.is_proven and row.token != token:
            self.proven(row.mail, token, before)

    @rule(data=st.data(), act=st.sampled_from(["out", "gone", "quarantine", "release", "activate"]))
    def act(self, data: st.DataObject, act: str) -> None:
        """Sign a device out, call it gone as Apple does, or act on it as an operator does."""
        before = self.rows()
        if not before:
            return
        row = self.draw(data, before)
        if act == "out":
            self.registry.close(row.id, "closed")
            self.barred |= {row.digest} if row.digest else set()
        elif act == "gone":
            self.outcomes.gone(row.id)
        elif act == "quarantine":
            self.registry.quarantine(row.id, reason="BadDeviceToken")
        elif act == "release":
            self.registry.release(row.id)
        else:
            try:
                found = self.registry.activate(row.id)
            except SessionLimitError:
                assert self.rows() == before
                return
            if found is not None:
                self.proven(row.mail, row.token, before)

    @rule(data=st.data())
    def accept(self, data: st.DataObject) -> None:
        """Accept something for a device, as Apple does."""
        active = {row.id: row for row in self.rows().values() if row.status == "active"}
        if active:
            self.outcomes.accepted([self.draw(data, active).id])

    @invariant()
    def one_token_has_one_owner(self) -> None:
        """No token is proven by two sessions, and nobody has more than they may."""
        if not hasattr(self, "app"):
            return
        held = [row for row in self.rows().values() if row.is_proven]
        assert max(Counter(row.token for row in held).values(), default=0) <= 1
        assert max(Counter(row.mail for row in held).values(), default=0) <= self.most

    @invariant()
    def a_former_owner_is_nobody(self) -> None:
        """Hold that what a proof or a sign-out has made void speaks for no session, ever again."""
        if not hasattr(self, "app"):
            return
        held = {row.digest for row in self.rows().values()}
        assert not held & self.barred


@pytest.mark.databases
def test_a_token_has_one_owner(database_url: str) -> None:
    """Whatever people and operators do in which order, all that is held above holds."""
    few = database_url.startswith("postgresql")
    with closing(Database.open(database_url)) as database:
        Ownership.database = database
        run_state_machine_as_test(
            Ownership,
            settings=settings(
                max_examples=8 if few else 40,
                stateful_step_count=25,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            ),
        )
