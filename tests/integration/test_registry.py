import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from threading import Barrier
from typing import Any

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import Engine, delete, event, func, select
from tests.outcomes import Outcomes
from tests.standing_clock import StandingClock

from handbell.apps.app import App
from handbell.apps.store import AppStore
from handbell.apps.vault import Vault
from handbell.errors import ProofRequiredError, RegistryError, UnknownSessionError
from handbell.registry.recipient_lookup import BY_MAIL, BY_TOKEN
from handbell.registry.registration import DeviceDescription, Registered, Registration
from handbell.registry.session import Session
from handbell.registry.store import Registry
from handbell.storage.database import Database
from handbell.storage.tables import sessions

pytestmark = pytest.mark.databases

OWNER, OTHER = "owner@4d.com", "other@4d.com"
TOKEN = "ab" * 32
SECOND = 1000


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Yield a database that is ready."""
    with closing(Database.open(database_url)) as opened:
        yield opened


@pytest.fixture
def clock() -> StandingClock:
    """Return the clock of the registry."""
    return StandingClock(1_800_000_000.0)


@pytest.fixture
def registry(database: Database, clock: StandingClock) -> Registry:
    """Return an empty registry."""
    return Registry(database, now=clock)


@pytest.fixture
def outcomes(database: Database, clock: StandingClock) -> Outcomes:
    """Return what records the answers of push services."""
    return Outcomes(database, now=clock)


@pytest.fixture
def apps(database: Database) -> list[App]:
    """Add two apps."""
    store = AppStore(database, Vault([Fernet.generate_key()]))
    return [store.add("TEAM123456", "com.sample.shop"), store.add("TEAM123456", "com.sample.notes")]


@pytest.fixture
def app(apps: list[App]) -> App:
    """Return the first app."""
    return apps[0]


def open_sessions(database: Database) -> dict[tuple[int, str], int]:
    """Return how many proven sessions hold each token of each app: never more than one."""
    statement = (
        select(sessions.c.app_id, sessions.c.token, func.count())
        .where(sessions.c.status.in_(["active", "quarantined"]))
        .group_by(sessions.c.app_id, sessions.c.token)
    )
    with database.read() as connection:
        return {(row[0], row[1]): row[2] for row in connection.execute(statement)}


def test_a_device_is_registered(registry: Registry, app: App, clock: StandingClock) -> None:
    """Everything that the device said of itself is on its session."""
    session = registry.register(
        app,
        "Owner@4D.com",
        TOKEN.upper(),
        platform="iPadOS",
        environment="development",
        locale="fr-CH",
        time_zone="Europe/Zurich",
        device="An iPad",
        external_id="7023d9",
    )
    assert (session.mail, session.token, session.platform) == (OWNER, TOKEN, "ipados")
    assert (session.environment, session.status) == ("development", "active")
    assert (session.locale, session.time_zone) == ("fr-CH", "Europe/Zurich")
    assert (session.device, session.external_id) == ("An iPad", "7023d9")
    assert session.created_at == session.registered_at == clock.milliseconds
    assert (session.accepted_at, session.closed_at, session.reason) == (None, None, None)
    assert registry.session(session.id) == session


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"mail": "nobody"}, "not a mail address"),
        ({"mail": ""}, "not a mail address"),
        ({"token": "xyz"}, "not a device token"),
        ({"token": "abc" * 11}, "not a device token"),
        ({"token": "ab" * 3}, "not a device token"),
        ({"token": "ab" * 257}, "'abababababab…' is not a device token"),
        ({"token": ""}, "not a device token"),
        ({"platform": "symbian"}, "not a known platform"),
        ({"environment": "sandbox"}, "not a known environment"),
        ({"time_zone": "Europe/Zürich"}, "Did you mean Europe/Zurich"),
        ({"time_zone": "../etc/passwd"}, "not a time zone"),
        ({"status": "closed"}, "cannot be registered as"),
        ({"device": "d" * 513}, "device of a session cannot be stored"),
        ({"locale": "\ud800"}, "locale of a session cannot be stored"),
    ],
)
def test_what_cannot_be_used_is_refused(
    registry: Registry, app: App, given: dict[str, str], what: str
) -> None:
    """The error says what is wrong, and nothing is written."""
    given = dict(given)  # those of the table serve each database
    mail, token = given.pop("mail", OWNER), given.pop("token", TOKEN)
    with pytest.raises(RegistryError, match=what):
        registry.register(app, mail, token, **given)  # type: ignore[arg-type]
    assert registry.sessions(app) == []
    assert registry.users(app) == []


@pytest.mark.parametrize("size", [4, 32, 80, 256])
def test_a_token_may_have_any_size(registry: Registry, app: App, size: int) -> None:
    """Apple promises no length: 8 to 512 hex digits are taken."""
    assert registry.register(app, OWNER, "0f" * size).token == "0f" * size


@pytest.mark.parametrize("app_row", [None, 77])
def test_an_app_that_is_not_there_is_named(registry: Registry, app_row: int | None) -> None:
    """Registering needs a stored app; looking something up without one finds nothing."""
    stranger = App(team_id="TEAM123456", bundle_id="com.sample.other", row=app_row)
    with pytest.raises(RegistryError, match="handbell app add"):
        registry.register(stranger, OWNER, TOKEN)
    assert registry.sessions_by_mail(stranger, [OWNER]) == {}
    assert registry.holders(stranger, [TOKEN]) == {}
    assert registry.page_of_active(stranger) == []
    assert registry.mail_addresses(stranger) == registry.device_tokens(stranger) == []


def test_one_token_has_one_owner(registry: Registry, app: App, clock: StandingClock) -> None:
    """A token that moves to another user closes the former session in the same step."""
    former = registry.register(app, OWNER, TOKEN)
    clock.at += 60
    session = registry.register(app, OTHER, TOKEN)
    closed = registry.session(former.id)
    assert (closed.status, closed.reason, closed.closed_at) == (
        "closed",
        "moved",
        clock.milliseconds,
    )
    assert registry.holders(app, [TOKEN])[TOKEN].id == session.id
    assert [one.id for one in registry.page_of_active(app)] == [session.id]


def test_a_token_that_comes_back_opens_the_former_session(registry: Registry, app: App) -> None:
    """There and back: the first opens again, the other is closed, and there is no third."""
    first = registry.register(app, OWNER, TOKEN)
    registry.register(app, OTHER, TOKEN)
    again = registry.register(app, OWNER, TOKEN)
    assert (again.id, again.status, again.reason, again.closed_at) == (
        first.id,
        "active",
        None,
        None,
    )
    assert [one.status for one in registry.sessions_of(app, OTHER)] == ["closed"]
    assert len(registry.sessions(app)) == 2


def test_another_app_may_have_the_same_token(registry: Registry, apps: list[App]) -> None:
    """Owners are per app: nothing moves between apps."""
    first, second = (
        registry.register(apps[0], OWNER, TOKEN),
        registry.register(apps[1], OTHER, TOKEN),
    )
    assert registry.session(first.id).status == registry.session(second.id).status == "active"


@pytest.mark.parametrize(
    "story",
    [
        ("active", "active", "active"),
        ("active", "pending", "active"),
        ("pending", "pending", "pending"),
        ("pending", "active", "active"),
        ("quarantined", "active", "active"),
        ("quarantined", "pending", "active"),
        ("closed", "active", "active"),
        ("closed", "pending", "pending"),
    ],
)
def test_a_repeat_refreshes_the_session(
    registry: Registry, app: App, clock: StandingClock, story: tuple[str, str, str]
) -> None:
    """What was proven stays proven, a quarantine ends, and a closed session proves itself anew."""
    before, repeat, after = story
    session = registry.register(
        app, OWNER, TOKEN, status="pending" if before == "pending" else "active", device="phone"
    )
    if before == "quarantined":
        registry.quarantine(session, reason="BadDeviceToken")
    if before == "closed":
        registry.close(session, "logout")
    assert registry.session(session.id).status == before
    clock.at += 60
    repeated = registry.register(app, OWNER, TOKEN, status=repeat, locale="de")
    assert (repeated.id, repeated.status, repeated.reason) == (session.id, after, None)
    assert repeated.registered_at == clock.milliseconds
    assert repeated.created_at == session.created_at
    assert (repeated.device, repeated.locale) == ("phone", "de")


def test_a_claim_takes_nothing_from_the_owner(registry: Registry, app: App) -> None:
    """Who registers without a proof has a pending session, and the owner is reached as before."""
    owner = registry.register(app, OWNER, TOKEN)
    claim = registry.register(app, OTHER, TOKEN, status="pending")
    assert [one.id for one in registry.page_of_active(app)] == [owner.id]
    assert registry.holders(app, [TOKEN])[TOKEN].id == owner.id
    assert registry.latest_by_token(app, [TOKEN]) == {TOKEN: owner}
    registry.close(owner, "logout")
    assert registry.holders(app, [TOKEN])[TOKEN].id == claim.id


def test_the_token_moves_at_the_moment_of_the_proof(
    registry: Registry, app: App, clock: StandingClock
) -> None:
    """The former owner's session is closed in the transaction that makes the other one active."""
    owner = registry.register(app, OWNER, TOKEN)
    claim = registry.register(app, OTHER, TOKEN, status="pending")
    clock.at += 60
    proven = registry.activate(claim)
    assert proven is not None
    assert (proven.session.id, proven.session.status, proven.moved) == (
        claim.id,
        "active",
        (owner.id,),
    )
    closed = registry.session(owner.id)
    assert (closed.status, closed.reason, closed.closed_at) == (
        "closed",
        "moved",
        clock.milliseconds,
    )


