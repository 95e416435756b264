"""What opens a circuit, what closes it, and whose refusal says what: tables and promises."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handbell.delivery.policy.circuit import (
    FEWEST_TOKENS,
    FIRST_SENT,
    LONGEST_ASKED_SECONDS,
    RAMP_SECONDS,
    SEVERAL_PERSONS,
    CircuitScope,
    CircuitStop,
    ConfigurationCircuit,
    ServiceCircuit,
    ServiceFailure,
    TokenRefusal,
)

NOW = 1_800_000_000.0
RNG = Random(1)  # noqa: S311 - jitter
PLACE = CircuitScope("TEAM123456.com.sample.myapp", "production", "fingerprint", "com.sample.myapp")


def _configuration(*, is_established: bool = False) -> ConfigurationCircuit:
    return ConfigurationCircuit(PLACE, is_established=is_established)


def _service() -> ServiceCircuit:
    return ServiceCircuit(PLACE.shared)


def _refusal(person: int | None, *, was_accepted: bool = False, sent_at: float = 1) -> TokenRefusal:
    return TokenRefusal(person, "BadDeviceToken", was_accepted, sent_at)


def _persons(number: int, *, was_accepted: bool = False) -> list[TokenRefusal]:
    return [_refusal(one, was_accepted=was_accepted) for one in range(1, number + 1)]


def _judge(circuit: ConfigurationCircuit, refusals: list[TokenRefusal]) -> list[bool]:
    return circuit.judge(refusals, NOW, RNG)


# Whose refusals speak


@pytest.mark.parametrize("is_established", [False, True])
@pytest.mark.parametrize("was_accepted", [False, True])
@pytest.mark.parametrize("person", [7, None], ids=["one user", "the back end's raw tokens"])
def test_one_person_never_opens_a_circuit(
    *, is_established: bool, was_accepted: bool, person: int | None
) -> None:
    """However many of a person's tokens are refused, in however many sends: they count once."""
    circuit = _configuration(is_established=is_established)
    for _ in range(3):
        _judge(circuit, [_refusal(person, was_accepted=was_accepted)] * 100)
    assert circuit.stop is None


@pytest.mark.parametrize(
    ("is_established", "was_accepted", "persons", "is_open"),
    [
        (False, False, SEVERAL_PERSONS - 1, False),
        (False, False, SEVERAL_PERSONS, True),
        (True, False, 1000, False),
        (True, True, SEVERAL_PERSONS - 1, False),
        (True, True, SEVERAL_PERSONS, True),
    ],
)
def test_only_tokens_that_were_accepted_speak_once_something_was(
    *, is_established: bool, was_accepted: bool, persons: int, is_open: bool
) -> None:
    """New tokens have a say until the first acceptance; from then on only known ones have."""
    circuit = _configuration(is_established=is_established)
    _judge(circuit, _persons(persons, was_accepted=was_accepted))
    assert (circuit.stop is not None) is is_open


@pytest.mark.parametrize("is_at_once", [True, False])
def test_refusals_add_up_over_sends_until_something_is_accepted(*, is_at_once: bool) -> None:
    """Few send to few: the persons of several sends count together, and an acceptance ends it."""
    circuit = _configuration()
    for one in _persons(SEVERAL_PERSONS - 1):
        _judge(circuit, [one])
    if not is_at_once:
        circuit.note_accepted(0.5)
    _judge(circuit, [_refusal(99)])
    assert (circuit.stop is not None) is is_at_once


