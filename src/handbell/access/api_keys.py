"""API keys, with which back ends authenticate to the send server."""

import hmac
import math
import re
import secrets
import string
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Final, Literal, get_args

from sqlalchemy import RowMapping, Select, insert, select, update
from sqlalchemy.exc import IntegrityError

from handbell._text import nearest
from handbell.apps.app import App
from handbell.errors import AccessError, UnknownAppError, UnknownKeyError
from handbell.fixes import Action, Fix
from handbell.storage.database import Database
from handbell.storage.signals import Kind
from handbell.storage.tables import api_keys as keys_table
from handbell.storage.tables import apps as apps_table

Scope = Literal["send", "register", "administer"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)

CACHE_SECONDS: Final = 1.0
"""How long a key is cached as valid."""
USED_SECONDS: Final = 60.0
"""The shortest interval between two writes of a key's last use."""

_ALPHABET: Final = string.ascii_letters + string.digits
_PREFIX_ALPHABET: Final = string.ascii_lowercase + string.digits
_PREFIX_SIZE: Final = 8
_SECRET_SIZE: Final = 32
_KEY: Final = re.compile(r"(hbk_[a-z0-9]{8})_[A-Za-z0-9]{32}")
_MAX_NAME_LENGTH: Final = 200
_MOST_CACHED: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A stored API key without its secret.

    ``prefix`` is the visible part, ``hbk_1a2b3c4d``. ``scopes`` are the granted ones;
    :attr:`effective_scopes` adds implied ones. ``app`` is the app id in full and ``app_row`` its
    row, both None for a key of every app. Instants are in UNIX milliseconds.
    """

    id: int
    prefix: str
    name: str
    scopes: frozenset[Scope]
    app: str | None
    app_row: int | None
    created_at: int
    used_at: int | None
    revoked_at: int | None

    @property
    def effective_scopes(self) -> frozenset[Scope]:
        """Return the scopes and the scopes they imply: an administrator may send and register."""
        return frozenset(SCOPES) if "administer" in self.scopes else self.scopes


# Within the class, `list` is its method.
_ApiKeys = list[ApiKey]


class ApiKeyStore:
    """Stores API keys. ``now`` returns UNIX seconds, ``clock`` is monotonic.

    A key is random, so its SHA-256 is stored and no slow hash is needed. A revoked key is refused
    at once by the revoking process, by others when a signal has them :meth:`forget`, and after
    :data:`CACHE_SECONDS` in any case.
    """

    def __init__(
        self,
        database: Database,
        *,
        now: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._now = now
        self._clock = clock
        self._lock = threading.Lock()
        # By digest: until when it is considered valid.
        self._cache: dict[str, tuple[float, ApiKey]] = {}

    def add(self, name: str, scopes: Iterable[str], app: App | None = None) -> tuple[ApiKey, str]:
        """Create a key and return it with its secret, which is never shown again.

        Raises AccessError for an invalid name or scope.
        """
        name, wanted = _name(name), read_scopes(scopes)
        prefix, secret = _new_key()
        values = {
            "prefix": prefix,
            "digest": _digest(secret),
            "name": name,
            "scopes": ",".join(scope for scope in SCOPES if scope in wanted),
            "app_id": None if app is None else app.row,
            "created_at": self._milliseconds(),
        }
        with self._database.write() as connection:
            try:
                connection.execute(insert(keys_table).values(values))
            except IntegrityError:
                # Two prefixes collide once in a trillion keys.
                raise UnknownAppError(
                    f"The app {app.id if app else ''} is not there (any more)",
                    fix=Fix(Action.LIST_APPS, "See"),
                ) from None
        return self.find(prefix), secret

    def list(self, app: App | None = None) -> _ApiKeys:
        """Return the keys, the newest first, revoked ones included; optionally of one app."""
        statement = _selected().order_by(keys_table.c.id.desc())
        if app is not None:
            statement = statement.where(keys_table.c.app_id == app.row)
        with self._database.read() as connection:
            return [_api_key(row) for row in connection.execute(statement).mappings()]

    def find(self, prefix: str) -> ApiKey:
        """Return the key with this prefix. Raises UnknownKeyError when there is none."""
        with self._database.read() as connection:
            row = connection.execute(_selected(prefix)).mappings().one_or_none()
        if row is None:
            raise UnknownKeyError(
                f"There is no API key {prefix!r}", fix=Fix(Action.LIST_API_KEYS, "See")
            )
        return _api_key(row)

    def revoke(self, prefix: str) -> ApiKey:
        """Revoke a key permanently and return it; idempotent.

        Raises UnknownKeyError when there is none.
        """
        statement = (
            update(keys_table)
            .where(keys_table.c.prefix == prefix, keys_table.c.revoked_at.is_(None))
            .values(revoked_at=self._milliseconds())
        )
        with self._database.write() as connection:
            connection.execute(statement)
            self._database.signal(Kind.RULES)
        self.forget()
        return self.find(prefix)

    def forget(self) -> None:
        """Drop the cache: keys may have been revoked, or removed with their app."""
        with self._lock:
            self._cache.clear()

    def check(self, secret: str) -> ApiKey | None:
        """Return the valid key with this secret, or None; record its use."""
        digest = _digest(secret)
        with self._lock:
            until, cached = self._cache.get(digest, (-math.inf, None))
        asked_at = self._clock()
        if cached is not None and asked_at < until:
            return cached
        found = self._looked_up(secret, digest)
        if found is None:
            return None
        found = self._noted(found, self._now())
        with self._lock:
            if len(self._cache) >= _MOST_CACHED:
                self._cache.clear()
            self._cache[digest] = (asked_at + CACHE_SECONDS, found)
        return found

    def known(self, secret: str) -> ApiKey | None:
        """Return the key if it is cached as valid; never queries the database."""
        with self._lock:
            until, cached = self._cache.get(_digest(secret), (-math.inf, None))
        return cached if self._clock() < until else None

    def _looked_up(self, secret: str, digest: str) -> ApiKey | None:
        shape = _KEY.fullmatch(secret)
        if shape is None:
            return None
        with self._database.read() as connection:
            row = connection.execute(_selected(shape[1])).mappings().one_or_none()
        if row is None or not hmac.compare_digest(row["digest"], digest):
            return None
        return None if row["revoked_at"] is not None else _api_key(row)

    def _noted(self, key: ApiKey, now: float) -> ApiKey:
        if key.used_at is not None and abs(now - key.used_at / 1000) < USED_SECONDS:
            return key
        used = replace(key, used_at=int(now * 1000))
        statement = update(keys_table).where(keys_table.c.id == key.id).values(used_at=used.used_at)
        with self._database.write() as connection:
            connection.execute(statement)
        return used

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)


def read_scopes(scopes: Iterable[str]) -> frozenset[Scope]:
    """Parse scopes. Raises AccessError, listing the known ones, for an unknown one."""
    wanted = {scope.strip() for scope in scopes if scope.strip()}
    for given in sorted(wanted - set(SCOPES)):
        near = nearest(given, SCOPES)
        raise AccessError(
            f"There is no scope {given!r}",
            fix=f"Did you mean {near}?" if near else f"Use one of {', '.join(SCOPES)}",
        )
    if not wanted:
        raise AccessError("The key has no scope", fix=f"Use one or more of {', '.join(SCOPES)}")
    return frozenset(scope for scope in SCOPES if scope in wanted)


def _name(name: str) -> str:
    name = name.strip()
    if not name or len(name) > _MAX_NAME_LENGTH or not name.isprintable():
        raise AccessError(
            "The key's name cannot be used",
            fix=f"Use up to {_MAX_NAME_LENGTH} printable characters that say who holds it",
        )
    return name


def _new_key() -> tuple[str, str]:
    prefix = "hbk_" + _random(_PREFIX_ALPHABET, _PREFIX_SIZE)
    return prefix, f"{prefix}_{_random(_ALPHABET, _SECRET_SIZE)}"


def _random(alphabet: str, size: int) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(size))


def _digest(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _selected(prefix: str | None = None) -> Select[Any]:
    statement = select(keys_table, apps_table.c.public_id).join_from(
        keys_table, apps_table, isouter=True
    )
    return statement if prefix is None else statement.where(keys_table.c.prefix == prefix)


def _api_key(row: RowMapping) -> ApiKey:
    return ApiKey(
        id=row["id"],
        prefix=row["prefix"],
        name=row["name"],
        scopes=frozenset(scope for scope in SCOPES if scope in row["scopes"].split(",")),
        app=row["public_id"],
        app_row=row["app_id"],
        created_at=row["created_at"],
        used_at=row["used_at"],
        revoked_at=row["revoked_at"],
    )
