"""Operators in a real database: passwords, sign-ins that end, invitations that serve once."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select

from handbell.access.operators import OperatorStore
from handbell.access.passwords import Passwords
from handbell.errors import InvitationError, OperatorError
from handbell.storage.database import Database
from handbell.storage.tables import invitations, operators, sign_ins

pytestmark = pytest.mark.databases

MAIL, PASSWORD = "op@example.com", "a bell rings twice"
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@dataclass
class Desk:
    """A store and the clock that it goes by."""

    database: Database
    at: float = 1_800_000_000.0
    hasher: PasswordHasher = field(default_factory=lambda: QUICK)

    @property
    def store(self) -> OperatorStore:
        """A store with the hasher of now."""
        return OperatorStore(self.database, passwords=Passwords(self.hasher), now=lambda: self.at)


@pytest.fixture
def desk(database_url: str) -> Iterator[Desk]:
    """Give a database of its own."""
    database = Database.open(database_url)
    yield Desk(database)
    database.close()


def test_an_operator_is_found_whatever_the_case(desk: Desk) -> None:
    """An address is folded; once it is there it cannot be added again."""
    desk.store.add("Op@Example.com", PASSWORD)
    assert desk.store.find("OP@EXAMPLE.COM").mail == MAIL
    assert desk.store.check("oP@example.com", PASSWORD) is not None
    with pytest.raises(OperatorError, match="operator already"):
        desk.store.add(MAIL, PASSWORD)
    assert [one.mail for one in desk.store.list()] == [MAIL]


def test_only_the_right_password_of_a_known_account_checks(desk: Desk) -> None:
    """A wrong password and an unknown account look alike."""
    desk.store.add(MAIL, PASSWORD)
    assert desk.store.check(MAIL, "another bell rings") is None
    assert desk.store.check("nobody@example.com", PASSWORD) is None
    assert desk.store.check("x" * 100_000, PASSWORD) is None


def test_a_hash_is_renewed_when_the_parameters_have_changed(desk: Desk) -> None:
    """At the next sign-in a hash of older parameters becomes one of today's."""
    desk.store.add(MAIL, PASSWORD)
    desk.hasher = PasswordHasher(time_cost=2, memory_cost=16, parallelism=1)
    assert desk.store.check(MAIL, PASSWORD) is not None
    with desk.database.read() as connection:
        stored = connection.scalar(select(operators.c.password))
    assert "m=16,t=2" in (stored or "")
    assert desk.store.check(MAIL, PASSWORD) is not None


def test_a_sign_in_ends_at_its_time(desk: Desk) -> None:
    """It lasts so many hours, whatever is done meanwhile; then it is nobody's."""
    operator = desk.store.add(MAIL, PASSWORD)
    secret = desk.store.sign_in(operator, hours=12)
    desk.at += 12 * 3600 - 1
    found = desk.store.signed_in(secret)
    assert found is not None
    assert found.operator.mail == MAIL
    desk.at += 1
    assert desk.store.signed_in(secret) is None
    assert desk.store.signed_in("") is None


def test_no_secret_is_in_the_database(desk: Desk) -> None:
    """Cookies and links are stored as digests, passwords as hashes."""
    operator = desk.store.add(MAIL, PASSWORD)
    secrets = [desk.store.sign_in(operator, hours=1), desk.store.invite(), PASSWORD]
    with desk.database.read() as connection:
        told = [
            str(row)
            for table in (operators, sign_ins, invitations)
            for row in connection.execute(select(table))
        ]
    assert len(told) == 3
    assert all(secret not in text for secret in secrets for text in told)


def test_signing_out_ends_one_or_all(desk: Desk) -> None:
    """One sign-in ends by itself; all of them, but for one, at once."""
    operator = desk.store.add(MAIL, PASSWORD)
    first, second, third = (desk.store.sign_in(operator, hours=1) for _ in range(3))
    desk.store.sign_out(first)
    assert desk.store.signed_in(first) is None
    assert desk.store.count_sign_ins() == {operator.id: 2}
    assert desk.store.sign_out_everywhere(operator, but=second) == 1
    assert desk.store.signed_in(second) is not None
    assert desk.store.signed_in(third) is None


def test_another_password_ends_every_sign_in(desk: Desk) -> None:
    """Whoever had got in with the former password is out."""
    operator = desk.store.add(MAIL, PASSWORD)
    secret = desk.store.sign_in(operator, hours=1)
    desk.store.set_password(operator, "two bells ring once")
    assert desk.store.signed_in(secret) is None
    assert desk.store.check(MAIL, PASSWORD) is None
    assert desk.store.check(MAIL, "two bells ring once") is not None


def test_who_is_removed_is_out_at_once(desk: Desk) -> None:
    """Their sign-ins go with them, and new ones cannot begin."""
    operator = desk.store.add(MAIL, PASSWORD)
    secret = desk.store.sign_in(operator, hours=1)
    desk.store.remove(MAIL)
    assert desk.store.signed_in(secret) is None
    with pytest.raises(OperatorError):
        desk.store.sign_in(operator, hours=1)
    with pytest.raises(OperatorError):
        desk.store.remove(MAIL)


def test_an_invitation_makes_one_operator(desk: Desk) -> None:
    """A link serves once; a password that is refused does not use it up."""
    secret = desk.store.invite()
    with pytest.raises(OperatorError, match="characters"):
        desk.store.accept(secret, MAIL, "short")
    assert desk.store.accept(secret, MAIL, PASSWORD).mail == MAIL
    with pytest.raises(InvitationError):
        desk.store.accept(secret, "second@example.com", PASSWORD)
    assert len(desk.store.list()) == 1


