"""Pre-flight checks before the first real send; every finding is one sentence and a fix."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from handbell._text import sentence
from handbell.apps.app import App
from handbell.apps.checkup import Finding
from handbell.apps.store import StoredCredential
from handbell.creation.notification import Notification
from handbell.delivery.policy.decision import meaning
from handbell.errors import HandbellError
from handbell.fixes import Action, Fix, as_sentence
from handbell.gateways.apns.client import ApnsGateway
from handbell.gateways.apns.compose import compose
from handbell.gateways.http2_tls import authority
from handbell.gateways.outcomes import (
    Accepted,
    DeviceGone,
    LostVerdict,
    Outcome,
    Refused,
    RetryLater,
)
from handbell.registry.session import Environment
from handbell.services.apns.protocol import DEVELOPMENT_URL, PRODUCTION_URL
from handbell.services.apns.reasons import TOKEN_REASONS
from handbell.storage.signals import Signals

CLOCK_TOLERANCE_SECONDS: Final = 60
CLOCK_LIMIT_SECONDS: Final = 1500
"""A provider token is up to 35 minutes old here and must not be over an hour old at Apple's."""

_APPLES: Final = frozenset(map(authority, (PRODUCTION_URL, DEVELOPMENT_URL)))


FindProbed = Callable[[str, str], ApnsGateway]
"""Gives the gateway to an environment with the credential of a key id."""


async def probe(
    app: App, serving: Mapping[Environment, Sequence[StoredCredential]], find_gateway: FindProbed
) -> list[Finding]:
    """Send one push with an impossible token to each environment, with each of its credentials.

    Returns findings; with several credentials each names its own. No device has the token, so
    nothing is displayed. Identical findings of several hosts are merged.
    """
    found = await asyncio.gather(
        *(
            _probe_all(app, environment, stored, find_gateway)
            for environment, stored in serving.items()
        )
    )
    return list(dict.fromkeys(finding for findings in found for finding in findings))


async def _probe_all(
    app: App,
    environment: Environment,
    serving: Sequence[StoredCredential],
    find_gateway: FindProbed,
) -> list[Finding]:
    if len(serving) == 1:
        return await _probe_one(app, environment, serving[0].key_id, find_gateway)
    found = await asyncio.gather(
        *(
            _probe_one(
                app, environment, item.key_id, find_gateway, f"the {item.kind} {item.key_id}"
            )
            for item in serving
        )
    )
    works = any(item.verdict == "right" for each in found for item in each if item.check != "clock")
    return [
        _mended(finding, app, stored) if works and finding.check == environment else finding
        for stored, findings in zip(serving, found, strict=True)
        for finding in findings
    ]


def _mended(finding: Finding, app: App, stored: StoredCredential) -> Finding:
    """Return the fix for a credential when another one works."""
    if finding.verdict == "right":
        return finding
    return replace(
        finding,
        verdict="doubtful",
        fix=Fix(
            Action.REMOVE_KEY,
            "What is sent goes by the one that is accepted. Remove this one",
            app=app.id,
            about=stored.key_id,
            end=".",
        ),
    )


async def _probe_one(
    app: App, environment: Environment, key_id: str, find_gateway: FindProbed, name: str = ""
) -> list[Finding]:
    message = compose(Notification(title="Handbell's check-up", ttl=0), app=app, now=0)
    try:
        gateway = find_gateway(environment, key_id)
        outcome = await gateway.probe(environment, message)
    except HandbellError as error:
        return [Finding(check=environment, verdict="wrong", sentence=error.what, fix=error.fix)]
    host = gateway.host(environment)
    findings = [judge_probe(environment, outcome, name, host=host)]
    if gateway.clock_skew is not None:
        clock = judge_clock(gateway.clock_skew, host=host)
        # A clock compared with a local machine, or with itself, proves nothing.
        if clock.verdict != "right" or host in _APPLES:
            findings.append(clock)
    return findings


def _name(environment: Environment, host: str) -> str:
    if environment == "twin":
        return "the twin"
    if host in _APPLES:
        return f"Apple's {environment} host"
    return f"{host} as {environment} host"


def judge_probe(
    environment: Environment, outcome: Outcome, name: str = "", *, host: str
) -> Finding:
    """Return what the answer to an impossible token means for the app's configuration.

    ``name`` names the credential if there are several; ``host`` answered, and is named if it is
    not Apple's.
    """
    host, key = _name(environment, host), name or "the key"
    match outcome:
        case Refused() if outcome.reason in TOKEN_REASONS:
            return Finding(
                check=environment,
                verdict="right",
                sentence=f"{_capital(host)} accepts {key}, the team and the bundle id.",
            )
        case Refused() if outcome.reason.startswith("BadEnvironmentKey"):
            return Finding(
                check=environment,
                verdict="doubtful",
                sentence=f"{_capital(key)} is not meant for {host}.",
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
            return _judge_failure(environment, host, outcome, name)


def _judge_failure(environment: Environment, host: str, outcome: Outcome, name: str) -> Finding:
    reason = getattr(outcome, "reason", "")
    words, fix = meaning(reason, getattr(outcome, "detail", ""))
    is_refused = isinstance(outcome, Refused)
    texts = "refused the check-up" if is_refused else "could not be asked"
    texts += f" with {name}" if name else ""
    # A busy service can be reached; nothing is proven about the configuration.
    is_busy = isinstance(outcome, RetryLater) and outcome.status > 0
    is_cut = isinstance(outcome, LostVerdict) and outcome.reason == "AnswerCut"
    return Finding(
        check=environment,
        verdict="doubtful" if is_busy or is_cut else "wrong",
        sentence=sentence(f"{_capital(host)} {texts}: {reason}, {words}"),
        fix=as_sentence(_beside_the_check_up(fix)),
    )


def _beside_the_check_up(fix: str) -> str:
    """Return the fix for readers of a check-up: without the advice to run one."""
    is_this = isinstance(fix, Fix) and fix.action is Action.CHECK_UP
    return fix.lead if isinstance(fix, Fix) and is_this else fix


def check_signals(signals: Signals) -> Finding:
    """Return whether changes are heard of at once by other processes; ask in a thread."""
    if signals.check():
        return Finding(
            check="signals",
            verdict="right",
            sentence="What changes in the database is heard of at once.",
        )
    return Finding(
        check="signals",
        verdict="doubtful",
        sentence="Signals of the database do not arrive, so changes are polled for.",
        fix="If the database is behind a pooler such as PgBouncer, set HANDBELL_SIGNALS_URL to the "
        "address of the server itself.",
    )


def judge_clock(skew: float, *, host: str) -> Finding:
    """Return what the offset between this clock and that of ``host`` means; in seconds."""
    seconds = abs(round(skew))
    way = "ahead of" if skew > 0 else "behind"
    whose = "Apple" if host in _APPLES else host
    if seconds <= CLOCK_TOLERANCE_SECONDS:
        return Finding(check="clock", verdict="right", sentence="This machine's clock is right.")
    return Finding(
        check="clock",
        verdict="wrong" if seconds > CLOCK_LIMIT_SECONDS else "doubtful",
        sentence=f"This machine's clock is {seconds} seconds {way} that of {whose}.",
        fix="Set it by NTP: Apple refuses provider tokens that seem older than an hour.",
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
