"""A broadcast waits as shards: each session gets one push, at its time, and no row before it."""

import asyncio
import atexit
import contextlib
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, select
from tests.scripted import (
    EVERYBODY,
    Failing,
    Play,
    ScriptedGateway,
    clocked_system,
    make_home,
    open_play,
)

from handbell.delivery.policy.quiet_hours import held_until, read_quiet_hours
from handbell.delivery.policy.schedule import LocalTime, due_at
from handbell.delivery.work.app_states import RULES_SECONDS
from handbell.errors import StorageError
from handbell.gateways.gateway import Push, Report
from handbell.registry.session import Session
from handbell.storage.tables import deliveries, notifications, shards

EAST, MIDDLE, WEST = "Asia/Tokyo", "Europe/Paris", "America/New_York"
ZONES = (EAST, MIDDLE, WEST)
HOUR = 3600

pytestmark = pytest.mark.databases
DAY = 24 * HOUR


@dataclass
class Stage:
    """A play with people in time zones, by the clock of their walls."""

    play: Play
    sessions: dict[str, Session] = field(default_factory=dict)

    def register(self, name: str, zone: str | None, *, mail: str = "") -> Session:
        """Register a person's device, or again with another zone."""
        token = f"{name.encode().hex():0>64}"
        mail = mail or f"{name}@example.com"
        self.sessions[name] = self.play.system.registry.register(
            self.play.app, mail, token, time_zone=zone
        )
        return self.sessions[name]

    def in_morning(self) -> datetime:
        """Set the clock so that nine o'clock is still to come everywhere, and return that."""
        now = datetime.fromtimestamp(self.play.clock(), UTC)
        day = (now + timedelta(days=3)).replace(hour=9, minute=0, second=0, microsecond=0)
        self.until(day - timedelta(hours=16))
        return day.replace(tzinfo=None)

    def until(self, moment: datetime) -> None:
        """Let time pass until an instant, and a second more."""
        self.play.clock.move(moment.timestamp() + 1 - self.play.clock())

    def count(self, table: Any, *where: Any) -> int:
        """Return how many rows there are."""
        with self.play.system.database.read() as connection:
            statement = select(func.count()).select_from(table).where(*where)
            return connection.scalar(statement) or 0

    def pushed(self) -> Counter[str]:
        """Return how often each person's device was pushed to."""
        named = {session.id: name for name, session in self.sessions.items()}
        pushed = self.play.gateway.pushed
        with self.play.system.database.read() as connection:
            rows = connection.execute(select(deliveries.c.number, deliveries.c.state)).all()
        assert pushed.total() == sum(row.state == "sent" for row in rows)
        assert set(pushed.values()) <= {1}
        return Counter(named[row.number] for row in rows if row.state == "sent")

    def rules(self, **rules: str) -> None:
        """Set the app's rules as an operator does; they hold for workers by then."""
        self.play.system.app_control.set_rules(self.play.app, rules)
        self.play.clock.move(RULES_SECONDS + 2)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Work while the block runs."""
        await self.play.start()
        try:
            yield
        finally:
            await self.play.stop()

    async def at_rest(self) -> None:
        """Return when everything waits for its time or has ended."""
        await asyncio.wait_for(self.play.engine.worker.idle(), 20)

    async def work(self) -> None:
        """Do all there is to do now."""
        async with self.running():
            await self.at_rest()

    async def go_through(self, *, most: int = 60) -> None:
        """Let time pass from one due time to the next until nothing waits."""
        for _ in range(most):
            await self.work()
            with self.play.system.database.read() as connection:
                due = [
                    connection.scalar(select(func.min(table.c.due_at)))
                    for table in (shards, deliveries)
                ]
            if not any(due):
                return
            self.play.clock.move(min(one for one in due if one) / 1000 + 1 - self.play.clock())
        raise AssertionError("it did not come to an end")


@cache
def empty_home() -> Path:
    """Return a home with an app and nobody in it, made once."""
    folder = Path(tempfile.mkdtemp()) / "home"
    make_home(folder, 0)
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    return folder


@pytest.fixture
def stage(tmp_path: Path, database_url: str) -> Iterator[Stage]:
    """Give a stage without people whose gateway accepts everything."""
    with open_play(tmp_path, people=0, template=empty_home(), database_url=database_url) as play:
        play.gateway.answers = "accepted"
        yield Stage(play)


def local(wall: datetime) -> dict[str, Any]:
    """Return the options of a send at a local time."""
    return {"send_at": wall.isoformat()}


def moment(wall: datetime, zone: str) -> datetime:
    """Return when a clock on a wall reads so."""
    return wall.replace(tzinfo=ZoneInfo(zone))


# How little a wait is


def _at_a_local_time(stage: Stage) -> dict[str, Any]:
    return local(stage.in_morning())


def _in_quiet_hours(stage: Stage) -> dict[str, Any]:
    stage.in_morning()
    stage.rules(quiet_hours="06:00-05:00")
    return {}


def _switched_off(stage: Stage) -> dict[str, Any]:
    stage.play.system.app_control.switch(stage.play.app, False)
    return {}


WAITS: dict[str, Callable[[Stage], dict[str, Any]]] = {
    "a local time": _at_a_local_time,
    "quiet hours": _in_quiet_hours,
    "the switch": _switched_off,
}


@pytest.mark.parametrize("wait", WAITS.values(), ids=WAITS)
def test_what_waits_has_no_row_for_a_session(
    stage: Stage, wait: Callable[[Stage], dict[str, Any]]
) -> None:
    """With ten times the sessions there are as many rows while it waits, and it is told."""
    sizes: list[tuple[int, int, int]] = []

    async def scenario() -> None:
        how = wait(stage)
        for number in (6, 60):
            for one in range(number):
                stage.register(f"p{number}-{one}", ZONES[one % 3])
            before = stage.count(deliveries), stage.count(shards)
            async with stage.running():
                sent = await stage.play.accept(EVERYBODY, how)
                await stage.at_rest()
            rows = stage.count(deliveries) - before[0], stage.count(shards) - before[1]
            told = stage.play.system.ledger.waits(sent.id)
            sizes.append((*rows, sum(one.number for one in told)))
            overview = stage.play.system.reports.funnel(sent.id)
            assert overview.accepted == len(stage.sessions)
            assert {one.state for one in overview.reasons} == {"held"}

    asyncio.run(scenario())
    (few_rows, few_shards, few), (many_rows, many_shards, many) = sizes
    assert few_rows == many_rows == 0
    assert few_shards == many_shards <= len(ZONES)
    assert (few, many) == (6, 66)


# Exactly once, whatever becomes of a session


@pytest.mark.databases("sqlite")
@pytest.mark.parametrize("before", [EAST, MIDDLE, WEST])
@pytest.mark.parametrize("after", [EAST, MIDDLE, WEST, None, "Etc/GMT+12", "Pacific/Kiritimati"])
def test_a_session_that_moves_its_zone_gets_it_once(
    stage: Stage, before: str, after: str | None
) -> None:
    """Wherever it goes from where, while the others of its zones are sent to: one push, no less."""
    wall = stage.in_morning()
    for zone in ZONES:
        stage.register(zone, zone)
    stage.register("mover", before)

    async def scenario() -> None:
        async with stage.running():
            await stage.play.accept(EVERYBODY, local(wall))
            await stage.at_rest()
        stage.until(moment(wall, EAST))
        await stage.work()
        stage.register("mover", after)
        stage.until(moment(wall, MIDDLE))
        await stage.work()
        # Whoever has the time behind them in both zones has the push by now.
        await stage.go_through()

    asyncio.run(scenario())
    assert stage.pushed() == dict.fromkeys((*ZONES, "mover"), 1)
    assert stage.count(shards) == 0


def test_each_zone_gets_it_when_its_own_clock_says_so(stage: Stage) -> None:
    """Also where the clocks jump over that time: it comes at the jump, not a day or hour later."""
    # At two o'clock the clocks of Paris go to three; Tokyo's and London's show it as any other.
    wall = datetime.fromisoformat("2027-03-28T02:30")
    expected = {
        EAST: moment(wall, EAST).timestamp(),
        "Europe/London": datetime(2027, 3, 28, 2, 30, tzinfo=ZoneInfo("Europe/London")).timestamp(),
        MIDDLE: datetime(2027, 3, 28, 1, tzinfo=UTC).timestamp(),
    }
    stage.play.clock.move(datetime(2027, 3, 27, tzinfo=UTC).timestamp() - stage.play.clock())
    for zone in expected:
        stage.register(zone, zone)

    async def scenario() -> None:
        await stage.play.accept(EVERYBODY, local(wall))
        seen: Mapping[str, int] = {}
        for at in sorted(set(expected.values())):
            stage.play.clock.move(at - 2 - stage.play.clock())
            await stage.work()
            assert stage.pushed() == seen
            stage.play.clock.move(3)
            await stage.work()
            seen = {zone: 1 for zone, its in expected.items() if its <= at}
            assert stage.pushed() == seen
        await stage.go_through()

    asyncio.run(scenario())
    assert stage.pushed() == dict.fromkeys(expected, 1)


def test_who_is_closed_or_given_away_while_it_waits_gets_nothing(stage: Stage) -> None:
    """The device's new owner was not meant, the former one is gone; who comes later neither."""
    wall = stage.in_morning()
    for name in ("stays", "leaves", "gives"):
        stage.register(name, MIDDLE)

    async def scenario() -> None:
        async with stage.running():
            await stage.play.accept(EVERYBODY, local(wall))
            await stage.at_rest()
        stage.play.system.registry.close(stage.sessions["leaves"], "LoggedOut")
        stage.register("gives", MIDDLE, mail="other@example.com")
        stage.register("late", MIDDLE)
        await stage.go_through()

    asyncio.run(scenario())
    assert stage.pushed() == {"stays": 1}