def test_an_invitation_serves_for_a_day(desk: Desk) -> None:
    """After 24 hours it is as good as none."""
    secret = desk.store.invite()
    desk.at += 24 * 3600 - 1
    assert desk.store.invitation(secret).mail is None
    desk.at += 1
    with pytest.raises(InvitationError):
        desk.store.invitation(secret)
    assert desk.store.invitations() == []


def test_an_invitation_of_somebody_is_theirs(desk: Desk) -> None:
    """Where it names an address, no other can be put in its place."""
    secret = desk.store.invite(MAIL)
    assert desk.store.accept(secret, "thief@example.com", PASSWORD).mail == MAIL
    with pytest.raises(OperatorError, match="operator already"):
        desk.store.invite(MAIL)


def test_a_link_sets_another_password_once(desk: Desk) -> None:
    """Until it is used the former one goes on; then that is void, and so are its sign-ins."""
    operator = desk.store.add(MAIL, PASSWORD)
    cookie, secret = desk.store.sign_in(operator, hours=1), desk.store.reset(operator)
    assert desk.store.invitation(secret).is_reset
    assert desk.store.check(MAIL, PASSWORD) is not None
    assert desk.store.accept(secret, "", "two bells ring once").id == operator.id
    assert desk.store.check(MAIL, PASSWORD) is None
    assert desk.store.check(MAIL, "two bells ring once") is not None
    assert desk.store.signed_in(cookie) is None
    with pytest.raises(InvitationError):
        desk.store.accept(secret, "", PASSWORD)


def test_who_is_removed_does_not_come_back_by_a_link(desk: Desk) -> None:
    """What was made for them before is void."""
    operator = desk.store.add(MAIL, PASSWORD)
    secret = desk.store.reset(operator)
    desk.store.remove(MAIL)
    with pytest.raises(OperatorError):
        desk.store.reset(operator)
    with pytest.raises(InvitationError):
        desk.store.accept(secret, "", PASSWORD)


def test_an_invitation_is_taken_back(desk: Desk) -> None:
    """By its id, which opens nothing."""
    secret = desk.store.invite(MAIL)
    (one,) = desk.store.invitations()
    with pytest.raises(InvitationError):
        desk.store.invitation(one.id)
    assert desk.store.withdraw(one.id)
    assert not desk.store.withdraw(one.id)
    with pytest.raises(InvitationError):
        desk.store.accept(secret, MAIL, PASSWORD)


def test_many_who_open_a_link_at_once_make_one_operator(desk: Desk) -> None:
    """Whatever a race does, a link serves once."""
    secret, store = desk.store.invite(), desk.store

    def accept(number: int) -> bool:
        try:
            store.accept(secret, f"user{number}@example.com", PASSWORD)
        except InvitationError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(accept, range(8)))
    assert sum(results) == 1
    assert len(store.list()) == 1


@pytest.mark.parametrize("mail", ["", "nobody", "a@b@c", "\ud800@example.com"])
def test_what_is_no_address_is_refused(desk: Desk, mail: str) -> None:
    """An operator is named by a mail address."""
    with pytest.raises(OperatorError, match="not a mail address"):
        desk.store.add(mail, PASSWORD)


Making = Callable[[OperatorStore], str]


@pytest.mark.parametrize(
    ("make", "come_to_pass"),
    [
        (lambda store: store.invite(MAIL), lambda store: store.add(MAIL, PASSWORD)),
        (
            lambda store: store.invite(MAIL),
            lambda store: store.accept(store.invite(MAIL), MAIL, PASSWORD),
        ),
        (
            lambda store: store.invite(MAIL),
            lambda store: store.accept(store.invite(), MAIL.upper(), PASSWORD),
        ),
        (
            lambda store: store.invite_first(),
            lambda store: store.add("other@example.com", PASSWORD),
        ),
        (lambda store: store.invite_first(), lambda store: store.invite_first()),
        (
            lambda store: store.invite_first(),
            lambda store: store.accept(store.invite(), MAIL, PASSWORD),
        ),
        (
            lambda store: store.reset(store.add(MAIL, PASSWORD)),
            lambda store: store.set_password(store.find(MAIL), "a bell rings thrice"),
        ),
        (
            lambda store: store.reset(store.add(MAIL, PASSWORD)),
            lambda store: store.reset(store.find(MAIL)),
        ),
        (
            lambda store: store.reset(store.add(MAIL, PASSWORD)),
            lambda store: store.accept(store.reset(store.find(MAIL)), "", "a bell rings thrice"),
        ),
        (lambda store: store.reset(store.add(MAIL, PASSWORD)), lambda store: store.remove(MAIL)),
    ],
)
def test_a_link_serves_for_nothing_but_what_it_was_made_for(
    desk: Desk, make: Making, come_to_pass: Callable[[OperatorStore], object]
) -> None:
    """Once that has come to pass otherwise it is void, also when the operator is removed again."""
    secret = make(desk.store)
    assert desk.store.invitation(secret).expires_at > desk.at * 1000
    desk.at += 1
    come_to_pass(desk.store)
    for _ in range(2):
        with pytest.raises(InvitationError):
            desk.store.invitation(secret)
        with pytest.raises(InvitationError):
            desk.store.accept(secret, "eve@example.com", "another bell rings")
        assert desk.store.check(MAIL, "another bell rings") is None
        for operator in desk.store.list():
            desk.store.remove(operator.mail)


def test_an_invitation_for_anybody_serves_beside_others(desk: Desk) -> None:
    """What an operator handed out is no link for the first one: others may come before."""
    desk.store.add(MAIL, PASSWORD)
    secret = desk.store.invite()
    desk.store.add("other@example.com", PASSWORD)
    assert desk.store.accept(secret, "third@example.com", PASSWORD).mail == "third@example.com"
