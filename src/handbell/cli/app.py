"""``handbell app``: apps and their delivery rules."""

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import typer

from handbell._text import count, moment, sentence
from handbell.errors import AppError, CredentialError
from handbell.fixes import COMMANDS, filled

from .api_key import ACTOR
from .context import system
from .output import Json, local_time, say, write_json, write_table
from .progress import NO_WORKER

if TYPE_CHECKING:
    from handbell.apps.app import App
    from handbell.system import System

commands = typer.Typer(help="Apps and their delivery rules.", no_args_is_help=True)


_NONE: Final = "none"

Reference = Annotated[
    str, typer.Argument(metavar="APP", help="App id, name, bundle id or Android package.")
]
OptionalReference = Annotated[
    str | None,
    typer.Argument(metavar="[APP]", envvar="HANDBELL_APP", help="App id, name or bundle id."),
]


Team = Annotated[str | None, typer.Option(help="Apple's team id; with --bundle.")]
Bundle = Annotated[str | None, typer.Option(help="Apple's bundle id.")]
Package = Annotated[
    str | None, typer.Option(help="The Android app's applicationId: com.sample.myapp.")
]
Fingerprint = Annotated[
    list[str] | None,
    typer.Option(
        help="SHA-256 fingerprint of a certificate that signs the Android app, for links; may be "
        "repeated."
    ),
]
Origin = Annotated[
    str | None, typer.Option(help="Whose pages subscribe: https://shop.example.com.")
]


@commands.command()
def add(
    app_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[APP_ID]",
            help="Team id and bundle id: TEAM123456.com.sample.myapp; or an id of your own, in "
            "lower case, with one of the options.",
        ),
    ] = None,
    *,
    name: Annotated[str | None, typer.Option(help="Its display name.")] = None,
    team: Team = None,
    bundle: Bundle = None,
    android_package: Package = None,
    android_fingerprint: Fingerprint = None,
    web_origin: Origin = None,
    as_json: Json = False,
) -> None:
    """Add an app: for Apple's devices, for Android, for browsers, or for several of them."""
    from handbell.apps.app import named_by  # noqa: PLC0415 - heavy

    said: dict[str, Any] = {
        "team_id": team,
        "bundle_id": bundle,
        "android_package": android_package,
        "android_fingerprints": android_fingerprint or [],
        "web_origin": web_origin,
        "name": name,
    }
    named = named_by(app_id, said)
    parts = system()
    app = parts.apps.add(**{**said, **named})
    parts.audit.note(ACTOR, "app.add", app.id, app=app.id)
    if as_json:
        write_json(_describe(app))
    else:
        say(f"Added {app.id} ({app.name}).")
        for command in _missing(app):
            say(f"Next: {command}")


@commands.command("list")
def list_apps(*, as_json: Json = False) -> None:
    """List the apps."""
    apps = system().apps.list()
    if as_json:
        write_json([_describe(app) for app in apps])
        return
    write_table(
        ["app", "name", "services", "added"],
        ([app.id, app.name, ", ".join(app.services), local_time(app.created_at)] for app in apps),
        "There is no app yet. Add one with: handbell app add TEAM123456.com.sample.myapp",
    )


@commands.command()
def show(reference: Reference, *, as_json: Json = False) -> None:
    """Show an app, its keys and how many people it reaches."""
    from handbell.apps.credential_kinds import served, title_of  # noqa: PLC0415 - heavy

    parts = system()
    app = parts.apps.find(reference)
    credentials = parts.apps.credentials(app)
    users = len(parts.registry.mail_addresses(app))
    devices = len(parts.registry.addresses(app))
    if as_json:
        described = {**_describe(app), **_rules(parts, app)}
        write_json({**described, "credentials": credentials, "users": users, "devices": devices})
        return
    say(f"{app.id}  {app.name}")
    say(f"  {count(users, 'user')}, {count(devices, 'device')} that can be reached")
    _tell_ids(app)
    for stored in credentials:
        limit = stored.environment or served(stored.service)
        say(f"  {title_of(stored.kind)} {stored.key_id}, {limit}")
    for command in _missing(app, {stored.service for stored in credentials}):
        say(f"  no key yet: {command}")
    _tell_rules(parts, app, as_json=False)


