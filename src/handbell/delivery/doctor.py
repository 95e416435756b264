"""Pre-flight checks before the first real send; every finding is one sentence and a fix."""

import asyncio
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple, Protocol, runtime_checkable

from handbell._text import sentence
from handbell._thread_pool import in_thread
from handbell.apps.app import App
from handbell.apps.checkup import Finding, check_credentials, check_web_push
from handbell.apps.credential_kinds import KINDS, Credential
from handbell.apps.store import AppStore, StoredCredential
from handbell.creation.notification import Notification
from handbell.delivery.policy.meanings import meaning
from handbell.errors import HandbellError
from handbell.fixes import Action, Fix, as_sentence
from handbell.gateways.composers import composer
from handbell.gateways.gateway import Message
from handbell.gateways.http2_tls import authority
from handbell.gateways.outcomes import (
    Accepted,
    DeviceGone,
    LostVerdict,
    Outcome,
    Refused,
    RetryLater,
)
from handbell.registry.identity import IdentityStore, check_identity
from handbell.services.apns.protocol import DEVELOPMENT_URL, PRODUCTION_URL
from handbell.services.fcm.protocol import URL as FCM_URL
from handbell.services.table import SERVICES
from handbell.settings import Settings
from handbell.storage.database import Database
from handbell.storage.signals import Signals

CLOCK_TOLERANCE_SECONDS: Final = 60
CLOCK_LIMIT_SECONDS: Final = 1500
"""A provider token is up to 35 minutes old here and must not be over an hour old at Apple's."""

_APPLES: Final = frozenset(map(authority, (PRODUCTION_URL, DEVELOPMENT_URL)))
_VENDORS: Final = {**dict.fromkeys(_APPLES, "Apple"), authority(FCM_URL): "Google"}
_PROVEN: Final = {"apns": "the team and the bundle id", "fcm": "and the project"}
"""The services that can be asked without anybody's address, and what their answer proves."""


@runtime_checkable
class ProbedGateway(Protocol):
    """A gateway that can ask its service whether it accepts a credential."""

    clock_skew: float | None

    def host(self, environment: str) -> str:
        """Return the service's host, with its port when that is not 443."""

    async def probe(self, environment: str, message: Message) -> Outcome:
        """Return the service's answer to a token that no device has; nobody is notified."""


class Serving(NamedTuple):
    """The credentials of one push service that serve an environment."""

    service: str
    environment: str
    credentials: Sequence[StoredCredential]

    @property
    def check(self) -> str:
        """Return what a finding about it is called."""
        return self.environment if self.service == "apns" else f"{self.service} {self.environment}"


FindProbed = Callable[[str, str], ProbedGateway]
"""Gives the gateway to an environment with the credential of a key id."""


class Doctor:
    """Checks apps: their credentials, their ids, this machine's clock, and the push services.

    ``open_gateway`` gives the gateway of a credential to an environment, ``now`` is in UNIX
    seconds.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        apps: AppStore,
        identities: IdentityStore,
        *,
        open_gateway: Callable[[Credential, str], object],
        now: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._database = database
        self._apps = apps
        self._identities = identities
        self._open_gateway = open_gateway
        self._now = now

    async def check_up(self, app: App) -> list[Finding]:
        """Check an app's configuration, and ask each push service whether it takes the key."""
        settings, stored = self._settings, self._apps.credentials(app)
        unusable = self._apps.unusable(app)
        findings = list(check_credentials(app, stored, now=self._now(), unusable=unusable))
        findings += check_web_push(
            app, stored, contact=settings.web_push_contact, hosts=settings.web_push_hosts
        )
        findings += check_identity(self._identities.of(app), can_mail=settings.can_mail)
        if self._database.path is None:
            findings.append(await in_thread(check_signals, self._database.signals))
        serving = [
            Serving(name, environment, found)
            for name in _PROVEN
            for environment in SERVICES[name].environments
            if (found := _serving(name, environment, stored, unusable))
        ]
        return findings + await probe(app, serving, partial(self._probed, app))

    def _probed(self, app: App, environment: str, key_id: str) -> ProbedGateway:
        gateway = self._open_gateway(self._apps.credential(app, key_id), environment)
        assert isinstance(gateway, ProbedGateway)  # noqa: S101 - of a service in _PROVEN
        return gateway


def _serving(
    service: str, environment: str, stored: list[StoredCredential], unusable: Container[str]
) -> list[StoredCredential]:
    return [
        item
        for item in stored
        if item.service == service
        and item.key_id not in unusable
        and (item.environment or environment) == environment
        and (item.environment is not None or environment != "twin")
    ]


async def probe(app: App, serving: Sequence[Serving], find_gateway: FindProbed) -> list[Finding]:
    """Send one push with an impossible token to each environment, with each of its credentials.

    Returns findings; with several credentials each names its own. No device has the token, so
    nothing is displayed. Identical findings of several hosts are merged.
    """
    found = await asyncio.gather(*(_probe_all(app, one, find_gateway) for one in serving))
    return list(dict.fromkeys(finding for findings in found for finding in findings))


