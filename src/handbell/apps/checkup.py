"""Checks of an app's stored configuration."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from handbell._text import moment
from handbell.errors import HandbellError
from handbell.fixes import Action, Fix
from handbell.services.apns.credential import Certificate

from .app import App
from .credential_kinds import Credential
from .store import StoredCredential

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
    if not credentials:
        yield Finding(
            check="key",
            verdict="wrong",
            sentence=f"{app.id} has no key.",
            fix=Fix(Action.ADD_KEY, "Add the team's key", app=app.id, end="."),
        )
    for stored in credentials:
        yield _check_scope(stored, unusable.get(stored.key_id))
        if stored.expires_at is not None:
            yield _check_expiry(stored, now)


def _check_scope(stored: StoredCredential, error: HandbellError | None) -> Finding:
    if error is not None:
        return Finding(
            check="key",
            verdict="wrong",
            sentence=f"The {stored.kind} {stored.key_id} cannot be opened: {error.what}",
            fix=error.fix,
        )
    where = stored.environment or "both environments"
    return Finding(
        check="key",
        verdict="right",
        sentence=f"The {stored.kind} {stored.key_id} can be opened and is used for {where}.",
    )


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
