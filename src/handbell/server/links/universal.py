"""Links that open the app: what iPhones and Android ask of a host, a page for other phones.

An app belongs to the host that is its associated domain. While no app has one, every app belongs to
every host: a server with a single app needs no configuration.
"""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from handbell.apps.app import App
from handbell.errors import NotFoundError
from handbell.registry.identity import Identity
from handbell.server.context import Context, context_of

from .templating import page

router = APIRouter(include_in_schema=False)

PREFIX: Final = "/mobileapp/$/"
"""The path prefix of universal links."""

_ALL_URLS: Final = "delegate_permission/common.handle_all_urls"
_CACHE: Final = "public, max-age=300"

ContextDep = Annotated[Context, Depends(context_of)]


@router.get("/.well-known/apple-app-site-association")
@router.get("/apple-app-site-association")
async def association(request: Request, context: ContextDep) -> Response:
    """Return the association file of this host, in the current and the older format."""
    apps = await context.run(_apps_of, context, request.url.hostname or "")
    if not any(app.apple_id for app, _ in apps):
        raise NotFoundError(
            "No app belongs to this host",
            fix="Set its domain: handbell app set APP --associated-domain links.example.com",
        )
    return JSONResponse(describe([app for app, _ in apps]), headers={"Cache-Control": _CACHE})


@router.get("/.well-known/assetlinks.json")
async def asset_links(request: Request, context: ContextDep) -> Response:
    """Return which Android apps open the links of this host."""
    apps = await context.run(_apps_of, context, request.url.hostname or "")
    statements = describe_for_android([app for app, _ in apps])
    if not statements:
        raise NotFoundError(
            "No Android app belongs to this host",
            fix="Name what signs it: handbell app set APP --android-package com.sample.myapp "
            "--android-fingerprint 14:6D:E9...",
        )
    return JSONResponse(statements, headers={"Cache-Control": _CACHE})


@router.get("/mobileapp/{path:path}")
async def landing(request: Request, context: ContextDep, path: str) -> Response:
    """Return a page for a phone without the app. It links to the app's store only."""
    apps = await context.run(_apps_of, context, request.url.hostname or "")
    named = _named(apps, path)
    if named is None:
        return page("landing.html", 404 if not apps else 200, app=None, store_url=None)
    app, identity = named
    return page("landing.html", app=app.name, store_url=identity.store_url)


def describe(apps: list[App]) -> dict[str, Any]:
    """Return the association of a host with its apps.

    A single app gets every path below the prefix; of several each gets those with its id.
    """
    details = [
        {
            "appID": app.apple_id,
            "paths": [_paths(app, apps)],
            "appIDs": [app.apple_id],
            "components": [{"/": _paths(app, apps)}],
        }
        for app in apps
        if app.apple_id is not None
    ]
    return {
        "applinks": {"apps": [], "details": details},
        "activitycontinuation": {"apps": [detail["appID"] for detail in details]},
    }


def describe_for_android(apps: list[App]) -> list[dict[str, Any]]:
    """Return the statements of a host about its Android apps, whose certificates are known.

    The extension narrows an app to its paths, from Android 15 on; earlier ones take all that the
    app's manifest says.
    """
    return [
        {
            "relation": [_ALL_URLS],
            "target": {
                "namespace": "android_app",
                "package_name": app.android_package,
                "sha256_cert_fingerprints": list(app.android_fingerprints),
            },
            "relation_extensions": {
                _ALL_URLS: {"dynamic_app_link_components": [{"/": _paths(app, apps)}]}
            },
        }
        for app in apps
        if app.android_package is not None and app.android_fingerprints
    ]


def _paths(app: App, apps: list[App]) -> str:
    return f"{PREFIX}*" if len(apps) == 1 else f"{PREFIX}{app.id}/*"


def _apps_of(context: Context, host: str) -> list[tuple[App, Identity]]:
    identities = context.system.identities.all()
    found = [
        (app, identities[app.row])
        for app in context.system.apps.list()
        if app.row is not None and app.row in identities
    ]
    if not any(identity.associated_domain for _, identity in found):
        return found
    return [one for one in found if one[1].associated_domain == host.lower()]


def _named(apps: list[tuple[App, Identity]], path: str) -> tuple[App, Identity] | None:
    if len(apps) == 1:
        return apps[0]
    parts = path.split("/")
    app_id = parts[1] if len(parts) > 1 and parts[0] == "$" else ""
    return next((one for one in apps if one[0].id == app_id), None)