@pytest.mark.parametrize("state", ["active", "quarantined", "closed"])
def test_a_person_who_proves_a_device_again_keeps_the_session(
    registry: Registry, outcomes: Outcomes, app: App, state: str
) -> None:
    """The former session goes on under the new secret, whatever became of it in between."""
    former = registry.register(app, OWNER, TOKEN, environment="development", device="phone")
    outcomes.accepted([former.id])
    if state == "quarantined":
        registry.quarantine(former, reason="BadDeviceToken")
    if state == "closed":
        registry.close(former, "logout")
    again = claim_of(OWNER, app_version="2.0", secret_digest="digest")
    claim = registry.claim(app, again)
    assert claim.id != former.id
    assert registry.session(former.id).status == state
    proven = registry.activate(claim)
    assert proven is not None
    assert proven.moved == ()
    assert (proven.session.id, proven.session.status) == (former.id, "active")
    assert (proven.session.device, proven.session.app_version) == ("phone", "2.0")
    assert proven.session.environment == "development"
    assert registry.session_by_secret(app, "digest") == proven.session
    # The device goes on calling it what it was told.
    assert registry.session_by_secret(app, "digest", claim.id) == proven.session
    assert registry.session_by_secret(app, "digest", claim.id + 1) is None
    assert len(registry.sessions(app)) == 1


