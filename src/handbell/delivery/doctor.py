"""Checks what can be checked before the first real send; every answer is one sentence and a fix."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import urlsplit

from handbell._text import sentence
from handbell.apps.app import App
from handbell.apps.checkup import Finding
from handbell.creation.notification import Notification
from handbell.errors import HandbellError
from handbell.fixes import Action, Fix, as_sentence
from handbell.gateways.apns.client import ApnsGateway
from handbell.gateways.apns.payload import compose
from handbell.gateways.gateway import (
    Accepted,
    DeviceGone,
    LostVerdict,
    Outcome,
    Refused,
    RetryLater,
)

from .outcome import meaning

CLOCK_TOLERANCE_SECONDS: Final = 60
CLOCK_LIMIT_SECONDS: Final = 1500
"""A provider token is up to 35 minutes old here and must not be over an hour old at Apple's."""

_HOST_OF: Final = {
    "production": "Apple's production host",
    "development": "Apple's development host",
    "twin": "the twin",
}
_APPLES: Final = ".push.apple.com"
_TOKEN_REASONS: Final = frozenset({"BadDeviceToken", "DeviceTokenNotForTopic"})


async def probe(
    app: App, environments: Sequence[str], find_gateway: Callable[[str], ApnsGateway]
) -> list[Finding]:
    """Send one push with an impossible token to each environment, and tell what the answers mean.

    Nothing is shown to anybody: no device has the token. What several hosts say alike is told once.
    """
    found = await asyncio.gather(
        *(_probe_one(app, environment, find_gateway) for environment in environments)
    )
    return list(dict.fromkeys(finding for findings in found for finding in findings))


async def _probe_one(
    app: App, environment: str, find_gateway: Callable[[str], ApnsGateway]
) -> list[Finding]:
    message = compose(
        Notification(title="Handbell's check-up", ttl=0), bundle_id=app.bundle_id, now=0
    )
    try:
        gateway = find_gateway(environment)
        outcome = await gateway.probe(environment, message)
    except HandbellError as error:
        return [Finding(check=environment, verdict="wrong", sentence=error.what, fix=error.fix)]
    address = gateway.address_of(environment)
    findings = [judge_probe(environment, outcome, address)]
    # Only Apple's clock says whether this one is right: a twin's may be this very clock.
    if gateway.clock_skew is not None and _is_apples(address):
        findings.append(judge_clock(gateway.clock_skew))
    return findings


def _is_apples(address: str) -> bool:
    return (urlsplit(address).hostname or "").endswith(_APPLES)


def _host(environment: str, address: str) -> str:
    """Return who was asked, in words, with the address where that is not Apple."""
    if not address or _is_apples(address):
        return _HOST_OF[environment]
    where = urlsplit(address).netloc
    return f"the twin at {where}" if environment == "twin" else f"{where}, for {environment},"


def judge_probe(environment: str, outcome: Outcome, address: str = "") -> Finding:
    """Return what the answer to an impossible token says about the app's configuration.

    ``address`` is that of the host that was asked, which is named where it is not Apple's.
    """
    host = _host(environment, address)
    match outcome:
        case Refused() if outcome.reason in _TOKEN_REASONS:
            return Finding(
                check=environment,
                verdict="right",
                sentence=f"{_capital(host)} accepts the key, the team and the bundle id.",
            )
        case Refused() if outcome.reason.startswith("BadEnvironmentKey"):
            return Finding(
                check=environment,
                verdict="doubtful",
                sentence=f"The key is not meant for {host}.",
                fix="That is right if the app has a key for each environment; else make one that "
                "serves this one.",
            )
        case Accepted() | DeviceGone():
            return Finding(
                check=environment,
                verdict="doubtful",
                sentence=f"{_capital(host)} answered, but not as Apple does to a token of zeros.",
                fix="Check which address the environment points to.",
            )
        case _:
            return _judge_failure(environment, host, outcome)


def _judge_failure(environment: str, host: str, outcome: Outcome) -> Finding:
    reason = getattr(outcome, "reason", "")
    words, fix = meaning(reason, getattr(outcome, "detail", ""))
    is_refused = isinstance(outcome, Refused)
    said = "refused the check-up" if is_refused else "could not be asked"
    # Who answered that he is busy can be reached; nothing is proven against the configuration.
    is_busy = isinstance(outcome, RetryLater) and outcome.status > 0
    is_cut = isinstance(outcome, LostVerdict) and outcome.reason == "AnswerCut"
    return Finding(
        check=environment,
        verdict="doubtful" if is_busy or is_cut else "wrong",
        sentence=sentence(f"{_capital(host)} {said}: {reason}, {words}"),
        fix=as_sentence(_beside_the_check_up(fix)),
    )


def _beside_the_check_up(fix: str) -> str:
    """Return what to do as whoever reads a check-up needs it: without the advice to make one."""
    is_this = isinstance(fix, Fix) and fix.action is Action.CHECK_UP
    return fix.lead if isinstance(fix, Fix) and is_this else fix


def judge_clock(skew: float) -> Finding:
    """Return what the difference between this clock and the push service's means; in seconds."""
    seconds = abs(round(skew))
    way = "ahead of" if skew > 0 else "behind"
    if seconds <= CLOCK_TOLERANCE_SECONDS:
        return Finding(check="clock", verdict="right", sentence="This machine's clock is right.")
    return Finding(
        check="clock",
        verdict="wrong" if seconds > CLOCK_LIMIT_SECONDS else "doubtful",
        sentence=f"This machine's clock is {seconds} seconds {way} the push service's.",
        fix="Set it by NTP: Apple refuses provider tokens that seem older than an hour.",
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