def test_a_rule_that_changes_is_heeded_by_what_waits(stage: Stage) -> None:
    """Quiet hours that are removed let it go, the app's own zone moves those that name none."""
    wall = stage.in_morning()
    for name, zone in (("named", EAST), ("unnamed", None)):
        stage.register(name, zone)
    app, system = stage.play.app, stage.play.system

    async def scenario() -> None:
        async with stage.running():
            await stage.play.accept(EVERYBODY, local(wall))
            await stage.at_rest()
        stage.rules(time_zone="Pacific/Auckland")
        await stage.work()
        stage.until(moment(wall, "Pacific/Auckland"))
        await stage.work()
        assert stage.pushed() == {"unnamed": 1}
        await stage.go_through()
        assert stage.pushed() == {"unnamed": 1, "named": 1}
        local_hour = datetime.fromtimestamp(stage.play.clock(), ZoneInfo(EAST))
        night = f"{local_hour - timedelta(hours=1):%H:00}-{local_hour + timedelta(hours=2):%H:00}"
        stage.rules(quiet_hours=night)
        async with stage.running():
            sent = await stage.play.accept(EVERYBODY)
            await stage.at_rest()
        assert {one.reason for one in system.ledger.waits(sent.id)} == {"QuietHours"}
        system.app_control.set_rules(app, {"quiet_hours": "none"})
        stage.play.clock.move(2 * RULES_SECONDS)
        await stage.work()
        assert stage.play.states(sent) == {"sent": 2}

    asyncio.run(scenario())