@commands.command("set")
def set_rules(
    reference: OptionalReference = None,
    *,
    team: Team = None,
    bundle: Bundle = None,
    android_package: Annotated[
        str | None, typer.Option(help="The Android app's applicationId; or none.")
    ] = None,
    android_fingerprint: Fingerprint = None,
    web_origin: Annotated[
        str | None, typer.Option(help="Whose pages subscribe: https://shop.example.com; or none.")
    ] = None,
    quiet_hours: Annotated[
        str | None,
        typer.Option(help="Hold alerts from 22:00-07:00, in each recipient's time zone; or none."),
    ] = None,
    cap: Annotated[
        str | None, typer.Option(help="At most so many alerts for one person: 5/day; or none.")
    ] = None,
    rate_limit: Annotated[
        str | None, typer.Option(help="At most so many pushes: 200/s, 6000/minute; or none.")
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option(help="Time zone of recipients without a known one: Europe/Paris; or none."),
    ] = None,
    on: Annotated[
        bool | None, typer.Option("--on/--off", help="Send for the app, or hold everything.")
    ] = None,
    proof: Annotated[
        Literal["key", "link", "token"] | None,
        typer.Option(
            help="How a device proves its owner: by the back end's API key, a mailed link, or a "
            "token that the back end signed."
        ),
    ] = None,
    identity_key: Annotated[
        Path | None,
        typer.Option(
            help="File that verifies those tokens: a public key on P-256 in PEM (ES256), or a "
            "secret of 32 bytes or more (HS256)."
        ),
    ] = None,
    associated_domain: Annotated[
        str | None, typer.Option(help="Whose universal links the app opens: a host; or none.")
    ] = None,
    store_url: Annotated[
        str | None, typer.Option(help="The app's store page, for phones without it; or none.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Another name, by which no other app is called.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Set an app's rules and ids; what is not given stays. `none` removes one.

    Urgent levels (time-sensitive, critical) and what shows nothing are exempt from quiet hours and
    caps. A running worker follows within seconds.
    """
    parts = system()
    app = parts.apps.find(reference or parts.settings.app)
    given = {
        "quiet_hours": quiet_hours,
        "cap": cap,
        "rate_limit": rate_limit,
        "time_zone": time_zone,
    }
    named = {name: text for name, text in given.items() if text is not None}
    identity = {
        "proof": proof,
        "identity_key": None if identity_key is None else _read_key(identity_key),
        "associated_domain": associated_domain,
        "store_url": store_url,
    }
    proving = {name: value for name, value in identity.items() if value is not None}
    ids = _given_ids(team, bundle, android_package, android_fingerprint, web_origin)
    if not named and not proving and not ids and on is None and name is None:
        raise AppError("No rule was named", fix="Name one, such as --quiet-hours 22:00-07:00")
    if ids:
        app = parts.apps.set_ids(app, ids)
    if name is not None:
        app = parts.apps.rename(app, name)
    if proving:
        parts.identities.set(app, **proving)  # type: ignore[arg-type]  # by their names
    if named:
        parts.app_control.set_rules(app, named)
    if on is not None:
        app = parts.app_control.switch(app, on)
    changed = [*ids, *named, *proving, *([] if on is None else ["is_enabled"])]
    changed += [] if name is None else ["name"]
    parts.audit.note(ACTOR, "app.set", app.id, app=app.id, detail=", ".join(changed))
    if ids and not as_json:
        _tell_ids(app)
    _tell_rules(parts, app, as_json=as_json)


@commands.command()
def resume(reference: Reference, *, as_json: Json = False) -> None:
    """Resume sending for an app whose configuration was refused, without waiting for a probe.

    When it is refused again, sending stops again.
    """
    parts = system()
    app = parts.apps.find(reference)
    was_stopped = parts.app_control.resume(app)
    parts.audit.note(ACTOR, "app.set", app.id, app=app.id, detail="resume")
    if as_json:
        write_json({"was_stopped": was_stopped})
    elif was_stopped:
        say(f"{app.id} sends again; what waited goes on within seconds.")
    else:
        say(f"Sending for {app.id} had not been stopped.")


@commands.command()
def remove(
    reference: Reference,
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove an app with its keys, users and sessions."""
    parts = system()
    app = parts.apps.find(reference)
    devices = count(len(parts.registry.addresses(app)), "device")
    if not yes:
        typer.confirm(f"Remove {app.id} with its keys and {devices}?", abort=True)
    parts.apps.remove(app)
    parts.audit.note(ACTOR, "app.remove", app.id, app=app.id)
    say(f"Removed {app.id}.")


def _missing(app: "App", services: Collection[str] = ()) -> list[str]:
    """Return the commands that add the credentials which an app lacks."""
    from handbell.apps.credential_kinds import ADDED_BY  # noqa: PLC0415 - heavy

    return [
        filled(COMMANDS[ADDED_BY[service]], app.id, "")
        for service in app.services or ("webpush",)
        if service not in services
    ]


def _given_ids(
    team: str | None,
    bundle: str | None,
    package: str | None,
    fingerprints: list[str] | None,
    origin: str | None,
) -> dict[str, Any]:
    """Return the ids that are to be changed; None removes one."""
    texts = {"team_id": team, "bundle_id": bundle, "android_package": package, "web_origin": origin}
    given: dict[str, Any] = {
        name: None if text == _NONE else text for name, text in texts.items() if text is not None
    }
    if fingerprints:
        given["android_fingerprints"] = () if fingerprints == [_NONE] else tuple(fingerprints)
    return given


def _ids(app: "App") -> list[tuple[str, str]]:
    """Return what the push services know an app by, unless its id says it."""
    texts = {
        "apple": app.apple_id,
        "android": app.android_package,
        "signed by": ", ".join(app.android_fingerprints) or None,
        "web origin": app.web_origin,
    }
    return [(label, text) for label, text in texts.items() if text not in (None, app.id)]


def _read_key(path: Path) -> bytes:
    from handbell.services.key_loader import read_source  # noqa: PLC0415 - heavy

    try:
        return read_source(path).data
    except CredentialError as error:
        raise AppError(error.what, fix="Name the file of the key that signs the tokens") from None


def _tell_ids(app: "App") -> None:
    for label, value in _ids(app):
        say(f"  {label + ':':13}{value}")


def _rules(parts: "System", app: "App") -> dict[str, object]:
    rules = parts.rules_store.rules_of(app.id)
    identity = parts.identities.of(app)
    values = {
        "quiet_hours": rules.quiet,
        "cap": rules.cap,
        "rate_limit": rules.rate,
        "time_zone": rules.time_zone,
    }
    texts = {name: None if value is None else str(value) for name, value in values.items()}
    return {
        **texts,
        "is_enabled": rules.is_enabled,
        "stopped": rules.stop,
        "stops": list(rules.stops),
        "refused_keys": [
            {"key_id": key.key_id, "environment": stop.environment, "reason": stop.reason}
            for key, stop in rules.cautions
        ],
        "outages": list(rules.outages(parts.now())),
        "proof": identity.proof,
        "identity_algorithm": identity.algorithm,
        "associated_domain": identity.associated_domain,
        "store_url": identity.store_url,
    }


def _tell_rules(parts: "System", app: "App", *, as_json: bool) -> None:
    from handbell.delivery.policy.meanings import meaning  # noqa: PLC0415 - heavy
    from handbell.services.table import service_of  # noqa: PLC0415 - heavy

    rules = _rules(parts, app)
    if as_json:
        write_json({"id": app.id, **rules})
        return
    for name in ("quiet_hours", "cap", "rate_limit", "time_zone"):
        say(f"  {name.replace('_', ' ') + ':':13}{rules[name] or 'none'}")
    signed = f", signed with {rules['identity_algorithm']}" if rules["identity_algorithm"] else ""
    say(f"  proof:       {rules['proof']}{signed if rules['proof'] == 'token' else ''}")
    for name, label in (("associated_domain", "domain"), ("store_url", "store")):
        if rules[name]:
            say(f"  {label + ':':13}{rules[name]}")
    say("  sending:     on" if rules["is_enabled"] else "  sending:     off")
    rules_now = parts.rules_store.rules_of(app.id)
    for stop in rules_now.stops:
        words, fix = meaning(stop.reason, stop.detail, stop.service)
        where = service_of(stop.service).title
        since = moment(stop.since * 1000)
        say(f"  STOPPED ({where}) since {since}: {stop.reason}: {sentence(words)}")
        say(f"  {sentence(fix)} The next try is at {moment(stop.probe_at * 1000)}, or at")
        say(f"  once after: handbell app resume {app.id}")
    for caution in parts.app_control.cautions(app):
        say(f"  {caution.what}", f"  {' '.join(caution.fixes)}")
    for outage in rules_now.outages(parts.now()):
        words, _ = meaning(outage.reason, outage.detail, outage.service)
        at = moment(outage.since * 1000)
        where = f"{service_of(outage.service).title}, {outage.environment}"
        say(f"  PUSH SERVICE DOWN ({where}) since {at}: {sentence(words)}")
        if parts.known_workers.live_workers():
            say("  Nothing is lost; sending resumes as soon as a push is accepted.")
        else:
            say("  Nothing is lost; what is stored waits.", f"  {NO_WORKER}")


def _describe(app: "App") -> dict[str, object]:
    return {
        "id": app.id,
        "team_id": app.team_id,
        "bundle_id": app.bundle_id,
        "android_package": app.android_package,
        "android_fingerprints": app.android_fingerprints,
        "web_origin": app.web_origin,
        "name": app.name,
        "is_enabled": app.is_enabled,
        "created_at": app.created_at,
    }
