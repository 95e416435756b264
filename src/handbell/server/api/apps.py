"""Apps: `/v1/apps`."""

from dataclasses import replace
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request

from handbell.apps.app import APP_IDS, App, named_by
from handbell.delivery.policy.app_rules import HELD_BY, NO_RULE, read_rules
from handbell.delivery.policy.circuit import CircuitStop
from handbell.errors import AppError, AppForbiddenError, InvalidRequestError
from handbell.server.access import AppDep, CallerDep
from handbell.server.context import Context, context_of
from handbell.server.fix_calls import as_call
from handbell.server.limits import Limit
from handbell.server.pages import (
    CursorQuery,
    Instant,
    LimitQuery,
    ResultPage,
    address_of,
    instant,
    page,
    read_cursor,
    write_cursor,
)
from handbell.server.problems import responses

router = APIRouter(prefix="/v1/apps", tags=["apps"])

CHECK_UPS: Final = Limit(number=10, seconds=60)
"""How often an app may be checked: each check-up talks to the push services."""

_EXAMPLE: Final = "TEAM123456.com.sample.myapp"
_FINGERPRINT: Final = ":".join(["14", "6D", "E9"] + ["00"] * 29)

ContextDep = Annotated[Context, Depends(context_of)]
AppleId = Annotated[str | None, Field(max_length=200)]
Package = Annotated[str | None, Field(max_length=250)]
Origin = Annotated[str | None, Field(max_length=300)]
Fingerprints = Annotated[list[Annotated[str, Field(max_length=200)]], Field(max_length=20)]
Rule = Annotated[str | None, Field(max_length=200)]


class Stopped(BaseModel):
    """Why sending for the app by a push service was stopped."""

    service: str = Field(examples=["apns"])
    reason: str
    detail: str
    since: Instant
    next_try_at: Instant = Field(description="When one push is let through")


class Outage(Stopped):
    """Why a push service accepts nothing from the app."""

    environment: str = Field(examples=["production"])


class RefusedKey(BaseModel):
    """A credential that its push service refuses; another one is used instead."""

    key_id: str
    kind: str = Field(examples=["key"])
    environment: str
    reason: str = Field(examples=["InvalidProviderToken"])
    since: Instant


class AppOut(BaseModel):
    """An app, with the rules for its deliveries and how its devices prove whose they are."""

    id: str = Field(
        description="Its permanent name: Apple's ids, an Android package, or one of your own",
        examples=[_EXAMPLE],
    )
    team_id: str | None = Field(examples=["TEAM123456"])
    bundle_id: str | None = Field(examples=["com.sample.myapp"])
    android_package: str | None = Field(examples=["com.sample.myapp"])
    android_fingerprints: list[str] = Field(
        description="SHA-256 of the certificates that sign the Android app, for assetlinks.json",
        examples=[[_FINGERPRINT]],
    )
    web_origin: str | None = Field(
        description="Whose pages subscribe", examples=["https://shop.example.com"]
    )
    name: str = Field(examples=["My App"])
    is_enabled: bool = Field(description="False holds everything")
    quiet_hours: str | None = Field(examples=["22:00-07:00"])
    cap: str | None = Field(examples=["5/day"])
    rate_limit: str | None = Field(examples=["200/s"])
    time_zone: str | None = Field(examples=["Europe/Paris"])
    stopped: Stopped | None = Field(description="The first of the stops")
    stops: list[Stopped] = Field(
        description="Push services that refuse the app's configuration, the longest stopped first"
    )
    refused_keys: list[RefusedKey] = Field(
        description="Credentials that are refused while another one is used"
    )
    outages: list[Outage] = Field(description="Push services that take nothing now")
    proof: Literal["key", "link", "token"] = Field(
        description="How a device proves whose it is: the back end's API key, a mailed link, or a "
        "token that the back end signed"
    )
    identity_algorithm: str | None = Field(description="ES256 or HS256, where there is a key")
    associated_domain: str | None
    store_url: str | None
    created_at: Instant