# What is told, and taken back


@pytest.mark.parametrize("sent_first", [0, 1, 2])
def test_a_cancel_counts_each_session_once(stage: Stage, sent_first: int) -> None:
    """Whatever was sent before; nothing comes afterwards."""
    wall = stage.in_morning()
    for number in range(9):
        stage.register(f"p{number}", ZONES[number % 3])

    async def scenario() -> None:
        sent = await stage.play.accept(EVERYBODY, local(wall))
        for zone in ZONES[:sent_first]:
            stage.until(moment(wall, zone))
            await stage.work()
        async with stage.running():
            caught = await stage.play.engine.cancel(stage.play.app, sent.id)
        assert caught == 9 - 3 * sent_first
        funnel = stage.play.system.reports.funnel(sent.id)
        assert (funnel.accepted, funnel.sent) == (9, 3 * sent_first)
        stage.play.clock.move(2 * DAY)
        await stage.go_through()

    asyncio.run(scenario())
    assert stage.pushed().total() == 3 * sent_first


def test_why_names_the_persons_own_time(stage: Stage) -> None:
    """Of a wait in a shard it says what for, until when, and in which zone."""
    wall = stage.in_morning()
    stage.register("east", EAST)
    stage.register("west", WEST)
    system, app = stage.play.system, stage.play.app

    async def scenario() -> None:
        async with stage.running():
            await stage.play.accept(EVERYBODY, local(wall))
            await stage.at_rest()

    asyncio.run(scenario())
    for name, zone in (("east", EAST), ("west", WEST)):
        at = moment(wall, zone).astimezone(UTC)
        told = f"It waits until 09:00 in {zone}, {at:%Y-%m-%d %H:%M:%S} UTC."
        story = system.why(app, f"{name}@example.com")
        assert told in story.answer
        assert "has not arrived yet" in story.answer
    stage.register("west on a tablet", WEST, mail="east@example.com")
    asyncio.run(stage.play.accept(EVERYBODY, local(wall)))
    stage.until(moment(wall, EAST))
    asyncio.run(stage.work())
    told = str(system.why(app, "east@example.com").notifications[0].note)
    assert told.startswith(f"It waits until 09:00 in {WEST}, ")
    assert system.why(app, "east@example.com").is_sent
    stage.register("late", EAST)
    assert not system.why(app, "late@example.com").notifications[0].is_ahead
    system.pruner._keep_days = -1  # noqa: SLF001 - everything is old
    there = stage.count(notifications), stage.count(shards), stage.count(deliveries)
    while system.pruner.step():
        pass
    # What waits has not ended, so nothing of it is forgotten.
    assert there == (stage.count(notifications), stage.count(shards), stage.count(deliveries))