def claim_of(mail: str, token: str = TOKEN, **about: Any) -> Registration:
    """Return a registration that is not proven."""
    return Registration.read(mail, token, status="pending", at=1, **about)


def test_a_session_id_is_never_given_out_again(
    registry: Registry, app: App, database: Database
) -> None:
    """What waits for a removed person's session must not go to whoever registers next."""
    first = registry.register(app, OWNER, TOKEN)
    with database.write() as connection:
        connection.execute(delete(sessions).where(sessions.c.id == first.id))
    assert registry.register(app, OTHER, TOKEN).id > first.id


def test_every_claim_is_a_session_of_its_own(registry: Registry, app: App) -> None:
    """Each waits for its own proof, and only what was proven counts."""
    first = registry.claim(app, claim_of(OWNER, secret_digest="first"))
    second = registry.claim(app, claim_of(OWNER, secret_digest="second"))
    assert first.id != second.id
    assert registry.activate(second) is not None
    assert [one.status for one in registry.sessions_of(app, OWNER)].count("pending") == 1
    proven = registry.activate(first)
    assert proven is not None
    assert proven.session.id == second.id
    assert registry.session_by_secret(app, "second") is None
    assert registry.session_by_secret(app, "first") == proven.session


def test_a_claimant_does_not_speak_for_what_another_proved(registry: Registry, app: App) -> None:
    """A back end that registers a claimed device voids the secret that came with the claim."""
    claim = registry.claim(app, claim_of(OWNER, secret_digest="guess"))
    session = registry.register(app, OWNER, TOKEN)
    assert (session.id, session.status) == (claim.id, "active")
    assert registry.session_by_secret(app, "guess") is None


