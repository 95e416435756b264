"""Whether an app is stopped is asked in one place: by its keys, and by how its circuits stand."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.apps.credential_choice import by_preference
from handbell.delivery.policy.circuit import CircuitScope, CircuitStop, StoredCircuit
from handbell.delivery.policy.standing import Key, is_refused, standing
from handbell.registry.session import Environment

APP = "TEAM123456.com.sample.myapp"
TOPIC = "com.sample.myapp"
NEW = Key("f-new", "NEWKEY1234", "key")
OLD = Key("f-old", "OLDKEY1234", "key")
LIMITED = Key("f-lim", "ABCDEF1234", "certificate", "production")


def opened(
    key: Key | str,
    reason: str = "InvalidProviderToken",
    environment: Environment = "production",
    topic: str = TOPIC,
    since: float = 1.0,
) -> StoredCircuit:
    """Return a circuit that is open."""
    credential = key if isinstance(key, str) else key.fingerprint
    stop = CircuitStop(
        reason=reason,
        detail="",
        since=since,
        probe_at=2.0,
        environment=environment,
        topic=topic,
    )
    return StoredCircuit(CircuitScope(APP, environment, credential, topic), None, stop)


CASES: dict[str, tuple[list[StoredCircuit], list[Key], int, list[str]]] = {
    "the only key is refused": ([opened(NEW)], [NEW], 1, []),
    "one of two keys is refused": ([opened(NEW)], [NEW, OLD], 0, ["NEWKEY1234"]),
    "the key that is not used is refused": ([opened(OLD)], [NEW, OLD], 0, ["OLDKEY1234"]),
    "both keys are refused": ([opened(NEW), opened(OLD)], [NEW, OLD], 2, []),
    "a limited one wins over the others": ([opened(LIMITED)], [NEW, LIMITED], 0, ["ABCDEF1234"]),
    "a limited one serves nowhere else": (
        [opened(NEW, environment="development")],
        [NEW, LIMITED],
        1,
        [],
    ),
    "the twin takes any": ([opened(NEW, environment="twin")], [NEW, LIMITED], 0, ["NEWKEY1234"]),
    "tokens are refused with the key that is used": (
        [opened(NEW, "BadDeviceToken")],
        [NEW, OLD],
        1,
        [],
    ),
    "tokens were refused with a key that is not used": (
        [opened(OLD, "DeviceTokenNotForTopic")],
        [NEW, OLD],
        0,
        [],
    ),
    "one key is refused, tokens with the other": (
        [opened(NEW), opened(OLD, "BadDeviceToken")],
        [NEW, OLD],
        1,
        ["NEWKEY1234"],
    ),
    "another topic has its own circuits": (
        [opened(NEW, topic=f"{TOPIC}.voip"), opened(OLD)],
        [NEW, OLD],
        0,
        ["NEWKEY1234", "OLDKEY1234"],
    ),
    "a certificate is hung up on": (
        [opened(LIMITED, "ClientCertificateRefused")],
        [LIMITED, OLD],
        0,
        ["ABCDEF1234"],
    ),
    "the key was removed": ([opened("f-gone")], [NEW], 0, []),
    "there is no key left": ([opened("f-gone")], [], 0, []),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_app_is_stopped_where_no_credential_is_left(
    case: tuple[list[StoredCircuit], list[Key], int, list[str]],
) -> None:
    """A refused key beside one that is used is a caution, and no stop."""
    circuits, keys, stops, cautions = case
    found = standing(circuits, keys, is_registered=True)
    assert (len(found.stops), [one.key.key_id for one in found.cautions]) == (stops, cautions)


def test_an_app_outside_the_registry_is_stopped_by_any_circuit() -> None:
    """It brings its key with each send; none is stored that could take its place."""
    found = standing([opened("f-1", since=5.0), opened("f-2")], [], is_registered=False)
    assert [one.since for one in found.stops] == [1.0, 5.0]


@given(st.data())
def test_it_agrees_with_how_a_worker_chooses(data: st.DataObject) -> None:
    """Passing over refused ones, as a worker does, ends at an open circuit where it is stopped."""
    environments: list[Environment] = ["production", "development", "twin"]
    keys = [
        Key(f"f-{number}", f"K{number}", "key", data.draw(st.sampled_from([None, *environments])))
        for number in range(data.draw(st.integers(1, 4)))
    ]
    environment = data.draw(st.sampled_from(environments))
    reasons = st.sampled_from([None, "InvalidProviderToken", "BadDeviceToken"])
    circuits = [
        opened(key, reason, environment)
        for key in keys
        if (reason := data.draw(reasons)) is not None
    ]
    stop_of = {one.place.credential: one.stop for one in circuits}
    refused: set[str] = set()
    serving = by_preference(environment or "", keys, lambda key: key.environment)
    chosen = None
    while serving:
        chosen = next((one for one in serving if one.fingerprint not in refused), serving[0])
        if chosen.fingerprint in refused or not is_refused(stop_of.get(chosen.fingerprint)):
            break
        refused.add(chosen.fingerprint)
    found = standing(circuits, keys, is_registered=True)
    expected = chosen is not None and chosen.fingerprint in stop_of
    assert bool(found.stops) is expected
    told = {id(stop) for stop in found.stops} | {id(one.stop) for one in found.cautions}
    assert len(told) == len(found.stops) + len(found.cautions)


def test_the_order_of_credentials_is_the_newest_first_behind_the_limited() -> None:
    """Whatever the environment, what is limited to another one does not serve it."""
    keys = [NEW, LIMITED, OLD]
    order = {
        name: [one.key_id for one in by_preference(name, keys, lambda key: key.environment)]
        for name in ("production", "development", "twin")
    }
    assert order == {
        "production": ["ABCDEF1234", "NEWKEY1234", "OLDKEY1234"],
        "development": ["NEWKEY1234", "OLDKEY1234"],
        "twin": ["NEWKEY1234", "ABCDEF1234", "OLDKEY1234"],
    }
    assert all(a != b for a, b in combinations(order.values(), 2))