@pytest.mark.parametrize("obstacle", ["no key", "outage"])
def test_what_has_no_way_waits_as_a_shard(stage: Stage, obstacle: str) -> None:
    """Few rows are written for what was tried, none for the others, and it goes on by itself."""
    for number in range(90):
        stage.register(f"p{number}", ZONES[number % 3])
    system, gateway = stage.play.system, stage.play.gateway

    async def scenario() -> None:
        sent = await stage.play.accept(EVERYBODY)
        if obstacle == "no key":
            system.is_missing = True
        else:
            gateway.answers = "later"
        await stage.work()
        # A probe that is due ends the wait for a moment.
        while not (waits := system.ledger.waits(sent.id)):
            await stage.work()
        (wait,) = waits
        tried = stage.count(deliveries)
        assert tried == 0 if obstacle == "no key" else 50 <= tried < 60
        assert wait.reason == ("NoCredential" if obstacle == "no key" else "ServiceDown")
        assert wait.number == 90 - tried
        story = system.why(stage.play.app, "p89@example.com")
        assert "It waits: " in story.answer
        gateway.pushed.clear()
        system.is_missing, gateway.answers = False, "accepted"
        await stage.go_through()
        assert stage.play.states(sent) == {"sent": 90}

    asyncio.run(scenario())
    assert stage.pushed().total() == 90


def test_what_never_finds_a_way_is_given_up(stage: Stage) -> None:
    """A broadcast without a key is over after a day, and each session has its end."""
    for number in range(5):
        stage.register(f"p{number}", MIDDLE)

    async def scenario() -> None:
        sent = await stage.play.accept(EVERYBODY)
        stage.play.system.is_missing = True
        await stage.work()
        stage.play.clock.move(DAY + HOUR)
        await stage.work()
        assert {one.reason for one in stage.play.deliveries(sent)} == {"NoCredential"}
        assert stage.play.states(sent) == {"failed": 5}

    asyncio.run(scenario())
    assert stage.count(shards) == 0


def test_two_workers_share_the_parts_and_repeat_nothing(stage: Stage) -> None:
    """Late, with all zones due at once and people on the move, each gets one push of either."""
    wall = stage.in_morning()
    for number in range(60):
        stage.register(f"p{number}", ZONES[number % 3])
    second = clocked_system(stage.play)

    async def scenario() -> None:
        await stage.play.accept(EVERYBODY, local(wall))
        stage.play.clock.move(3 * DAY)
        await asyncio.gather(stage.play.start(), second.engine.start())
        for number in range(0, 60, 5):
            await asyncio.to_thread(stage.register, f"p{number}", ZONES[(number + 1) % 3])
        await asyncio.wait_for(second.engine.worker.idle(), 20)
        await stage.at_rest()
        await second.close_gateways()
        await stage.play.stop()

    try:
        asyncio.run(scenario())
        assert stage.pushed() == dict.fromkeys(stage.sessions, 1)
    finally:
        second.database.close()


# Whatever happens in between


@dataclass(eq=False)
class TimedGateway(ScriptedGateway):
    """Notes when each push was handed to it first, by its apns-id."""

    clock: Callable[[], float] = time.time
    first: dict[str, float] = field(default_factory=dict)

    async def send(self, batch: Sequence[Push], report: Report) -> None:
        """Take pushes, and note when."""
        for push in batch:
            self.first.setdefault(push.id, self.clock())
        await super().send(batch, report)


