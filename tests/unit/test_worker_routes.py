"""What a worker knows of its ways, and what the database tells it."""

from collections.abc import Callable

import pytest

from handbell.delivery.policy.circuit import CircuitScope, CircuitStop, StoredCircuit
from handbell.delivery.policy.probe import Probe
from handbell.delivery.work.routes import Route, Routes

NOW = 1_800_000_000.0
PLACE = CircuitScope("TEAM123456.com.sample.myapp", "production", "key", "com.sample.myapp")
OTHER = CircuitScope("TEAM654321.com.sample.second", "production", "key", "com.sample.second")


def _stop(probe_at: float = NOW + 5) -> CircuitStop:
    return CircuitStop(reason="HTTP 503", detail="", since=NOW, probe_at=probe_at)


def _routes() -> Routes:
    return Routes(lambda: NOW)


def test_apps_with_one_key_share_the_service_and_not_the_configuration() -> None:
    """A key that serves two apps leads to one service; each app has its own configuration."""
    routes = _routes()
    first, second = routes.of(PLACE), routes.of(OTHER)
    assert routes.of(PLACE) is first
    assert first.service is second.service
    assert first.configuration is not second.configuration
    assert routes.apps_of(PLACE.shared) == [PLACE.app, OTHER.app]


def test_a_probe_is_one_for_all_circuits_on_the_way() -> None:
    """A push that goes through two open circuits needs both, and gives both back, once."""
    routes = _routes()
    first, second = routes.of(PLACE), routes.of(OTHER)
    assert first.acquire(NOW) is None
    first.configuration.stop = _stop(NOW)
    first.service.stop = _stop(NOW + 1)
    assert first.acquire(NOW) is None
    probe = first.acquire(NOW + 1)
    assert probe is not None
    assert first.is_probed
    assert first.acquire(NOW + 1) is second.acquire(NOW + 1) is None
    probe.release()
    later = second.acquire(NOW + 1)
    assert later is not None
    probe.release()
    assert second.service.probe is later


def test_a_permission_of_before_gives_back_no_other() -> None:
    """What a circuit has outlived does not end the probe that is out now."""
    route = _routes().of(PLACE)
    route.service.stop = _stop(NOW)
    Probe(route).release()
    current = route.acquire(NOW)
    Probe(route).release()
    assert route.service.probe is current


@pytest.mark.parametrize("is_made_before", [True, False])
def test_what_others_noted_counts_here(*, is_made_before: bool) -> None:
    """Both circuits of a way stand as the database says, also of a way that is made later."""
    routes = _routes()
    if is_made_before:
        routes.of(PLACE)
    noted = [StoredCircuit(PLACE, NOW, _stop()), StoredCircuit(PLACE.shared, None, _stop())]
    made = [routes.of(PLACE)] if is_made_before else []
    assert routes.adopt(noted, routes.known(made), made) == []
    route = routes.of(PLACE)
    assert len(route.open) == 2
    assert route.configuration.is_established


def _changed(route: Route, _routes: Routes) -> None:
    route.service.stop = _stop(NOW + 9)


def _unwritten(route: Route, routes: Routes) -> None:
    routes.unwritten[route.service.place] = StoredCircuit(
        route.service.place, None, route.service.stop
    )


@pytest.mark.parametrize("meanwhile", [_changed, _unwritten])
def test_what_is_known_better_here_is_kept(meanwhile: Callable[[Route, Routes], None]) -> None:
    """An answer that came while the database was read is newer than what it said."""
    routes = _routes()
    route = routes.of(PLACE)
    route.service.stop = _stop()
    before = routes.known([route])
    meanwhile(route, routes)
    assert routes.adopt([], before, [route]) == []
    assert route.service.stop is not None


def test_the_end_that_others_saw_is_told() -> None:
    """A worker hears which circuits were closed, to tell of it and to let go what it held."""
    routes = _routes()
    route = routes.of(PLACE)
    route.service.stop = _stop()
    route.configuration.stop = _stop()
    assert routes.adopt([], routes.known([route]), [route]) == [PLACE, PLACE.shared]
    assert route.stop is None


def test_a_way_that_is_stopped_is_looked_at_again_in_time() -> None:
    """Not before its probe, not at once while one is out, and soon with a clock set back."""
    route = _routes().of(PLACE)
    route.service.stop = _stop(NOW + 20)
    assert route.resume_at(NOW) == NOW + 20
    for now in (NOW + 20, NOW - 86400):
        assert now < route.resume_at(now) <= now + 1
