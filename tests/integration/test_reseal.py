"""The secret key of a running installation is replaced: no gap, and no secret is lost."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import jwt
import pytest
from cryptography.fernet import Fernet, InvalidToken
from pydantic import SecretStr
from sqlalchemy import Column, select, update

from handbell import Auth, PushNotification
from handbell.apps.sample_keys import make_credentials, make_key
from handbell.errors import HandbellError, SettingsError
from handbell.settings import Settings
from handbell.storage.installation import KEY, read_note
from handbell.storage.tables import SEALED, installation, metadata
from handbell.system import System

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
IDENTITY_SECRET: Final = "an identity secret of 32 characters"
_FERNET: Final = re.compile(r"gAAAA[\w-]{60,}={0,2}")
_APP: Final = "TEAM123456.com.sample.myapp"

pytestmark = pytest.mark.databases


def _name(column: Column[bytes]) -> str:
    return f"{column.table.name}.{column.name}"


class Fleet:
    """Machines with one database; ``system`` gives one with keys of its own."""

    def __init__(self, home: Path, url: str) -> None:
        self._home, self._url = home, url
        self._open: list[System] = []

    def settings(self, *keys: str) -> Settings:
        """Return the settings of a machine with these keys."""
        return Settings(
            home=self._home, database_url=self._url, secret_key=SecretStr(",".join(keys))
        )

    def system(self, *keys: str) -> System:
        """Return the system of a machine with these keys."""
        system = System(self.settings(*keys))
        self._open.append(system)
        return system

    def node(self, *keys: str) -> System:
        """Return a machine that runs, as far as its first heartbeat tells."""
        node = self.system(*keys)
        node.installation_key.check_once()
        node.presence.beat()
        return node

    def close(self) -> None:
        """Close what was opened."""
        for system in self._open:
            system.database.close()

    def fill(self, *keys: str) -> None:
        """Have a secret of every kind stored by whoever stores it."""
        system = self.system(*keys)
        app = system.apps.add(app_id=_APP, team_id="TEAM123456", bundle_id="com.sample.myapp")
        app = system.apps.set_ids(
            app, {"android_package": "com.sample", "web_origin": "https://example.com"}
        )
        for credential in make_credentials(app):
            system.apps.add_credential(app, credential)
        system.identities.set(
            app, proof="token", identity_key=IDENTITY_SECRET, store_url="https://example.com/a"
        )
        system.webhooks.add(app, "https://hooks.example.com/handbell")
        key = make_key("OTHER12345")
        unknown = Auth(
            bundle_id="com.other",
            team_id="OTHER12345",
            key_id=key.key_id,
            auth_key=key.private_key_pem().decode(),
        )
        with PushNotification(unknown, settings=self.settings(*keys)) as push:
            push.enqueue({"title": "Later"}, "ab" * 32, send_at=4e9)

    def sealed(self) -> dict[tuple[str, int], bytes]:
        """Return every sealed value, by its column and row."""
        found = {}
        with self._open[0].database.read() as connection:
            for column in SEALED:
                statement = select(column.table.c.id, column).where(column.is_not(None))
                for row, value in connection.execute(statement):
                    found[_name(column), row] = bytes(value)
        return found

    def everything(self) -> str:
        """Return all that the database holds, as text, but what is known to be sealed."""
        told = []
        with self._open[0].database.read() as connection:
            for table in metadata.sorted_tables:
                columns = [column for column in table.columns if column not in SEALED]
                told += [
                    repr(tuple(row))
                    for row in connection.execute(select(*columns))
                    if not (table is installation and row.name == KEY)
                ]
        return "\n".join(told)

    def note(self) -> bytes:
        """Return the note of the installation's key."""
        with self._open[0].database.read() as connection:
            return (read_note(connection, KEY) or "").encode()

    def put_back(self, place: tuple[str, int], value: bytes) -> None:
        """Write a sealed value where it was."""
        (column,) = (column for column in SEALED if _name(column) == place[0])
        statement = update(column.table).where(column.table.c.id == place[1])
        with self._open[0].database.write() as connection:
            connection.execute(statement.values({column.name: value}))


@pytest.fixture
def fleet(tmp_path: Path, database_url: str) -> Iterator[Fleet]:
    """Give machines with a new database."""
    with closing(Fleet(tmp_path / "home", database_url)) as fleet:
        yield fleet


def test_every_secret_is_sealed_again_and_opens_as_before(fleet: Fleet) -> None:
    """Each column of secrets that the tables have; with the new key alone all of it is there.

    A column that nothing here fills fails this test, and so does a secret that is kept elsewhere.
    """
    fleet.fill(OLD)
    before = fleet.sealed()
    assert {column for column, _ in before} == {_name(column) for column in SEALED}
    assert not _FERNET.search(fleet.everything())
    done = fleet.system(NEW, OLD).resealer.run()
    assert (done.resealed, done.opened, done.lost) == (len(before), len(before), {})
    after = fleet.sealed()
    for place, value in before.items():
        assert Fernet(NEW).decrypt(after[place]) == Fernet(OLD).decrypt(value), place
        with pytest.raises(InvalidToken):
            Fernet(OLD).decrypt(after[place])
    with pytest.raises(SettingsError, match="is not the installation's"):
        fleet.system(OLD).installation_key.check()
    _use(fleet.node(NEW))