class Killer:
    """Kills what works with a database after so many statements: nothing is written after that."""

    def __init__(self, play: Play, failing: Failing, after: int) -> None:
        self._engine = play.system.database._engine  # noqa: SLF001 - to count statements
        self._failing = failing
        self._left = after

    def __enter__(self) -> Self:
        event.listen(self._engine, "before_cursor_execute", self._note)
        return self

    def __exit__(self, *_: object) -> None:
        event.remove(self._engine, "before_cursor_execute", self._note)

    def _note(self, *_: object) -> None:
        self._left -= 1
        self._failing.is_failing = self._left <= 0

    @property
    def is_done(self) -> bool:
        """Whether it was killed."""
        return self._failing.is_failing


ANY_ZONE = st.sampled_from([*ZONES, "Asia/Kolkata", "Pacific/Auckland", None])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.integers(1, 14)),
        st.tuples(st.just("kill"), st.integers(1, 60)),
        st.tuples(st.just("move"), st.tuples(st.integers(0, 9), ANY_ZONE)),
        st.tuples(st.just("outage"), st.booleans()),
        st.tuples(st.just("switch"), st.booleans()),
    ),
    max_size=6,
)


@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    zones=st.lists(ANY_ZONE, min_size=1, max_size=10),
    is_local=st.booleans(),
    is_quiet=st.booleans(),
    steps=STEPS,
)
def test_each_session_gets_one_delivery_whatever_happens(
    zones: list[str | None], *, is_local: bool, is_quiet: bool, steps: list[tuple[str, Any]]
) -> None:
    """Zones, quiet hours, outages, the switch, moves and kills: sent once, not before its time."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Failing() as failing,
        open_play(Path(folder), people=0, template=empty_home()) as play,
    ):
        gateway = TimedGateway("accepted", clock=play.clock)
        play.gateway = play.system.gateway = gateway
        stage = Stage(play)
        wall = stage.in_morning()
        for place, zone in enumerate(zones):
            stage.register(f"p{place}", zone)
        quiet = read_quiet_hours("21:00-08:00") if is_quiet else None
        if quiet is not None:
            stage.rules(quiet_hours=str(quiet))
        sent = asyncio.run(play.accept(EVERYBODY, local(wall) if is_local else {}))
        moved: set[int] = set()
        kills = sum(_take(stage, failing, step, moved) for step in steps)
        gateway.answers = "accepted"
        play.system.app_control.switch(play.app, True)
        play.clock.move(RULES_SECONDS + 2)
        asyncio.run(stage.go_through())
        found = play.deliveries(sent)
        assert Counter(one.number for one in found) == {
            one.id: 1 for one in stage.sessions.values()
        }
        assert {one.state for one in found} == {"sent"}
        assert stage.count(shards) == 0
        is_repeated = any(op == "outage" for op, _ in steps) or kills
        assert is_repeated or set(gateway.pushed.values()) == {1}
        for one in found:
            first = gateway.first[one.apns_id]
            zone = zones[int((one.mail or "").removeprefix("p").partition("@")[0])]
            if one.number not in moved:
                assert not is_local or first >= due_at(LocalTime(wall), zone)
                assert quiet is None or held_until(quiet, zone, first) is None


def _take(stage: Stage, failing: Failing, step: tuple[str, Any], moved: set[int]) -> int:
    """Let one thing happen, and work; return how many processes were killed by it."""
    play = stage.play
    match step:
        case "pass", hours:
            play.clock.move(hours * HOUR)
        case "move", (place, zone):
            name = f"p{place % len(stage.sessions)}"
            moved.add(stage.register(name, zone).id)
        case "outage", is_down:
            play.gateway.answers = "later" if is_down else "accepted"
        case "switch", is_enabled:
            play.system.app_control.switch(play.app, is_enabled)
            play.clock.move(RULES_SECONDS + 2)
        case "kill", statements:
            return _work_until_killed(stage, failing, statements)
    asyncio.run(stage.work())
    return 0


def _work_until_killed(stage: Stage, failing: Failing, statements: int) -> int:
    """Work until the process is killed, or all is done; there is another one afterwards."""

    async def work() -> None:
        await stage.play.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3):
                await stage.at_rest()

    with Killer(stage.play, failing, statements) as killer:
        with contextlib.suppress(StorageError):
            # The loop is closed with all that runs in it, and nothing is given back.
            asyncio.run(work())
        was_killed = killer.is_done
        failing.is_failing = True
        stage.play.again()
    failing.is_failing = False
    return int(was_killed)
