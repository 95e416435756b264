"""API keys and the audit trail in the database."""

import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.standing_clock import StandingClock
from tests.stored import stored_in

from handbell.access.api_keys import CACHE_SECONDS, USED_SECONDS, ApiKeyStore
from handbell.access.audit import AuditTrail
from handbell.errors import AccessError, UnknownAppError, UnknownKeyError
from handbell.settings import Settings
from handbell.storage.database import Database
from handbell.system import System


@pytest.fixture
def clock() -> StandingClock:
    """Give a clock."""
    return StandingClock(1_700_000_000.0)


@pytest.fixture
def system(tmp_path: Path, clock: StandingClock) -> Iterator[System]:
    """Give a system without apps."""
    made = System(Settings.load(home=tmp_path), now=clock, clock=clock)
    yield made
    made.database.close()


@pytest.fixture
def elsewhere(system: System, clock: StandingClock) -> Iterator[ApiKeyStore]:
    """Give the store of another process."""
    with closing(Database.open(system.settings.database_url)) as database:
        yield ApiKeyStore(database, now=clock, clock=clock)


def test_a_key_is_shown_once_and_stored_as_a_digest(system: System) -> None:
    """The key has a prefix that is shown again; neither the store nor the file holds the key."""
    key, secret = system.api_keys.add(" the shop ", ["send", "register"])
    assert re.fullmatch(r"hbk_[a-z0-9]{8}_[A-Za-z0-9]{32}", secret)
    assert secret.startswith(key.prefix + "_")
    assert key.name == "the shop"
    assert key.scopes == {"send", "register"}
    assert system.api_keys.list() == [key]
    path = system.database.path
    assert path is not None
    assert secret[-32:].encode() not in stored_in(path.parent)


def test_only_the_key_itself_is_taken(system: System) -> None:
    """A prefix with another secret, another prefix, and nonsense are not valid."""
    key, secret = system.api_keys.add("shop", ["send"])
    assert (checked := system.api_keys.check(secret))
    assert checked.prefix == key.prefix
    wrong = [
        key.prefix,
        f"{key.prefix}_{'A' * 32}",
        f"hbk_00000000_{secret[-32:]}",
        secret + "x",
        secret.upper(),
        "",
        "\ud800",
        "hbk_" + "é" * 8 + "_" + secret[-32:],
    ]
    assert [system.api_keys.check(text) for text in wrong] == [None] * len(wrong)
    assert [system.api_keys.known(text) for text in wrong] == [None] * len(wrong)


def test_administer_includes_the_other_scopes(system: System) -> None:
    """What a key may do is what it was given, and all of it where it administers."""
    key, _ = system.api_keys.add("shop", ["administer"])
    assert key.scopes == {"administer"}
    assert key.effective_scopes == {"administer", "send", "register"}
    other, _ = system.api_keys.add("shop", ["send"])
    assert other.effective_scopes == {"send"}


def test_a_revoked_key_is_refused_at_once_here_and_within_a_second_elsewhere(
    system: System, elsewhere: ApiKeyStore, clock: StandingClock
) -> None:
    """The process that revokes forgets the key; another one takes it for a moment more."""
    key, secret = system.api_keys.add("shop", ["send"])
    assert system.api_keys.check(secret)
    assert elsewhere.check(secret)
    revoked = system.api_keys.revoke(key.prefix)
    assert revoked.revoked_at == clock.milliseconds
    assert system.api_keys.known(secret) is None
    assert system.api_keys.check(secret) is None
    assert elsewhere.check(secret)
    clock.at += CACHE_SECONDS
    assert elsewhere.known(secret) is None
    assert elsewhere.check(secret) is None
    clock.at += 100
    assert system.api_keys.revoke(key.prefix) == revoked


def test_the_last_use_is_written_once_a_minute_at_most(
    system: System, clock: StandingClock
) -> None:
    """A busy key costs a write a minute, and its last use is right to the minute."""
    key, secret = system.api_keys.add("shop", ["send"])
    assert key.used_at is None
    first = clock.at
    for _ in range(30):
        assert system.api_keys.check(secret)
        clock.at += USED_SECONDS / 31
    assert system.api_keys.find(key.prefix).used_at == int(first * 1000)
    clock.at += USED_SECONDS
    system.api_keys.check(secret)
    assert system.api_keys.find(key.prefix).used_at == clock.milliseconds


def test_a_key_of_an_app_goes_with_it(system: System, clock: StandingClock) -> None:
    """A key that serves one app names it, and is gone with the app."""
    app = system.apps.add("TEAM123456", "com.sample.myapp")
    key, secret = system.api_keys.add("shop", ["send"], app)
    system.api_keys.add("all", ["send"])
    assert (key.app, key.app_row) == (app.id, app.row)
    assert system.api_keys.list(app) == [key]
    assert len(system.api_keys.list()) == 2
    system.apps.remove(app)
    clock.at += CACHE_SECONDS
    assert system.api_keys.check(secret) is None
    with pytest.raises(UnknownAppError):
        system.api_keys.add("late", ["send"], app)


@pytest.mark.parametrize("scopes", [[], ["sned"], ["send", "root"], [" "]])
def test_an_unknown_scope_is_refused(system: System, scopes: list[str]) -> None:
    """A scope that is none is an error that names the known ones."""
    with pytest.raises(AccessError) as caught:
        system.api_keys.add("shop", scopes)
    assert "send" in caught.value.fix


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 201])
def test_a_name_that_cannot_be_shown_is_refused(system: System, name: str) -> None:
    """A key has a name that fits on a line."""
    with pytest.raises(AccessError):
        system.api_keys.add(name, ["send"])


def test_a_key_that_is_not_there_is_an_error(system: System) -> None:
    """Neither found nor revoked: 404."""
    with pytest.raises(UnknownKeyError):
        system.api_keys.revoke("hbk_00000000")


def test_the_trail_is_read_from_its_end(system: System, clock: StandingClock) -> None:
    """Entries come newest first, in pages, and by app, action and actor."""
    trail = AuditTrail(system.database, now=clock)
    app = "TEAM123456.com.sample.myapp"
    trail.note("key hbk_1a2b3c4d", "app.add", app, app=app)
    clock.at += 1
    trail.note("test@4d.com", "session.close", "7", app=app, detail="logged out")
    trail.note("test@4d.com", "session.release", "8")
    assert [entry.action for entry in trail.list()] == [
        "session.release",
        "session.close",
        "app.add",
    ]
    newest = trail.list(limit=1)
    assert newest[0].at == clock.milliseconds
    assert [entry.subject for entry in trail.list(before=newest[0].id, limit=1)] == ["7"]
    assert len(trail.list(app=app)) == 2
    assert len(trail.list(action="session.")) == 2
    assert trail.list(action="session") == []
    assert len(trail.list(actor="test@4d.com", action="session.close")) == 1
