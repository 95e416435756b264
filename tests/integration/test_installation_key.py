"""All machines of an installation need the same secret key: another one is told at the start."""

import asyncio
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import delete, select, update

from handbell.apps.sample_keys import make_key
from handbell.errors import SettingsError
from handbell.settings import Settings
from handbell.storage.database import Database
from handbell.storage.installation import KEY
from handbell.storage.tables import credentials, installation
from handbell.system import System

pytestmark = pytest.mark.databases

OLD, NEW, OTHER = (Fernet.generate_key().decode() for _ in range(3))
TEAM, BUNDLE = "TEAM123456", "com.sample.myapp"


class Machines:
    """Machines with one database, each with keys of its own."""

    def __init__(self, home: Path, url: str) -> None:
        self._home, self._url = home, url

    def system(self, *keys: str) -> System:
        """Return the system of a machine with these keys."""
        settings = Settings(
            home=self._home, database_url=self._url, secret_key=SecretStr(",".join(keys))
        )
        return System(settings)

    def start(self, *keys: str) -> None:
        """Start a sender there and stop it. Raises SettingsError where its key is another."""

        async def run() -> None:
            system = self.system(*keys)
            try:
                await system.engine.start()
            finally:
                await system.close()

        asyncio.run(run())

    def add_key(self, *keys: str) -> None:
        """Add an app's credential on a machine."""
        system = self.system(*keys)
        with closing(system.database):
            found = [one for one in system.apps.list() if one.bundle_id == BUNDLE]
            app = found[0] if found else system.apps.add(TEAM, BUNDLE)
            system.apps.add_credential(app, make_key(TEAM))

    def note(self) -> str | None:
        """Return what is noted of the key."""
        with closing(Database(self._url)) as database, database.read() as connection:
            wanted = select(installation.c.value).where(installation.c.name == KEY)
            return connection.scalar(wanted)

    def change(self, *statements: object) -> None:
        """Change the database."""
        with closing(Database(self._url)) as database, database.write() as connection:
            for statement in statements:
                connection.execute(statement)  # type: ignore[call-overload]


@pytest.fixture
def machines(tmp_path: Path, database_url: str) -> Machines:
    """Give machines with a new database."""
    return Machines(tmp_path / "home", database_url)


def test_the_first_start_notes_the_key_and_others_need_it(machines: Machines) -> None:
    """Another key is refused, with what to do; nothing of either key is said."""
    machines.start(OLD)
    machines.start(OLD)
    with pytest.raises(SettingsError, match="is not the installation's") as raised:
        machines.start(OTHER)
    assert "HANDBELL_SECRET_KEY" in str(raised.value)
    assert "copy its secret.key" in raised.value.fix
    assert not any(key in str(raised.value) for key in (OLD, OTHER))
    assert OLD not in str(machines.note())


def test_nothing_is_sealed_with_another_key(machines: Machines) -> None:
    """A command on a machine with another key adds no credential that no other one can open."""
    machines.add_key(OLD)
    with pytest.raises(SettingsError, match="is not the installation's"):
        machines.add_key(OTHER)
    machines.add_key(OLD)


def _forget_note(machines: Machines) -> None:
    machines.change(delete(installation).where(installation.c.name == KEY))


def _lose_one(machines: Machines) -> None:
    lost = Fernet(OTHER).encrypt(b"x")
    first = select(credentials.c.id).order_by(credentials.c.id).limit(1).scalar_subquery()
    machines.change(update(credentials).where(credentials.c.id == first).values(sealed=lost))


@pytest.mark.parametrize(
    ("prepare", "key", "is_right"),
    [
        ((_forget_note,), OLD, True),
        ((_forget_note,), OTHER, False),
        # One secret of a key that is lost does not hold up what the present key opens.
        ((_lose_one, _forget_note), OLD, True),
        ((_lose_one,), OTHER, False),
    ],
    # The keys are made anew in each process, and a name has to be the same in all of them.
    ids=["same key", "another key", "one secret lost", "noted key"],
)
def test_an_older_installation_notes_the_key_that_opens_its_secrets(
    machines: Machines,
    prepare: tuple[Callable[[Machines], None], ...],
    key: str,
    is_right: bool,  # noqa: FBT001 - of a table
) -> None:
    """At its first start after the upgrade; a key that opens nothing there is refused."""
    machines.add_key(OLD)
    machines.add_key(OLD)
    for step in prepare:
        step(machines)
    if is_right:
        machines.start(key)
        assert machines.note() is not None
        return
    with pytest.raises(SettingsError):
        machines.start(key)


def test_a_key_that_is_lost_is_replaced_on_purpose(machines: Machines) -> None:
    """Accepting this machine's key lets it start; what the lost one sealed stays closed."""
    machines.add_key(OLD)
    with pytest.raises(SettingsError, match="handbell db accept-key"):
        machines.start(NEW)
    system = machines.system(NEW)
    with closing(system.database):
        system.installation_key.accept()
        (app,) = system.apps.list()
        assert system.apps.unusable(app)
    machines.start(NEW)
    machines.add_key(NEW)