@pytest.mark.parametrize(
    ("end", "is_heard"),
    [
        (lambda registry, _outcomes, _, one: registry.close(one, "closed"), False),
        (lambda registry, _outcomes, app, _: registry.register(app, OTHER, TOKEN), False),
        (lambda _, outcomes, _app, one: outcomes.gone(one), True),
        (lambda registry, _, _app, one: registry.quarantine(one, reason="BadDeviceToken"), True),
    ],
    ids=["logged out", "moved", "gone", "quarantined"],
)
def test_a_secret_is_void_after_a_logout_and_a_move(
    registry: Registry,
    outcomes: Outcomes,
    app: App,
    end: Callable[[Registry, Outcomes, App, Session], object],
    is_heard: bool,  # noqa: FBT001
) -> None:
    """A device whose push service called it gone comes back; one that left does not."""
    first = registry.claim(app, claim_of(OWNER, secret_digest="mine"))
    registry.activate(first)
    end(registry, outcomes, app, first)
    assert registry.session(first.id).status != "active"
    renewed = registry.renew(app, "mine", DeviceDescription())
    assert (renewed is not None) is is_heard
    assert registry.session(first.id).status == ("active" if is_heard else "closed")


def test_a_new_token_keeps_the_proof(registry: Registry, app: App, clock: StandingClock) -> None:
    """A device that got a new token stays its person's; what is another's takes a proof."""
    registry.register(app, OTHER, "ef" * 32)
    own = registry.register(app, OWNER, "cd" * 32)
    first = registry.admit(app, claim_of(OWNER, secret_digest="mine")).session
    assert registry.activate(first) is not None
    clock.at += 60
    about = DeviceDescription.read(app_version="2.1", os_version="18.2")
    with pytest.raises(ProofRequiredError):
        registry.renew(app, "mine", about, address="EF" * 32)
    renewed = registry.renew(app, "mine", about, address="CD" * 32)
    assert renewed is not None
    assert renewed.moved == (own.id,)
    assert (renewed.session.id, renewed.session.token) == (first.id, "cd" * 32)
    assert (renewed.session.app_version, renewed.session.os_version) == ("2.1", "18.2")
    assert renewed.session.registered_at == clock.milliseconds
    assert registry.session(own.id).reason == "moved"


def test_a_claim_that_is_renewed_owns_nothing(registry: Registry, app: App) -> None:
    """A pending device may repeat itself and name another token: it takes it from nobody."""
    owner = registry.register(app, OTHER, "cd" * 32)
    registry.claim(app, claim_of(OWNER, secret_digest="mine"))
    renewed = registry.renew(app, "mine", DeviceDescription(), address="cd" * 32)
    assert renewed is not None
    assert (renewed.session.status, renewed.moved) == ("pending", ())
    assert registry.session(owner.id).status == "active"


def test_a_correction_says_nothing_of_the_device(
    registry: Registry, app: App, apps: list[App], clock: StandingClock
) -> None:
    """What an operator corrects is written, and the session stays as it was."""
    session = registry.register(app, OWNER, TOKEN)
    registry.quarantine(session, reason="BadDeviceToken")
    at = clock.milliseconds
    clock.at += 60
    changed = registry.change(app, session.id, DeviceDescription.read(environment="development"))
    assert (changed.session.environment, changed.session.status) == ("development", "quarantined")
    assert changed.session.registered_at == at
    with pytest.raises(UnknownSessionError):
        registry.change(apps[1], session.id, DeviceDescription())
    with pytest.raises(UnknownSessionError):
        registry.session_of_app(apps[1], session.id)
    registry.close(session, "closed")
    with pytest.raises(RegistryError, match="is closed"):
        registry.change(app, session.id, DeviceDescription(), address=TOKEN)