class AppIn(BaseModel):
    """A new app."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"id": _EXAMPLE, "name": "My App"},
                {"id": "my-shop", "android_package": "com.sample.shop"},
            ]
        },
    )

    id: str | None = Field(
        default=None,
        description="Apple's team id, dot, bundle id; or an id of your own, in lower case. Without "
        "it, it is made of the other members",
        max_length=250,
    )
    name: str | None = Field(default=None, max_length=200)
    team_id: AppleId = Field(default=None, description="Apple's; with bundle_id")
    bundle_id: AppleId = None
    android_package: Package = Field(default=None, examples=["com.sample.myapp"])
    android_fingerprints: Fingerprints = Field(
        default_factory=list, description="SHA-256 of the certificates that sign the Android app"
    )
    web_origin: Origin = Field(default=None, examples=["https://shop.example.com"])


class AppChange(BaseModel):
    """What to change; a member that is not given stays. null removes a rule."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"examples": [{"quiet_hours": "22:00-07:00", "cap": "5/day"}]},
    )

    name: str = Field(default="", max_length=200)
    team_id: AppleId = Field(default=None, description="With bundle_id; once given, they stay")
    bundle_id: AppleId = None
    android_package: Package = None
    android_fingerprints: Fingerprints = Field(default_factory=list)
    web_origin: Origin = None
    is_enabled: bool = Field(default=True, description="False holds everything")
    quiet_hours: Rule = Field(default=None, description="Hold alerts: 22:00-07:00")
    cap: Rule = Field(default=None, description="At most so many alerts for a person: 5/day")
    rate_limit: Rule = Field(default=None, description="At most so many pushes: 200/s")
    time_zone: Rule = Field(default=None, description="Where recipients are of unknown zone")
    proof: Literal["key", "link", "token"] = "key"
    identity_key: str | None = Field(
        default=None,
        max_length=20_000,
        description="What checks the tokens of the back end: a public key on P-256 in PEM, or a "
        "secret of 32 bytes or more. It is sealed, and never returned",
    )
    associated_domain: str | None = Field(default=None, max_length=253)
    store_url: str | None = Field(default=None, max_length=2000)


class FindingOut(BaseModel):
    """The result of one check."""

    check: str = Field(examples=["key"])
    verdict: Literal["right", "doubtful", "wrong"]
    sentence: str
    fix: str


class CheckUp(BaseModel):
    """The check-up of an app's configuration."""

    verdict: Literal["right", "doubtful", "wrong"] = Field(description="The worst of all")
    findings: list[FindingOut]


@router.get(
    "",
    operation_id="listApps",
    summary="List the apps that the key serves",
    responses=responses(400, 401, 403),
)
async def list_apps(
    context: ContextDep, caller: CallerDep, limit: LimitQuery = 50, cursor: CursorQuery = None
) -> ResultPage[AppOut]:
    """List apps, oldest first."""
    after = 0 if cursor is None else read_cursor(cursor, int)[0]

    def read() -> dict[str, Any]:
        apps = [
            app
            for app in context.system.apps.list()
            if (app.row or 0) > after and caller.app in (None, app.row)
        ]
        shown = page(apps[: limit + 1], limit, lambda app: write_cursor(app.row))
        return {**shown, "data": [describe(context, app) for app in shown["data"]]}

    return ResultPage[AppOut].model_validate(await context.run(read))


@router.post(
    "",
    operation_id="addApp",
    summary="Add an app",
    status_code=201,
    responses=responses(400, 401, 403, 409, 413, 422),
)
async def add_app(
    context: ContextDep, caller: CallerDep, body: AppIn, request: Request, response: Response
) -> AppOut:
    """Add an app; it can send once it has a credential. Needs a key that serves every app.

    One app may have Apple's ids, an Android package and a web origin: a person is reached on all
    devices by one send.
    """

    def write() -> AppOut:
        said = body.model_dump(exclude={"id"})
        added = context.system.apps.add(**{**said, **named_by(body.id, said)})
        context.system.audit.note(caller.actor, "app.add", added.id, app=added.id)
        return describe(context, added)

    added = await context.run(write)
    response.headers["Location"] = address_of(request, f"/v1/apps/{added.id}")
    return added


@router.get(
    "/{app}",
    operation_id="getApp",
    summary="Read an app",
    responses=responses(401, 403, 404, 409),
)
async def get_app(context: ContextDep, app: AppDep) -> AppOut:
    """Return an app, by its id or another unambiguous name."""
    return await context.run(lambda: describe(context, context.system.apps.find(app.id)))


@router.patch(
    "/{app}",
    operation_id="changeApp",
    summary="Change an app",
    responses=responses(400, 401, 403, 404, 409, 413, 422),
)
async def change_app(
    context: ContextDep, caller: CallerDep, app: AppDep, body: AppChange
) -> AppOut:
    """Change the given members; running workers follow within seconds."""
    given = body.model_dump(include=body.model_fields_set)
    if not given:
        raise InvalidRequestError("Nothing is to be changed", fix="Name a member, such as cap")
    if "associated_domain" in given and caller.app is not None:
        # A domain decides which app opens the links of all of them.
        raise AppForbiddenError(
            "A domain is given by who may administer every app",
            fix="Use a key that serves every app, or: handbell app set --associated-domain",
        )
    changed = await context.run(_change, context, app, given, caller.actor)
    context.apps.clear()
    return changed


