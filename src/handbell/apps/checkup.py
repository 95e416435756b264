"""Checks of an app's stored configuration."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from handbell._text import moment
from handbell.errors import HandbellError
from handbell.fixes import Fix
from handbell.services.apns.credential import Certificate
from handbell.services.table import SERVICES

from .app import App
from .app_services import services_of
from .credential_kinds import ADDED_BY, KINDS, Credential
from .credential_store import StoredCredential

_RENEW: Final = (
    "renew it in Apple's developer account, then add the new one. An AuthKey_XXX.p8 never expires."
)

Verdict = Literal["right", "doubtful", "wrong"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: its subject, a sentence with the result, and the fix."""

    check: str
    verdict: Verdict
    sentence: str
    fix: str = ""


def caveats(credential: Credential, *, now: float) -> list[str]:
    """Return warnings about a credential that is being added.

    ``now`` is in UNIX seconds. A certificate that is not valid now is accepted: this machine's
    clock may be wrong.
    """
    if not isinstance(credential, Certificate):
        return []
    if credential.expires_at <= now * 1000:
        return [f"The certificate expired at {moment(credential.expires_at)}; {_RENEW}"]
    if credential.valid_from > now * 1000:
        return [f"The certificate is not valid before {moment(credential.valid_from)}."]
    return []


def check_credentials(
    app: App,
    credentials: list[StoredCredential],
    *,
    now: float,
    unusable: Mapping[str, HandbellError] = MappingProxyType({}),
) -> Iterator[Finding]:
    """Yield findings about the stored credentials of an app; ``now`` is in UNIX seconds.

    ``unusable`` has the faults of those that cannot be decrypted, by key id.
    """
    yield from _check_services(app, credentials)
    for stored in credentials:
        yield _check_scope(stored, unusable.get(stored.key_id))
        if stored.expires_at is not None:
            yield _check_expiry(stored, now)


def _check_services(app: App, credentials: list[StoredCredential]) -> Iterator[Finding]:
    """Yield a finding for each push service that knows an app which has no credential for it."""
    held = {one.service for one in credentials}
    for service in services_of(app) or ["apns"]:
        if service in held:
            continue
        noun, what = _MISSING[service]
        yield Finding(
            check=noun.replace(" ", "-"),
            verdict="doubtful" if held else "wrong",
            sentence=f"{app.id} has no {noun}" + (f": nothing is sent to {what}." if held else "."),
            fix=Fix(ADDED_BY[service], f"Add the {noun}", app=app.id, end="."),
        )


_MISSING: Final = {
    "apns": ("key", "iPhones, iPads and Macs"),
    "fcm": ("service account", "Android phones"),
    "webpush": ("web push key", "browsers"),
}


def check_web_push(
    app: App, credentials: Iterable[StoredCredential], *, contact: str | None, hosts: str
) -> Iterator[Finding]:
    """Yield findings about what Web Push needs beside its key.

    ``contact`` is whom push services may write to, ``hosts`` the setting that says which of them
    are used. Whether they take the key is only seen when something is sent: there is no
    subscription that is nobody's.
    """
    mine = [one for one in credentials if one.service == "webpush"]
    if not mine:
        return
    if any(one.environment != "twin" for one in mine):
        if contact is None:
            yield Finding(
                check="web-push-contact",
                verdict="wrong",
                sentence="Nothing is sent to browsers: push services have nobody to write to.",
                fix="Set HANDBELL_VAPID_SUBJECT to a mailto: or https: address of yours.",
            )
        else:
            yield Finding(
                check="web-push-contact",
                verdict="right",
                sentence=f"Push services of browsers may write to {contact}.",
            )
        yield Finding(
            check="web-push-hosts",
            verdict="right",
            sentence=f"Web Push goes to {_hosts_in_words(hosts)}.",
        )
    if app.web_origin is None:
        yield Finding(
            check="web-origin",
            verdict="doubtful",
            sentence="No page may register its browsers: the app has no web origin.",
            fix="Set it under Publishing, Browsers, or with handbell app set --web-origin. "
            "Nothing is to do if your back end registers them.",
        )


def _hosts_in_words(setting: str) -> str:
    named = [name for name in map(str.strip, setting.split(",")) if name]
    if "any" in named:
        return "any public host that a browser names"
    others = [name for name in named if name != "known"]
    return " and to ".join(["the push services of the browsers' vendors", *others])


def _check_scope(stored: StoredCredential, error: HandbellError | None) -> Finding:
    if error is not None:
        return Finding(
            check="key",
            verdict="wrong",
            sentence=f"The {_named(stored)} cannot be opened: {error.what}",
            fix=error.fix,
        )
    has_two = SERVICES[stored.service].has_environments
    where = stored.environment or ("both environments" if has_two else "production")
    return Finding(
        check="key",
        verdict="right",
        sentence=f"The {_named(stored)} can be opened and is used for {where}.",
    )


def _named(stored: StoredCredential) -> str:
    return f"{KINDS[stored.kind].title} {stored.key_id}"


def _check_expiry(stored: StoredCredential, now: float) -> Finding:
    days = int((stored.expires_at or 0) / 1000 - now) // 86_400
    if days < 0:
        return Finding(
            check="expiry",
            verdict="wrong",
            sentence=f"The {stored.kind} {stored.key_id} expired {-days} days ago.",
            fix="Renew it in Apple's developer account, then add the new one; a .p8 never expires.",
        )
    return Finding(
        check="expiry",
        verdict="doubtful" if days < 30 else "right",  # noqa: PLR2004 - a month's notice
        sentence=f"The {stored.kind} {stored.key_id} expires in {days} days.",
        fix="Renew it in Apple's developer account." if days < 30 else "",  # noqa: PLR2004
    )