@pytest.mark.parametrize(
    ("refusals", "is_established", "heard_at", "verdicts"),
    [
        pytest.param([_refusal(1)], False, None, [False], id="nothing was ever accepted"),
        pytest.param([_refusal(1)], False, 1, [True], id="accepted while it was on its way"),
        pytest.param([_refusal(1)], False, 0.5, [True], id="the first acceptance, before it"),
        pytest.param([_refusal(1)], True, None, [True], id="new, and the app is established"),
        pytest.param([_refusal(None)], True, None, [True], id="a raw token is nobody's session"),
        pytest.param([_refusal(1, was_accepted=True)], True, None, [False], id="known, no proof"),
        pytest.param([_refusal(1, was_accepted=True)], True, 1, [True], id="known, and proof"),
        pytest.param(
            [_refusal(1), _refusal(2, was_accepted=True)], True, None, [False, False],
            id="a known one is in doubt, so no one is judged",
        ),
        pytest.param(
            _persons(SEVERAL_PERSONS), True, None, [False] * SEVERAL_PERSONS,
            id="so many new ones may be our fault",
        ),
        pytest.param(
            [_refusal(1)] * 3, True, None, [True] * 3,
            id="many of one person's",
        ),
    ],
)  # fmt: skip
def test_a_token_is_judged_only_where_the_configuration_is_known_to_be_right(
    refusals: list[TokenRefusal],
    is_established: bool,  # noqa: FBT001
    heard_at: float | None,
    verdicts: list[bool],
) -> None:
    """A token that a wrong configuration could explain is not blamed."""
    circuit = _configuration(is_established=is_established)
    if heard_at is not None:
        circuit.note_accepted(heard_at)
    assert _judge(circuit, refusals) == verdicts


def test_a_later_acceptance_says_nothing_of_an_earlier_refusal() -> None:
    """What was refused before the configuration was mended is not blamed once it is."""
    circuit = _configuration(is_established=True)
    assert _judge(circuit, [_refusal(1, was_accepted=True), _refusal(2)]) == [False, False]
    circuit.note_accepted(2)
    assert _judge(circuit, [_refusal(3, sent_at=3)]) == [True]
    assert _judge(circuit, [_refusal(1, was_accepted=True, sent_at=3)]) == [False]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["accepted", "refused", "rejected"]),
            st.integers(1, 4),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_fewer_than_several_persons_never_open_it(steps: list[tuple[str, int, bool]]) -> None:
    """Whatever order acceptances and refusals come in, four persons cannot stop an app."""
    circuit = _configuration()
    for at, (what, person, was_accepted) in enumerate(steps):
        if what == "accepted":
            circuit.note_accepted(at)
        else:
            _judge(circuit, [_refusal(person, was_accepted=was_accepted, sent_at=at)])
        assert circuit.stop is None


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 30), st.booleans()), max_size=80))
def test_nobody_is_blamed_without_an_acceptance(steps: list[tuple[bool, int, bool]]) -> None:
    """Until a push was accepted with this configuration, no refusal ever costs a session."""
    circuit = _configuration()
    blamed: list[bool] = []
    for at, (is_refusal, person, was_accepted) in enumerate(steps):
        if is_refusal:
            blamed += _judge(circuit, [_refusal(person, was_accepted=was_accepted)])
        else:
            circuit.refuse("BadTopic", "", NOW + at, RNG, is_probe=circuit.probe is not None)
    assert not any(blamed)


# The configuration's circuit, open


def test_a_refused_key_opens_it_at_once_and_keeps_the_first_reason() -> None:
    """One refusal of the configuration is enough; what was on its way with it says nothing new."""
    circuit = _configuration(is_established=True)
    assert circuit.refuse("InvalidProviderToken", "", NOW, RNG, is_probe=False)
    assert not circuit.refuse("TopicDisallowed", "", NOW + 1, RNG, is_probe=False)
    assert circuit.stop is not None
    assert (circuit.stop.reason, circuit.stop.since) == ("InvalidProviderToken", NOW)


def test_one_probe_at_a_time_and_later_each_time() -> None:
    """A refused probe doubles the wait, an unclear one as well; an accepted push closes it."""
    circuit = _configuration()
    circuit.refuse("BadTopic", "", NOW, RNG, is_probe=False)
    now, waits = NOW, []
    for turn in range(4):
        assert circuit.stop is not None
        assert not circuit.may_probe(now)
        waits.append(circuit.stop.probe_at - now)
        now = circuit.stop.probe_at
        assert circuit.may_probe(now)
        circuit.probe = object()
        assert not circuit.may_probe(now)
        if turn % 2:
            assert circuit.put_off(now, RNG)
        else:
            assert circuit.refuse("BadTopic", "", now, RNG, is_probe=True)
    assert waits == sorted(waits)
    assert waits[0] >= 60
    assert circuit.note_accepted(1).has_closed
    assert circuit.stop is None
    assert not circuit.put_off(now, RNG)


