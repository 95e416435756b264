"""Whether sending for an app is stopped: the single decision for all surfaces.

A worker skips a credential that was refused while another one serves the same environment
(:meth:`~handbell.delivery.send.gateway_cache.GatewayCache.find`). So an open circuit stops the app
only when it concerns the credential in use; else it is a caution.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from handbell.apps.credential_choice import by_preference
from handbell.registry.session import Environment
from handbell.services.table import service_of

from .circuit import CircuitStop, StoredCircuit


class Key(NamedTuple):
    """A stored credential: ``environment`` is the only one it serves, or None."""

    fingerprint: str
    key_id: str
    kind: str
    environment: Environment | None = None
    service: str = "apns"


class RefusedCredential(NamedTuple):
    """A credential that was refused while another one is used instead."""

    key: Key
    stop: CircuitStop


class Standing(NamedTuple):
    """Why nothing is sent, the longest stop first; and which credentials are skipped."""

    stops: tuple[CircuitStop, ...] = ()
    cautions: tuple[RefusedCredential, ...] = ()


def is_refused(stop: CircuitStop | None) -> bool:
    """Return whether a credential was refused, so that another one may be used."""
    return stop is not None and stop.reason not in service_of(stop.service).token_reasons


def standing(
    circuits: Iterable[StoredCircuit], keys: Sequence[Key], *, is_registered: bool
) -> Standing:
    """Return an app's standing from its circuits and stored credentials, the newest first.

    An app that is not registered brings its own credential to each send: all its circuits count.
    Circuits of removed credentials are ignored.
    """
    found = list(circuits)
    if not is_registered:
        return Standing(_sorted(item.stop for item in found if item.stop is not None))
    open_by_place: dict[tuple[str, str, str], dict[str, CircuitStop]] = {}
    for one in found:
        if one.stop is not None:
            place = (one.place.service, one.place.environment, one.place.topic)
            open_by_place.setdefault(place, {})[one.place.credential] = one.stop
    stops: list[CircuitStop] = []
    cautions: list[RefusedCredential] = []
    for (service, environment, _), by_key in open_by_place.items():
        mine = [key for key in keys if key.service == service]
        serving = by_preference(environment, mine, lambda key: key.environment)
        used = next(
            (item for item in serving if not is_refused(by_key.get(item.fingerprint))), None
        )
        known = [(item, by_key[item.fingerprint]) for item in serving if item.fingerprint in by_key]
        if used is None:
            stops += [stop for _, stop in known]
            continue
        stops += [stop for key, stop in known if key is used]
        cautions += [RefusedCredential(key, stop) for key, stop in known if is_refused(stop)]
    return Standing(_sorted(stops), tuple(sorted(cautions, key=lambda one: one.stop.since)))


def _sorted(stops: Iterable[CircuitStop]) -> tuple[CircuitStop, ...]:
    return tuple(sorted(stops, key=lambda one: one.since))