def test_a_learnt_environment_is_kept(registry: Registry, outcomes: Outcomes, app: App) -> None:
    """A repeat that names no environment keeps where the token turned out to live."""
    session = registry.register(app, OWNER, TOKEN)
    assert session.environment == "production"
    outcomes.moved(session, "development")
    assert registry.register(app, OWNER, TOKEN).environment == "development"
    assert registry.register(app, OWNER, TOKEN, environment="twin").environment == "twin"


def test_an_older_registration_does_not_turn_back_the_clock(registry: Registry, app: App) -> None:
    """What is imported late never makes a device look as if it had not been seen since."""
    session = registry.register(app, OWNER, TOKEN)
    earlier = session.registered_at - 60 * SECOND
    assert registry.register(app, OWNER, TOKEN, registered_at=earlier) == session


def test_a_session_is_closed_once(registry: Registry, app: App, clock: StandingClock) -> None:
    """The first reason and instant stay."""
    session = registry.register(app, OWNER, TOKEN)
    assert registry.close(session, "logout") is True
    at = clock.milliseconds
    clock.at += 60
    assert registry.close(session.id, "again") is False
    assert registry.session(session.id).reason == "logout"
    assert registry.session(session.id).closed_at == at


@pytest.mark.parametrize(("seconds", "closes"), [(-1, False), (0, False), (1, True), (None, True)])
def test_a_device_that_came_back_keeps_its_session(
    registry: Registry,
    outcomes: Outcomes,
    app: App,
    seconds: int | None,
    closes: bool,  # noqa: FBT001
) -> None:
    """A push service's "gone since" counts only when it is later than the last registration."""
    session = registry.register(app, OWNER, TOKEN)
    since = None if seconds is None else session.registered_at + seconds * SECOND
    assert outcomes.gone(session, since=since) is closes
    assert registry.session(session.id).status == ("closed" if closes else "active")


def test_only_an_active_session_is_quarantined(registry: Registry, app: App) -> None:
    """A pending or closed session is never sent to and stays what it is."""
    pending = registry.register(app, OWNER, TOKEN, status="pending")
    assert registry.quarantine(pending, reason="BadDeviceToken") is False
    assert registry.activate(pending) is not None
    assert registry.activate(pending) is None
    assert registry.quarantine(pending, reason="BadDeviceToken") is True
    assert registry.session(pending.id).reason == "BadDeviceToken"


def test_an_unknown_session_is_an_error(registry: Registry) -> None:
    """Closing what is not there changes nothing; asking for it is an error."""
    assert registry.close(7, "logout") is False
    with pytest.raises(RegistryError, match="no session 7"):
        registry.session(7)


def test_sessions_are_found_by_mail(registry: Registry, apps: list[App]) -> None:
    """In bulk, under the spelling that was asked for, with every status, the newest first."""
    app, other = apps
    for number in range(3):
        registry.register(app, OWNER, f"{number:08x}", registered_at=number)
    registry.close(registry.sessions_of(app, OWNER)[0], "logout")
    registry.register(other, OTHER, TOKEN)
    found = registry.sessions_by_mail(app, ["OWNER@4d.com", OWNER, OTHER, "not a mail"])
    assert set(found) == {"OWNER@4d.com", OWNER}
    assert [one.token for one in found[OWNER]] == ["00000002", "00000001", "00000000"]
    assert [one.status for one in found["OWNER@4d.com"]] == ["closed", "active", "active"]
    assert registry.sessions_of(app, "OWNER@4D.COM") == found[OWNER]
    assert registry.sessions_of(app, OTHER) == []


def test_the_holder_of_a_token_is_found(registry: Registry, app: App) -> None:
    """Only the session that holds a token is found; the last one is, closed or not."""
    registry.register(app, OWNER, TOKEN)
    session = registry.register(app, OTHER, TOKEN)
    held = registry.holders(app, [TOKEN, "cd" * 32])
    assert {token: one.id for token, one in held.items()} == {TOKEN: session.id}
    registry.close(session, "logout")
    assert registry.holders(app, [TOKEN]) == {}
    assert registry.latest_by_token(app, [TOKEN])[TOKEN].mail == OTHER


