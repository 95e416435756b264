"""An answer that broke off is no verdict: nothing follows from it but another try."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.scene import Scene

from handbell.delivery.events import Event, VerdictLost
from handbell.gateways.gateway import Gateway, Push, Report
from handbell.gateways.outcomes import Accepted, DeviceGone, LostVerdict, Outcome
from handbell.system import System


class Scripted:
    """A gateway that gives each push the next of its outcomes, and then accepts."""

    fingerprint = "a key"

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[str] = []

    async def send(self, batch: Sequence[Push], report: Report) -> None:
        """Report the next outcome for each push."""
        for push in batch:
            self.asked.append(push.environment)
            report(push, self.outcomes.pop(0) if self.outcomes else Accepted(push.id))

    def require(self, may_begin: Callable[[], bool]) -> None:
        """Begin all of it at once."""

    def withdraw(self, is_meant: Callable[[Push], bool]) -> None:
        """Have nothing that could be taken back."""

    async def close(self) -> None:
        """Have nothing to close."""


class Rigged(System):
    """A system that sends through a gateway of the test's."""

    gateway: Gateway

    def find_gateway(self, *_way: Any, **_besides: Any) -> Gateway:
        """Return the test's gateway for every way."""
        return self.gateway


@pytest.mark.parametrize("status", [301, 400, 403, 404, 410, 413, 429])
def test_a_refusal_that_broke_off_costs_nothing_but_seconds(scene: Scene, status: int) -> None:
    """However many: no circuit opens, no session changes, no other host is asked; it is counted."""
    phones = scene.add_phones(30)
    system = Rigged(scene.task.settings(), now=scene.clock)
    scene.opened.append(system)
    system.gateway = gateway = Scripted(*[LostVerdict(status)] * 30)
    told: list[Event] = []

    async def scenario() -> None:
        async with scene.running(system) as engine:
            engine.worker.hooks.add(told.append)
            response = await scene.send(engine, [phone.mail for phone in phones])
            assert scene.states(response) == {"held": 30}
            assert not response.errors
            held = scene.deliveries(response)
            assert {(one.reason, one.status) for one in held} == {("AnswerCut", status)}
            rules = scene.system.rules_store.rules_of(scene.app.id)
            assert (rules.stops, rules.outages(scene.clock())) == ((), ())
            scene.clock.move(7)
            await scene.until(engine, lambda: scene.states(response) == {"sent": 30})

    asyncio.run(scenario())
    assert set(gateway.asked) == {"production"}
    assert scene.statuses() == {"active": 30}
    assert [one.status for one in told if isinstance(one, VerdictLost)] == [status] * 30


@pytest.mark.parametrize("outcome", [LostVerdict(410), DeviceGone("HTTP 410", None)])
def test_verdicts_that_are_always_lost_end_within_the_bound(scene: Scene, outcome: Outcome) -> None:
    """It is not tried for ever: after a day the delivery has failed, and the session is kept."""
    (phone,) = scene.add_phones(1)
    system = Rigged(scene.task.settings(), now=scene.clock)
    scene.opened.append(system)
    system.gateway = Scripted(*[outcome] * 1000)

    async def scenario() -> None:
        async with scene.running(system) as engine:
            response = await scene.send(engine, phone.mail)
            for _ in range(8):
                scene.clock.move(4 * 3600)
                engine.worker.wake()
                await asyncio.sleep(0.1)
            await scene.until(engine, lambda: scene.states(response) == {"failed": 1})

    asyncio.run(scenario())
    assert scene.statuses() == {"active": 1}


def test_a_server_error_that_broke_off_is_trouble_of_the_service(scene: Scene) -> None:
    """A 5xx needs no body to say that nothing is taken: many of them are an outage."""
    phones = scene.add_phones(20)
    system = Rigged(scene.task.settings(), now=scene.clock)
    scene.opened.append(system)
    system.gateway = Scripted(*[LostVerdict(503)] * 20)

    async def scenario() -> None:
        async with scene.running(system) as engine:
            response = await scene.send(engine, [phone.mail for phone in phones])
            assert {one.reason for one in scene.deliveries(response)} == {"ServiceDown"}
            scene.clock.move(3)
            await scene.until(engine, lambda: scene.states(response) == {"sent": 20})

    asyncio.run(scenario())