# The service


def _strike(circuit: ServiceCircuit, number: int, now: float, *, tokens: int = 1000) -> bool:
    """Have so many pushes meet trouble; say whether that opened it, all heard out."""
    for one in range(number):
        trouble = ServiceFailure(f"{one % tokens}", "ServiceUnavailable")
        circuit.note_trouble(trouble, now)
    return circuit.judge(trouble, now, RNG, is_heard_out=True)


@pytest.mark.parametrize(
    ("taken", "troubled", "tokens", "is_open"),
    [
        (0, FEWEST_TOKENS - 1, 9, False),
        (0, FEWEST_TOKENS, 9, True),
        (0, 500, 1, False),
        (0, 500, FEWEST_TOKENS - 1, False),
        (1, 8, 9, False),
        (1, 9, 9, True),
        (50, 50, 99, False),
        (10, 60, 99, False),
    ],
)
def test_an_outage_is_when_nearly_everything_fails(
    taken: int,
    troubled: int,
    tokens: int,
    is_open: bool,  # noqa: FBT001
) -> None:
    """Neither one token's trouble nor that of some among many that are taken is an outage."""
    circuit = _service()
    circuit.note_taken(taken, NOW)
    assert _strike(circuit, troubled, NOW, tokens=tokens) is is_open
    assert (circuit.stop is not None) is is_open


def test_an_outage_after_a_million_that_were_taken_is_seen_soon() -> None:
    """Only the last answers count, and old ones not at all."""
    busy, idle = _service(), _service()
    busy.note_taken(1_000_000, NOW)
    assert _strike(busy, 400, NOW)
    idle.note_taken(1_000_000, NOW)
    assert _strike(idle, FEWEST_TOKENS, NOW + 60)


def test_trouble_waits_for_better_news_but_a_missing_connection_does_not() -> None:
    """While answers are still to come nothing is decided, unless nothing can be reached at all."""
    circuit = _service()
    for one in range(10):
        trouble = ServiceFailure(str(one), "ServiceUnavailable")
        circuit.note_trouble(trouble, NOW)
        assert not circuit.judge(trouble, NOW, RNG, is_heard_out=False)
    unreached = ServiceFailure("1", "CannotConnect", is_certain=True)
    circuit.note_trouble(unreached, NOW)
    assert circuit.judge(unreached, NOW, RNG, is_heard_out=False)


def test_probes_come_within_seconds_and_never_far_apart() -> None:
    """Seconds of back-off, with chance, and a bound: 1, 2, 4 ... 30, and a quarter more."""
    circuit = _service()
    assert _strike(circuit, 5, NOW)
    now, waits = NOW, []
    for _ in range(8):
        assert circuit.stop is not None
        waits.append(circuit.stop.probe_at - now)
        now = circuit.stop.probe_at
        assert circuit.may_probe(now)
        circuit.probe = object()
        assert circuit.judge(
            ServiceFailure("1", "HTTP 502"), now, RNG, is_heard_out=True, is_probe=True
        )
    for wait, base in zip(waits, [1, 2, 4, 8, 16, 30, 30, 30], strict=True):
        assert base <= wait <= 1.25 * base
    assert circuit.stop is not None
    assert circuit.stop.since == NOW


@pytest.mark.parametrize(
    ("asked", "least", "most"), [(0, 1, 1.25), (20, 20, 20), (86400, LONGEST_ASKED_SECONDS, 900)]
)
def test_a_wait_that_the_service_asks_for_is_honoured_within_a_bound(
    asked: float, least: float, most: float
) -> None:
    """No probe before the service's ``Retry-After``; but a whole day is not waited for."""
    circuit = _service()
    for one in range(5):
        trouble = ServiceFailure(str(one), "ServiceUnavailable", after=asked)
        circuit.note_trouble(trouble, NOW)
    assert circuit.judge(trouble, NOW, RNG, is_heard_out=True)
    assert least <= circuit.wait(NOW) <= most