@router.delete(
    "/{app}",
    operation_id="removeApp",
    summary="Remove an app",
    status_code=204,
    responses=responses(401, 403, 404, 409),
)
async def remove_app(context: ContextDep, caller: CallerDep, app: AppDep) -> Response:
    """Remove an app with its keys, users and sessions; what was sent stays in the ledger."""

    def write() -> None:
        context.remove_app(app)
        context.system.audit.note(caller.actor, "app.remove", app.id, app=app.id)

    await context.run(write)
    return Response(status_code=204)


@router.post(
    "/{app}/check-up",
    operation_id="checkUp",
    summary="Check an app's configuration",
    responses=responses(401, 403, 404, 409, 429, 502),
)
async def check_up(context: ContextDep, app: AppDep) -> CheckUp:
    """Check keys, ids, clock and the connection to the push services.

    Apple gets one push with a nonexistent token for each environment, and FCM one that it only
    validates.
    """
    await context.require("check-up", app.id, CHECK_UPS)
    findings = await context.system.doctor.check_up(app)
    verdicts = {finding.verdict for finding in findings}
    worst = next((item for item in ("wrong", "doubtful") if item in verdicts), "right")
    return CheckUp.model_validate(
        {
            "verdict": worst,
            "findings": [
                {
                    "check": finding.check,
                    "verdict": finding.verdict,
                    "sentence": finding.sentence,
                    "fix": as_call(finding.fix),
                }
                for finding in findings
            ],
        }
    )


def describe(context: Context, app: App) -> AppOut:
    """Return what is told of an app. Reads the database: to be called in a thread."""
    rules = context.system.rules_store.rules_of(app.id)
    identity = context.system.identities.of(app)
    stop = rules.stop
    return AppOut.model_validate(
        {
            "id": app.id,
            "team_id": app.team_id,
            "bundle_id": app.bundle_id,
            "android_package": app.android_package,
            "android_fingerprints": list(app.android_fingerprints),
            "web_origin": app.web_origin,
            "name": app.name,
            "is_enabled": app.is_enabled,
            "quiet_hours": _text(rules.quiet),
            "cap": _text(rules.cap),
            "rate_limit": _text(rules.rate),
            "time_zone": rules.time_zone,
            "stopped": stop and _stopped(stop),
            "stops": [_stopped(one) for one in rules.stops],
            "refused_keys": [
                {
                    "key_id": key.key_id,
                    "kind": key.kind,
                    "environment": stop.environment,
                    "reason": stop.reason,
                    "since": instant(stop.since * 1000),
                }
                for key, stop in rules.cautions
            ],
            "outages": [
                {**_stopped(outage), "environment": outage.environment}
                for outage in rules.outages(context.system.now())
            ],
            "proof": identity.proof,
            "identity_algorithm": identity.algorithm,
            "associated_domain": identity.associated_domain,
            "store_url": identity.store_url,
            "created_at": instant(app.created_at),
        }
    )


def _stopped(stop: CircuitStop) -> dict[str, Any]:
    return {
        "service": stop.service,
        "reason": stop.reason,
        "detail": stop.detail,
        "since": instant(stop.since * 1000),
        "next_try_at": instant(stop.probe_at * 1000),
    }


def _change(context: Context, app: App, given: dict[str, Any], actor: str) -> AppOut:
    system = context.system
    rules = {name: given[name] or NO_RULE for name in HELD_BY if name in given}
    identity = {name: given[name] or NO_RULE for name in _IDENTITY if name in given}
    ids: dict[str, Any] = {name: given[name] for name in APP_IDS if name in given}
    # What can be refused comes before what is written.
    read_rules(rules)
    replace(app, **ids)
    if "name" in given and given["name"].strip():
        system.apps.check_name(app, given["name"])
    if "name" in given and not given["name"].strip():
        raise AppError("The app's name is empty", fix="Name it, or leave the member out")
    if ids:
        app = system.apps.set_ids(system.apps.find(app.id), ids)
    if identity:
        system.identities.set(app, **identity)
    if "name" in given:
        system.apps.rename(app, given["name"])
    if rules:
        system.app_control.set_rules(app, rules)
    if "is_enabled" in given:
        system.app_control.switch(app, given["is_enabled"])
    system.audit.note(actor, "app.set", app.id, app=app.id, detail=", ".join(sorted(given)))
    return describe(context, system.apps.find(app.id))


_IDENTITY: Final = ("proof", "identity_key", "associated_domain", "store_url")


def _text(value: object) -> str | None:
    return None if value is None else str(value)