def test_everybody_is_read_in_pages(registry: Registry, apps: list[App]) -> None:
    """Each active session of the app is on one page, in order, and nothing else is."""
    app, other = apps
    expected = []
    for number in range(25):
        session = registry.register(
            app, f"u{number}@4d.com", f"{number:08x}", status="pending" if number % 5 else "active"
        )
        if not number % 5:
            expected.append((session.id, session.token, session.environment, session.mail))
    registry.register(other, OWNER, TOKEN)
    pages, after = [], 0
    while page := registry.page_of_active(app, after_id=after, limit=2):
        pages.append(page)
        after = page[-1].id
    assert [len(page) for page in pages] == [2, 2, 1]
    assert [tuple(one[:4]) for page in pages for one in page] == expected


def test_a_bulk_is_larger_than_what_one_statement_takes(registry: Registry, app: App) -> None:
    """Thousands of names are looked up in portions."""
    registry.register(app, OWNER, TOKEN)
    names = [f"u{number}@4d.com" for number in range(2500)]
    assert set(registry.sessions_by_mail(app, [*names, OWNER])) == {OWNER}


def test_accepted_is_noted_in_bulk(
    registry: Registry, outcomes: Outcomes, app: App, clock: StandingClock
) -> None:
    """Sessions that accepted a push say when, and no others."""
    ids = [registry.register(app, OWNER, f"{number:08x}").id for number in range(3)]
    outcomes.accepted(ids[:2])
    accepted = [registry.session(one).accepted_at for one in ids]
    assert accepted == [clock.milliseconds, clock.milliseconds, None]


def test_people_and_devices_are_listed(registry: Registry, apps: list[App]) -> None:
    """Mails of everybody known, tokens of active sessions, each sorted and of this app alone."""
    app, other = apps
    registry.register(app, OTHER, "bb" * 4)
    registry.register(app, OTHER, "aa" * 4)
    registry.register(app, OWNER, "cc" * 4, status="pending")
    registry.register(other, "third@4d.com", "dd" * 4)
    assert registry.mail_addresses(app) == [OTHER, OWNER]
    assert [user.mail for user in registry.users(other)] == ["third@4d.com"]
    assert registry.device_tokens(app) == ["aa" * 4, "bb" * 4]
    assert len(registry.sessions(app)) == 3
    assert [one.mail for one in registry.sessions(app, status="pending")] == [OWNER]


@pytest.mark.parametrize("seed", range(6))
def test_many_at_once_come_to_the_same_as_one_after_the_other(
    registry: Registry, apps: list[App], seed: int
) -> None:
    """Whatever the mixture of people, tokens and states: the bulk decides as single steps do."""
    chance = random.Random(seed)  # noqa: S311 - a shuffle, not a secret
    for turn in range(12):
        batch = [
            Registration.read(
                f"u{chance.randrange(4)}@4d.com",
                f"{chance.randrange(5):08x}",
                status=chance.choice(["active", "active", "pending"]),
                at=turn * 100 + number,
                locale=chance.choice([None, "de", "fr"]),
                environment=chance.choice([None, "development"]),
            )
            for number in range(chance.randrange(1, 12))
        ]
        for one in batch:
            registry.admit(apps[0], one)
        registry.admit_many(apps[1], batch)
        for number in chance.sample(range(5), 2):
            for app in apps:
                held = registry.holders(app, [f"{number:08x}"])
                for holder in held.values():
                    if number % 2:
                        registry.close(holder.id, "closed")
                    else:
                        registry.quarantine(holder.id, reason="BadDeviceToken")
        assert _story(registry, apps[0]) == _story(registry, apps[1])


def _story(registry: Registry, app: App) -> list[tuple[Any, ...]]:
    return sorted(
        (one.mail, one.token, one.status, one.reason or "", one.locale or "", one.environment,
         one.registered_at)
        for one in registry.sessions(app)
    )  # fmt: skip


def test_of_two_who_prove_one_token_at_once_one_owns_it(
    registry: Registry, app: App, database: Database
) -> None:
    """Users prove the same device in the same moment: one stays active, the others have moved."""
    for turn in range(5):
        token = f"{turn:08x}"
        claims = [registry.claim(app, claim_of(f"u{one}@4d.com", token)) for one in range(4)]
        together = Barrier(len(claims))

        def prove(claim: Session, together: Barrier = together) -> Registered | None:
            together.wait()
            return registry.activate(claim)

        with ThreadPoolExecutor(len(claims)) as pool:
            proven = list(pool.map(prove, claims))
        moved = [session for one in proven if one is not None for session in one.moved]
        assert len(moved) == len(set(moved)) == len(claims) - 1
        (owner,) = {claim.id for claim in claims} - set(moved)
        assert registry.holders(app, [token])[token].id == owner
        assert [registry.session(one).status for one in moved] == ["closed"] * len(moved)
    assert set(open_sessions(database).values()) == {1}