def test_a_clock_that_is_set_back_does_not_put_off_a_probe() -> None:
    """An hour of the wall clock is no hour of waiting, in either circuit."""
    service, configuration = _service(), _configuration()
    _strike(service, 5, NOW)
    configuration.refuse("BadTopic", "", NOW, RNG, is_probe=False)
    for circuit in (service, configuration):
        assert circuit.may_probe(NOW - 3600)
        assert not circuit.may_probe(NOW - 1)


def test_after_an_outage_pushes_go_at_a_ramp() -> None:
    """Few at first, two more for each that is taken, and all once it has proven itself."""
    circuit = _service()
    _strike(circuit, 5, NOW)
    assert circuit.note_taken(1, NOW)
    granted = [circuit.grant(5000, NOW)]
    for _ in range(12):
        assert circuit.grant(5000, NOW) in (0, 5000)
        assert not circuit.note_taken(granted[-1], NOW)
        granted.append(circuit.grant(5000, NOW))
    assert granted[0] <= FIRST_SENT + 2
    assert granted[1] == 2 * granted[0]
    assert granted[-1] == 5000


@pytest.mark.parametrize("later", [RAMP_SECONDS + 1, -3600])
def test_a_ramp_ends_by_itself(later: float) -> None:
    """Where no answer is heard, or the clock is set back, nothing waits for the ramp for ever."""
    circuit = _service()
    _strike(circuit, 5, NOW)
    circuit.note_taken(1, NOW)
    circuit.grant(5000, NOW)
    assert circuit.grant(5000, NOW) == 0
    assert circuit.grant(5000, NOW + later) == 5000


def test_a_service_that_fails_again_at_once_is_not_probed_as_often() -> None:
    """An outage that was over for seconds goes on where it was; one after a minute begins anew."""
    circuit = _service()
    _strike(circuit, 5, NOW)
    for _ in range(3):
        circuit.probe = object()
        circuit.judge(ServiceFailure("1", "HTTP 503"), NOW, RNG, is_heard_out=True, is_probe=True)
    for after, least in ((2, 16), (100, 1)):
        circuit.note_taken(1, NOW)
        assert _strike(circuit, 60, NOW + after)
        assert least <= circuit.wait(NOW + after) <= 1.25 * least


# What others have noted


def _stop(probe_at: float) -> CircuitStop:
    return CircuitStop(reason="ServiceUnavailable", detail="", since=NOW, probe_at=probe_at)


def test_what_others_noted_is_taken_over_except_during_a_probe() -> None:
    """Each process learns of an outage and of its end; where others saw it end, the ramp begins."""
    circuit = _service()
    assert not circuit.adopt(_stop(NOW + 5), NOW)
    circuit.probe = object()
    assert not circuit.adopt(None, NOW)
    assert circuit.stop is not None
    circuit.probe = None
    assert circuit.adopt(None, NOW)
    assert circuit.grant(5000, NOW) == FIRST_SENT


def test_what_nobody_has_probed_for_long_is_not_known_any_more() -> None:
    """An outage that another process left behind stops nobody today; one's own is probed first."""
    circuit = _service()
    circuit.adopt(_stop(NOW), NOW + 2 * 3600)
    assert circuit.stop is None
    circuit.adopt(_stop(NOW), NOW)
    circuit.adopt(_stop(NOW), NOW + 2 * 3600)
    assert circuit.stop is not None


@given(
    st.lists(
        st.tuples(st.sampled_from(["taken", "trouble", "probe", "wait"]), st.integers(1, 40)),
        max_size=80,
    )
)
def test_an_outage_always_ends_with_what_is_taken(steps: list[tuple[str, int]]) -> None:
    """Whatever happened: a probe is never further away than the bound, and one answer closes it."""
    circuit, now = _service(), NOW
    for what, number in steps:
        match what:
            case "taken":
                circuit.note_taken(number, now)
                assert circuit.stop is None
            case "trouble":
                _strike(circuit, number, now)
            case "probe":
                if circuit.may_probe(now):
                    circuit.probe = object()
                is_probe = circuit.probe is not None
                trouble = ServiceFailure("1", "HTTP 503")
                circuit.judge(trouble, now, RNG, is_heard_out=True, is_probe=is_probe)
            case _:
                now += number
        assert circuit.wait(now) <= 37.5