async def _probe_all(app: App, serving: Serving, find_gateway: FindProbed) -> list[Finding]:
    credentials = serving.credentials
    if len(credentials) == 1 and serving.service == "apns":
        return await _probe_one(app, serving, credentials[0].key_id, find_gateway)
    found = await asyncio.gather(
        *(
            _probe_one(
                app,
                serving,
                item.key_id,
                find_gateway,
                f"the {KINDS[item.kind].title} {item.key_id}",
            )
            for item in credentials
        )
    )
    works = any(item.verdict == "right" for each in found for item in each if item.check != "clock")
    return [
        _mended(finding, app, stored) if works and finding.check == serving.check else finding
        for stored, findings in zip(credentials, found, strict=True)
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
    app: App, serving: Serving, key_id: str, find_gateway: FindProbed, name: str = ""
) -> list[Finding]:
    environment, check = serving.environment, serving.check
    content = Notification(title="Handbell's check-up", ttl=0)
    try:
        message = composer(serving.service).compose(content, app=app, now=0)
        gateway = find_gateway(environment, key_id)
        outcome = await gateway.probe(environment, message)
    except HandbellError as error:
        return [Finding(check=check, verdict="wrong", sentence=error.what, fix=error.fix)]
    host = gateway.host(environment)
    findings = [judge_probe(environment, outcome, name, host=host, service=serving.service)]
    if gateway.clock_skew is not None:
        clock = judge_clock(gateway.clock_skew, host=host)
        # A clock compared with a local machine, or with itself, proves nothing.
        if clock.verdict != "right" or host in _VENDORS:
            findings.append(clock)
    return findings


def _name(environment: str, host: str, service: str) -> str:
    if environment == "twin":
        return "the twin" if service == "apns" else f"the twin's {SERVICES[service].title}"
    if service != "apns":
        return SERVICES[service].title if host in _VENDORS else f"{host} as FCM's host"
    if host in _APPLES:
        return f"Apple's {environment} host"
    return f"{host} as {environment} host"


def judge_probe(
    environment: str, outcome: Outcome, name: str = "", *, host: str, service: str = "apns"
) -> Finding:
    """Return what the answer to an impossible token means for the app's configuration.

    ``name`` names the credential if there are several; ``host`` answered, and is named if it is
    not the vendor's.
    """
    check = Serving(service, environment, ()).check
    host, key = _name(environment, host, service), name or "the key"
    proven = f", {_PROVEN[service]}" if service == "apns" else f" {_PROVEN[service]}"
    match outcome:
        case Refused() if outcome.reason in SERVICES[service].token_reasons:
            return Finding(
                check=check,
                verdict="right",
                sentence=f"{_capital(host)} accepts {key}{proven}.",
            )
        case DeviceGone() if service != "apns":
            return Finding(
                check=check,
                verdict="right",
                sentence=f"{_capital(host)} accepts {key}{proven}.",
            )
        case Refused() if outcome.reason.startswith("BadEnvironmentKey"):
            return Finding(
                check=check,
                verdict="doubtful",
                sentence=f"{_capital(key)} is not meant for {host}.",
                fix="That is right if the app has a key for each environment; else make one that "
                "serves this one.",
            )
        case Accepted() | DeviceGone():
            vendor = SERVICES[service].vendor
            return Finding(
                check=check,
                verdict="doubtful",
                sentence=f"{_capital(host)} answered, but not as {vendor} does to a token of "
                f"{'zeros' if service == 'apns' else 'nobody'}.",
                fix="Check which address the environment points to.",
            )
        case _:
            return _judge_failure(check, host, outcome, name, service)


def _judge_failure(check: str, host: str, outcome: Outcome, name: str, service: str) -> Finding:
    reason = getattr(outcome, "reason", "")
    words, fix = meaning(reason, getattr(outcome, "detail", ""), service)
    is_refused = isinstance(outcome, Refused)
    texts = "refused the check-up" if is_refused else "could not be asked"
    texts += f" with {name}" if name else ""
    # A busy service can be reached; nothing is proven about the configuration.
    is_busy = isinstance(outcome, RetryLater) and outcome.status > 0
    is_cut = isinstance(outcome, LostVerdict) and outcome.reason == "AnswerCut"
    return Finding(
        check=check,
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
    whose = _VENDORS.get(host, host)
    if seconds <= CLOCK_TOLERANCE_SECONDS:
        return Finding(check="clock", verdict="right", sentence="This machine's clock is right.")
    return Finding(
        check="clock",
        verdict="wrong" if seconds > CLOCK_LIMIT_SECONDS else "doubtful",
        sentence=f"This machine's clock is {seconds} seconds {way} that of {whose}.",
        fix="Set it by NTP: push services refuse tokens that seem older than an hour.",
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