def test_threads_never_make_two_owners(registry: Registry, app: App, database: Database) -> None:
    """Many threads register few tokens for few users at once: each token ends with one owner."""

    def register(seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 - a shuffle, not a secret
        for _ in range(25):
            mail, token = f"u{chance.randrange(4)}@4d.com", f"{chance.randrange(3):08x}"
            registry.register(app, mail, token, status=chance.choice(["active", "pending"]))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(register, range(8)))
    assert set(open_sessions(database).values()) == {1}
    assert len(registry.users(app)) == 4


RACER = """
import json, sys
from handbell.apps.app import App
from handbell.storage.database import Database
from handbell.registry.store import Registry
url, row, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
app = App(team_id="TEAM123456", bundle_id="com.sample.shop", row=row)
database = Database.open(url, wait=30)
registry = Registry(database)
print("ready", flush=True)
sys.stdin.readline()
for turn in range(50):
    registry.register(app, f"u{(number + turn) % 4}@4d.com", f"{turn % 3:08x}")
database.close()
"""


def test_processes_never_make_two_owners(
    app: App, database: Database, database_url: str, registry: Registry
) -> None:
    """Several processes fight for the same tokens: each ends with one owner."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, database_url, str(app.row), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    for racer in racers:
        racer.communicate(timeout=50)
    assert [racer.returncode for racer in racers] == [0] * 4
    assert list(open_sessions(database).values()) == [1, 1, 1]
    # However often a token went to and fro, a user has one session for it.
    assert len(registry.sessions(app)) == 12


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Collect what is really sent to the database."""
    seen: list[tuple[str, Any]] = []

    def note(*call: Any) -> None:
        seen.append((call[2], call[3]))

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


_MAIL_INDEXES = ("(app_id=? AND mail=?)", "ix_sessions_user_id")
_TOKEN_INDEXES = ("uq_sessions_owner", "ix_sessions_claim", "users USING INTEGER PRIMARY KEY")


@pytest.mark.databases("sqlite")
def test_the_hot_path_searches_by_index(registry: Registry, app: App, database: Database) -> None:
    """No query of a send or a registration walks through a whole table."""
    with statements() as seen:
        registry.register(app, OWNER, TOKEN)
        registry.register(app, OTHER, TOKEN)
        registry.sessions_by_mail(app, [OWNER, OTHER])
        registry.page_of_active(app, after_id=5)
    selects = [(sql, values) for sql, values in seen if sql.startswith("SELECT")]
    assert len(selects) > 8
    with database.read() as connection:
        for sql, values in selects:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all()
            steps = [row[3] for row in plan]
            assert not [step for step in steps if step.startswith("SCAN")], (sql, steps)
            if "status IN" in sql and "token = " in sql:
                assert "uq_sessions_owner (app_id=? AND token=? AND service=?)" in steps[0]
            if "UNION ALL" in sql:
                assert [step for step in steps if "ix_sessions_gone" in step], steps
                assert [step for step in steps if "ix_sessions_claim" in step], steps
            elif (
                "status = 'pending'" in sql
                and "token" in sql
                and "ORDER BY sessions.status" not in sql
            ):
                assert "ix_sessions_claim (app_id=? AND token=?)" in steps[0]
        for query, used in ((BY_MAIL, _MAIL_INDEXES), (BY_TOKEN, _TOKEN_INDEXES)):
            told = query.explain(connection, app=1, wanted=[])
            searches = [step for step in told if step.startswith("SEARCH")]
            assert [place for place in used if not any(place in step for step in searches)] == []
            assert len(searches) == len(used)
            if "status = ?" in sql:
                assert "ix_sessions_app_id_status (app_id=? AND status=? AND id>?)" in steps[0]