def _use(system: System) -> None:
    """Use the secrets as sends, check-ups and devices do."""
    app = system.apps.find(_APP)
    assert system.apps.unusable(app) == {}
    assert len(system.apps.credentials(app)) == 3
    token = jwt.encode({"aud": app.id}, IDENTITY_SECRET, algorithm="HS256")
    with pytest.raises(HandbellError, match="no claim"):
        system.identities.check(app, token)


def test_what_was_left_is_sealed_by_the_next_run(fleet: Fleet) -> None:
    """Wherever the first one was interrupted; and once more, nothing is left to do."""
    fleet.fill(OLD)
    before = fleet.sealed()
    system = fleet.system(NEW, OLD)
    system.resealer.run()
    for place, value in before.items():
        fleet.put_back(place, value)
        done = system.resealer.run()
        assert (done.resealed, done.opened) == (1, len(before)), place
    assert system.resealer.run().resealed == 0


def test_a_running_fleet_changes_over_by_itself(fleet: Fleet) -> None:
    """A node seals with the former key until its next heartbeat; that is sealed again as well."""
    fleet.fill(OLD)
    node = fleet.node(OLD, NEW)
    app = node.apps.find(_APP)
    sealed_late: list[bytes] = []

    def follow(_seconds: float) -> None:
        node.apps.add_credential(app, make_key("TEAM123456"))
        known = fleet.sealed().values()
        sealed_late.extend(one for one in known if _opens(OLD, one))
        node.presence.beat()

    done = fleet.system(NEW, OLD).resealer.run(pause=follow)
    assert len(sealed_late) == 1
    assert done.opened == done.resealed == len(fleet.sealed())
    assert all(_opens(NEW, one) for one in [fleet.note(), *fleet.sealed().values()])
    node.apps.add_credential(app, make_key("TEAM123456"))
    assert all(_opens(NEW, one) for one in fleet.sealed().values())


def test_an_interrupted_run_leaves_a_fleet_that_works(fleet: Fleet) -> None:
    """Between the first page and the last node everything opens on every machine."""
    fleet.fill(OLD)
    node = fleet.node(OLD, NEW)

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fleet.system(NEW, OLD).resealer.run(pause=interrupt)
    for each in (node, fleet.node(OLD, NEW), fleet.node(NEW, OLD)):
        _use(each)
        each.presence.beat()
    assert fleet.system(NEW, OLD).resealer.run().resealed == 0


def _opens(key: str, sealed: bytes) -> bool:
    try:
        Fernet(key).decrypt(sealed)
    except InvalidToken:
        return False
    return True


def _without_new(fleet: Fleet) -> System:
    fleet.node(OLD)
    return fleet.system(NEW, OLD)


def _wrong_former(fleet: Fleet) -> System:
    return fleet.system(NEW, OTHER)


@pytest.mark.parametrize(
    ("prepare", "told"),
    [(_without_new, "do not have the key"), (_wrong_former, "is not the installation's")],
    ids=["a node without the new key", "another former key"],
)
def test_a_wrong_step_changes_nothing(
    fleet: Fleet, prepare: Callable[[Fleet], System], told: str
) -> None:
    """The error says what is missing and tells no key, and everything is as it was."""
    fleet.fill(OLD)
    system, before = prepare(fleet), (fleet.note(), fleet.sealed())
    with pytest.raises(SettingsError, match=told) as raised:
        system.resealer.run()
    assert not any(key in f"{raised.value} {raised.value.fix}" for key in (OLD, NEW, OTHER))
    assert (fleet.note(), fleet.sealed()) == before


def test_a_secret_that_no_key_opens_holds_nothing_up(fleet: Fleet) -> None:
    """It stays as it is and is named with its place; all others are sealed again."""
    fleet.fill(OLD)
    (place, *_), number = sorted(fleet.sealed()), len(fleet.sealed())
    lost = Fernet(OTHER).encrypt(b"x")
    fleet.put_back(place, lost)
    done = fleet.system(NEW, OLD).resealer.run()
    assert (done.opened, done.lost) == (number - 1, {place[0]: 1})
    assert fleet.sealed()[place] == lost


def test_a_node_without_the_key_seals_nothing_more(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    """One that was cut off meanwhile says so in its log, and is not ready; it seals nothing."""
    fleet.fill(OLD)
    node = fleet.node(OLD)
    app = node.apps.find(_APP)
    node.presence.end()
    fleet.system(NEW, OLD).resealer.run()
    before = fleet.sealed()
    with caplog.at_level(logging.ERROR):
        node.presence.beat()
        node.presence.beat()
    (said,) = [one.getMessage() for one in caplog.records]
    assert "Secret key replaced" in said
    with pytest.raises(SettingsError, match="is not the installation's"):
        node.apps.add_credential(app, make_key("TEAM123456"))
    assert fleet.sealed() == before


def test_a_new_key_in_front_changes_nothing_by_itself(fleet: Fleet) -> None:
    """Machines may be given the new key one by one, in any order, with starts in between."""

    async def start(*keys: str) -> None:
        system = System(fleet.settings(*keys))
        try:
            await system.engine.start()
        finally:
            await system.close()

    fleet.fill(OLD)
    before = fleet.note()
    for keys in ((OLD, NEW), (NEW, OLD), (OLD,)):
        asyncio.run(start(*keys))
        system: Any = fleet.system(*keys)
        system.apps.add_credential(system.apps.find(_APP), make_key("TEAM123456"))
    assert fleet.note() == before
    assert all(_opens(OLD, one) for one in fleet.sealed().values())
