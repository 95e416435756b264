"""The stored templates of every app."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Row, bindparam, delete, insert, select, update

from handbell._text import nearest
from handbell.creation.notification import Notification
from handbell.creation.template import Template, is_name, read_template_use
from handbell.errors import UnknownAppError, UnknownTemplateError
from handbell.fixes import Action, Fix
from handbell.storage.database import Database
from handbell.storage.statements import Statement
from handbell.storage.tables import templates

from .app import App


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTemplate:
    """A stored template; instants are in UNIX milliseconds."""

    template: Template
    created_at: int
    updated_at: int


_CONTENT: Final = Statement(
    select(templates.c.content).where(
        templates.c.app_id == bindparam("app"), templates.c.name == bindparam("name")
    )
)

# Within the class `list` is its method.
_Stored = list[StoredTemplate]


class TemplateStore:
    """Templates by app and name. ``now`` returns UNIX seconds."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now = now
        self._held = threading.local()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Look up each template once for all that this thread renders while the block runs.

        For sends that are read together: they see one version of each template.
        """
        self._held.found = {}
        try:
            yield
        finally:
            del self._held.found

    def put(self, app: App, template: Template) -> tuple[StoredTemplate, bool]:
        """Store a template, or replace the one of this name; return whether the name is new.

        Raises UnknownAppError for an unregistered app.
        """
        now = int(self._now() * 1000)
        content = json.dumps(template.to_dict(), ensure_ascii=False)
        mine = (templates.c.app_id == _row(app), templates.c.name == template.name)
        with self._database.write(alone="templates") as connection:
            changed = connection.execute(
                update(templates).where(*mine).values(content=content, updated_at=now)
            )
            if not changed.rowcount:
                connection.execute(
                    insert(templates).values(
                        app_id=_row(app),
                        name=template.name,
                        content=content,
                        created_at=now,
                        updated_at=now,
                    )
                )
            stored = connection.execute(select(templates).where(*mine)).one()
        return _stored(stored), not changed.rowcount

    def get(self, app: App, name: str) -> StoredTemplate:
        """Return a template. Raises UnknownTemplateError, with the nearest name."""
        if not is_name(name):
            raise self._unknown(app, name)
        statement = select(templates).where(templates.c.app_id == app.row, templates.c.name == name)
        with self._database.read() as connection:
            found = connection.execute(statement).one_or_none()
        if found is None:
            raise self._unknown(app, name)
        return _stored(found)

    def list(self, app: App) -> _Stored:
        """Return an app's templates, sorted by name."""
        statement = select(templates).where(templates.c.app_id == app.row)
        with self._database.read() as connection:
            rows = connection.execute(statement.order_by(templates.c.name)).all()
        return [_stored(row) for row in rows]

    def remove(self, app: App, name: str) -> None:
        """Remove a template. Raises UnknownTemplateError for an unknown name.

        The ledger keeps sent notifications as they were rendered.
        """
        if is_name(name):
            mine = (templates.c.app_id == app.row, templates.c.name == name)
            with self._database.write() as connection:
                if connection.execute(delete(templates).where(*mine)).rowcount:
                    return
        raise self._unknown(app, name)

    def read_notification(self, app: App, value: object) -> Notification:
        """Parse a notification, or render one of the app's templates.

        A mapping with ``template`` names it and gives its ``variables``; its other members
        override the template's. Raises NotificationError, TemplateError or UnknownTemplateError.
        """
        use = read_template_use(value)
        return Notification.read(value) if use is None else self.render(app, *use)

    def render(
        self,
        app: App,
        name: str,
        variables: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> Notification:
        """Return the notification that a template makes of these values; see Template.render."""
        found: dict[tuple[int | None, str], Template] = getattr(self._held, "found", {})
        template = found.get((app.row, name))
        if template is None:
            template = found[app.row, name] = self._find(app, name)
        return template.render(variables, overrides)

    def _find(self, app: App, name: str) -> Template:
        """Return a template as :meth:`get` does, without its stored attributes."""
        if not is_name(name):
            raise self._unknown(app, name)
        with self._database.quick_read() as connection:
            found = _CONTENT.rows(connection, app=app.row, name=name)
        if not found:
            raise self._unknown(app, name)
        return _read(name, found[0][0])

    def _unknown(self, app: App, name: str) -> UnknownTemplateError:
        statement = select(templates.c.name).where(templates.c.app_id == app.row)
        with self._database.read() as connection:
            known = list(connection.scalars(statement))
        near = nearest(name[:80], known)
        return UnknownTemplateError(
            f"{app.id} has no template {name[:80]!r}",
            fix=f"Did you mean `{near}`?" if near else Fix(Action.LIST_TEMPLATES, "See"),
        )


def _row(app: App) -> int:
    if app.row is None:
        raise UnknownAppError(
            f"{app.id} is not in the registry, so it has no templates",
            fix=Fix(Action.ADD_APP, "Add it", app=app.id),
        )
    return app.row


def _stored(row: Row[Any]) -> StoredTemplate:
    return StoredTemplate(
        template=_read(row.name, row.content),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


@lru_cache(maxsize=512)
def _read(name: str, content: str) -> Template:
    # Cached: the same template serves thousands of sends.
    return Template.read(json.loads(content), name=name)
