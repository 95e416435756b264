"""Apps as rows of the database."""

from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, select

from handbell.storage.tables import apps

from .app import App

APP_COLUMNS: Final = (
    apps.c.id.label("app_row"),
    *(
        apps.c[name]
        for name in (
            "public_id",
            "team_id",
            "bundle_id",
            "android_package",
            "android_fingerprints",
            "web_origin",
            "name",
            "is_enabled",
        )
    ),
    apps.c.created_at.label("app_created_at"),
)
"""The columns of which :func:`app_of` makes an app."""


def app_of(row: Any) -> App:
    """Return the app of a row that has :data:`APP_COLUMNS`."""
    return App(
        row=row.app_row,
        id=row.public_id,
        team_id=row.team_id,
        bundle_id=row.bundle_id,
        android_package=row.android_package,
        android_fingerprints=tuple((row.android_fingerprints or "").split()),
        web_origin=row.web_origin,
        name=row.name,
        is_enabled=row.is_enabled,
        created_at=row.app_created_at,
    )


def columns_of(app: App) -> dict[str, Any]:
    """Return the columns of an app that identify it."""
    return {
        "public_id": app.id,
        "team_id": app.team_id,
        "bundle_id": app.bundle_id,
        "android_package": app.android_package,
        "android_fingerprints": " ".join(app.android_fingerprints) or None,
        "web_origin": app.web_origin,
        "name": app.name,
    }


def read_apps(connection: Connection, *where: ColumnElement[bool]) -> list[App]:
    """Return the apps that meet all conditions, the oldest first."""
    statement = select(*APP_COLUMNS).where(*where).order_by(apps.c.id)
    return [app_of(row) for row in connection.execute(statement)]
