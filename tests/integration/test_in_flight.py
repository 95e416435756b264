"""What is on its way is counted by tickets: whatever happens, in whatever order, it adds up.

The worker, its settlement and its database are the real ones; only the gateway is scripted.
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Coroutine
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from sqlalchemy import select
from tests.scripted import EVERYBODY, OUTCOMES, Call, Failing, Play, make_home, open_play

from handbell.delivery.accept.store import Acceptance  # noqa: TC001 - rules read their types
from handbell.delivery.delivery import FINAL_STATES
from handbell.errors import HandbellError
from handbell.storage.tables import deliveries

PEOPLE = 8
SOME = st.integers(1, 6)
WHICH = st.integers(0, 7)
OUTCOME = st.sampled_from(sorted(OUTCOMES))


@cache
def template() -> Path:
    """Return a home that is copied for each run."""
    home = Path(tempfile.mkdtemp(prefix="handbell-test-")) / "home"
    make_home(home, PEOPLE)
    return home


class OnItsWay(RuleBasedStateMachine):
    """Sends, answers, silence, revocations, cancels, rules, failures and stops, as they come."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="handbell-test-"))
        self.stack = contextlib.ExitStack()
        self.failing = self.stack.enter_context(Failing())
        self.play: Play = self.stack.enter_context(open_play(self.folder, template=template()))
        self.accepted: list[Acceptance] = []
        self.over: list[Call] = []

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run something, and what follows from it for a moment."""

        async def and_a_moment() -> Any:
            result = await work
            self.play.engine.worker.wake()
            for _ in range(4):
                await asyncio.sleep(0.002)
                assert not self.play.faults()
            return result

        return self.loop.run_until_complete(and_a_moment())

    @initialize()
    def start(self) -> None:
        """Begin to take work."""
        self.run(self.play.start())

    @rule(who=st.sets(WHICH, min_size=1), urgency=st.sampled_from(["urgent", "normal", "bulk"]))
    def send(self, who: set[int], urgency: str) -> None:
        """Send to some by name."""
        self._accept([self.play.mails[one] for one in sorted(who)], urgency)

    @rule(urgency=st.sampled_from(["normal", "bulk"]))
    def send_to_all(self, urgency: str) -> None:
        """Send to everybody."""
        self._accept(EVERYBODY, urgency)

    def _accept(self, to: object, urgency: str) -> None:
        with contextlib.suppress(HandbellError):
            self.accepted.append(self.run(self.play.accept(to, {"urgency": urgency})))

    @rule(which=WHICH, number=SOME, outcome=OUTCOME)
    def answer(self, which: int, number: int, outcome: str) -> None:
        """Answer some of what the gateway has."""

        async def answer() -> None:
            if call := self._call(which):
                call.answer(number, OUTCOMES[outcome])

        self.run(answer())

    @rule(which=WHICH, error=st.sampled_from([None, RuntimeError("broken")]))
    def fall_silent(self, which: int, error: Exception | None) -> None:
        """Return from a gateway without the rest of the answers, or raise."""

        async def end() -> None:
            if call := self._call(which):
                call.end(error)

        self.run(end())

    @rule(which=WHICH, outcome=OUTCOME)
    def repeat(self, which: int, outcome: str) -> None:
        """Answer what was answered, or what nobody waits for any more."""

        async def repeat() -> None:
            if self.over:
                self.over[which % len(self.over)].repeat(OUTCOMES[outcome])

        self.run(repeat())

    def _call(self, which: int) -> Call | None:
        if not self.play.gateway.calls:
            return None
        call = self.play.gateway.calls[which % len(self.play.gateway.calls)]
        self.over.append(call)
        return call

    @rule(which=WHICH)
    def revoke(self, which: int) -> None:
        """Close a session and let go of what goes to it, without waiting for the answers."""
        session = which + 1

        async def revoke() -> None:
            self.play.system.registry.close(session, "logout")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await self.play.engine.release([session])

        with contextlib.suppress(HandbellError):
            self.run(revoke())

    @rule(which=WHICH)
    def come_back(self, which: int) -> None:
        """Register a device again."""
        with contextlib.suppress(HandbellError):
            mail = self.play.mails[which]
            self.play.system.registry.register(self.play.app, mail, f"{which + 1:064x}")

    @rule(which=WHICH)
    def cancel(self, which: int) -> None:
        """Take a notification back."""

        async def cancel() -> None:
            if not self.accepted:
                return
            acceptance = self.accepted[which % len(self.accepted)]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.01):
                    await self.play.engine.cancel(self.play.app, acceptance.id)

        with contextlib.suppress(HandbellError):
            self.run(cancel())

    @rule(
        rules=st.sampled_from(
            [{"cap": "1/day"}, {"cap": "none"}, {"rate_limit": "2/minute"}, {"rate_limit": "none"}]
        )
    )
    def lay_down(self, rules: dict[str, str]) -> None:
        """Change the app's rules."""
        with contextlib.suppress(HandbellError):
            self.play.system.app_control.set_rules(self.play.app, rules)

    @rule(is_enabled=st.booleans())
    def switch(self, is_enabled: bool) -> None:  # noqa: FBT001
        """Switch the app off and on."""
        with contextlib.suppress(HandbellError):
            self.play.system.app_control.switch(self.play.app, is_enabled)

    @rule()
    def resume(self) -> None:
        """Close the circuit by hand."""
        with contextlib.suppress(HandbellError):
            self.play.system.app_control.resume(self.play.app)

    @rule(is_missing=st.booleans())
    def lose_key(self, is_missing: bool) -> None:  # noqa: FBT001
        """Remove the app's key, or add it again."""
        self.play.system.is_missing = is_missing

    @rule(seconds=st.sampled_from([6, 70, 1200]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.play.clock.move(seconds)
        self.run(asyncio.sleep(0))

    @rule(is_failing=st.booleans())
    def fail(self, is_failing: bool) -> None:  # noqa: FBT001
        """Let the database take nothing, or all again."""
        self.failing.is_failing = is_failing

    @rule()
    def stop(self) -> None:
        """Stop with all that is on its way, and start in another process."""
        self._stop()
        self.failing.is_failing = False
        self.play.again()
        self.run(self.play.start())

    def _stop(self) -> None:
        self.over += self.play.gateway.calls
        self.loop.run_until_complete(self.play.stop(within=0.02))
        assert not any(route.is_probed for route in self.play.app_state.routes)

    @invariant()
    def adds_up(self) -> None:
        """All counts follow from the tickets."""
        assert not self.play.faults()

    def teardown(self) -> None:
        """Let all of it end: nothing is lost, and nothing is left behind."""
        try:
            self._end_all()
            self._stop()
        finally:
            self.loop.run_until_complete(self.play.engine.worker.stop(within=0.02))
            self.loop.run_until_complete(self.play.system.close_gateways())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()
            self.stack.close()
            shutil.rmtree(self.folder)

    def _end_all(self) -> None:
        self.failing.is_failing = False
        play = self.play
        play.system.is_missing = False
        play.gateway.answers = "accepted"
        play.system.app_control.set_rules(play.app, {"cap": "none", "rate_limit": "none"})
        play.system.app_control.switch(play.app, True)
        play.system.app_control.resume(play.app)

        async def end() -> None:
            for call in list(play.gateway.calls):
                call.answer(len(call.pushes), None)
            for _ in range(1500):
                play.clock.move(1200)
                play.engine.worker.wake()
                await asyncio.sleep(0.01)
                if not play.engine.worker.in_flight.load.all and not self._unended():
                    return
            raise AssertionError(f"it does not end: {self._unended()}")

        if self.accepted:
            self.loop.run_until_complete(end())
            for acceptance in self.accepted:
                self.loop.run_until_complete(play.engine.worker.settled(acceptance.row))

    def _unended(self) -> list[tuple[int, str, str | None]]:
        statement = select(deliveries.c.number, deliveries.c.state, deliveries.c.reason).where(
            deliveries.c.state.not_in(FINAL_STATES)
        )
        with self.play.system.database.read() as connection:
            return [tuple(row) for row in connection.execute(statement)]


TestOnItsWay = OnItsWay.TestCase
TestOnItsWay.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
