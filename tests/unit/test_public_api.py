"""The public names: what is promised is a list, and a change of it is a decision."""

import dataclasses
import difflib
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type, get_args

import pytest

import handbell
from handbell import (
    AsyncPushNotification,
    AsyncSessions,
    Deliveries,
    Delivery,
    Diagnostic,
    PushNotification,
    RegisteredSession,
    Response,
    Session,
    Sessions,
    Story,
    errors,
)
from handbell._moved import MOVED
from handbell.creation.notification import InterruptionLevel, LiveActivityEvent, PushType
from handbell.delivery.accept.prepare import URGENCIES
from handbell.delivery.deliveries import PAGE, LedgerDeliveries
from handbell.delivery.delivery import STATES
from handbell.diagnostic import NOTES
from handbell.gateways.apns.push_type import LIVE_ACTIVITY_EVENTS
from handbell.registry.listing import STATUSES
from handbell.registry.session import PLATFORMS
from handbell.services.apns.protocol import INTERRUPTION_LEVELS, PUSH_TYPES
from handbell.services.table import SERVICES

MAIL = "test@4d.com"
LIST = Path(__file__).parents[1] / "public_api.txt"
ERRORS = (Path(__file__).parents[2] / "docs/errors.md").read_text(encoding="utf-8")
TWINS = [(PushNotification, AsyncPushNotification), (Sessions, AsyncSessions)]
WITH_AN_EXTRA = ["Logs", "Metrics"]
"""Public, and no part of ``import *``."""
ONLY_AWAITED = {"prepare"}
"""The synchronous clients have looked the app up when they are made."""


def _public(kind: type) -> dict[str, Any]:
    return {name: value for name, value in inspect.getmembers(kind) if not name.startswith("_")}


def _lines() -> Iterator[str]:
    for name in [*handbell.__all__, *WITH_AN_EXTRA]:
        value = getattr(handbell, name)
        if inspect.isclass(value):
            yield from _lines_of(name, value)
        elif get_args(value):
            yield f"{name} = {_written(value)}"
        else:
            yield name


def _lines_of(name: str, kind: type) -> Iterator[str]:
    fields = (
        {one.name for one in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else ()
    )
    is_ours = not issubclass(kind, str)
    yield f"{name}{_signature(kind)}" if is_ours and "Settings" not in name else name
    own = {part for base in kind.__mro__ if "handbell" in base.__module__ for part in vars(base)}
    for member, value in _public(kind).items():
        if member not in own or member in fields or "Settings" in name:
            continue
        if inspect.isroutine(value):
            yield f"{name}.{member}{_signature(value)}"
        else:
            yield f"{name}.{member}"


def _signature(value: Any) -> str:
    return _written(inspect.signature(value))


def _written(value: object) -> str:
    text = re.sub(r"\b(?:handbell|collections|typing|datetime|pathlib)\.(?:\w+\.)*", "", str(value))
    return text.replace("'", "")


def test_the_public_names_are_those_of_the_list() -> None:
    """``tests/public_api.txt`` holds every name with its signature. Whoever changes it means it."""
    listed = LIST.read_text(encoding="utf-8").splitlines()
    changes = list(_changes(listed, list(_lines())))
    if changes:
        head = "The public API differs from tests/public_api.txt. If that is meant, run"
        command = "    python tests/unit/test_public_api.py"
        pytest.fail("\n".join([head, command, "", *changes]), pytrace=False)


@pytest.mark.parametrize(
    ("listed", "found", "told"),
    [
        (["A(x: int) -> None"], ["A(x: int) -> None"], []),
        (["A", "B"], ["B"], ["removed  A"]),
        (["B"], ["A.id", "B"], ["added    A.id"]),
        (
            ["A.send(self, to: dict[str, int], *, at: float = 0) -> None"],
            ["A.send(self, to: dict[str, int], *, at: str = 0, key: str) -> int"],
            [
                "changed  A.send",
                "         - at: float = 0",
                "         + at: str = 0",
                "         - -> None",
                "         + key: str",
                "         + -> int",
            ],
        ),
    ],
)
def test_a_change_of_the_public_names_is_told_by_name(
    listed: list[str], found: list[str], told: list[str]
) -> None:
    """A name that came, went or changed, and of a signature only what differs."""
    assert list(_changes(listed, found)) == told


def _changes(listed: Sequence[str], found: Sequence[str]) -> Iterator[str]:
    """Yield in lines what became of each name that is not the same in both lists."""
    before, after = ({_name(line): line for line in lines} for lines in (listed, found))
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield f"removed  {name}"
        elif name not in before:
            yield f"added    {after[name]}"
        elif before[name] != after[name]:
            yield f"changed  {name}"
            parts = difflib.ndiff(_parts(before[name]), _parts(after[name]))
            yield from (f"         {part}" for part in parts if part[0] in "+-")


def _name(line: str) -> str:
    return re.split(r"[( ]", line, maxsplit=1)[0]


def _parts(line: str) -> list[str]:
    """Return a signature's parameters and its result, each by itself."""
    inside, _, result = line.partition("(")[2].rpartition(")")
    parts = [""]
    for piece in inside.split(", "):
        is_open = parts[-1].count("[") > parts[-1].count("]")
        parts[-1:] = [f"{parts[-1]}, {piece}"] if is_open else [parts[-1], piece]
    return [*parts[1:], result.strip()]


@pytest.mark.parametrize(("plain", "awaited"), TWINS, ids=lambda kind: kind.__name__)
def test_the_two_kinds_of_client_are_the_same(plain: type, awaited: type) -> None:
    """Names, signatures and docstrings are equal: one is awaited, and the other is not."""
    instance = {"auth", "recipients"} if plain is PushNotification else set()
    names = _public(plain)
    assert set(names) - instance == set(_public(awaited)) - ONLY_AWAITED
    assert inspect.signature(plain) == inspect.signature(awaited)
    for name in set(names) - instance:
        mine, theirs = names[name], getattr(awaited, name)
        assert inspect.signature(mine) == inspect.signature(theirs), name
        assert mine.__doc__ == theirs.__doc__, name
        assert inspect.iscoroutinefunction(theirs), name
        assert not inspect.iscoroutinefunction(mine), name
        assert mine.__qualname__ == f"{plain.__name__}.{name}"


@pytest.mark.parametrize("name", handbell.__all__)
def test_a_public_name_says_what_it_promises(name: str) -> None:
    """Each class and each of its public methods has a docstring of its own."""
    value = getattr(handbell, name)
    if not inspect.isclass(value) or "handbell" not in value.__module__:
        return
    lacking = [
        member
        for member, found in vars(value).items()
        if not member.startswith("_") and callable(found) and not found.__doc__
    ]
    assert value.__doc__
    assert lacking == []


def test_a_public_name_can_be_had_in_a_fresh_process() -> None:
    """Each is loaded by asking for it alone, whatever was loaded before."""
    script = (
        "import handbell\n"
        "for name in handbell.__all__:\n"
        "    getattr(handbell, name)\n"
        "from handbell import *\n"
        "print(len(set(handbell.__all__) - set(dir(handbell))))"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == ["0"]


def test_without_an_extra_all_names_can_be_imported_and_the_others_name_it() -> None:
    """``import *`` works where the extra ``server`` is missing; what needs it says so."""
    script = (
        "import sys\n"
        "sys.modules.update(prometheus_client=None, structlog=None, httpx=None, fastapi=None)\n"
        "from handbell import *\n"
        "import handbell\n"
        "for name in ('Logs', 'Metrics'):\n"
        "    try:\n"
        "        getattr(handbell, name)\n"
        "    except HandbellError as error:\n"
        "        print(error.code, '[server]' in error.fix)"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == ["settings-invalid True"] * 2


@pytest.mark.parametrize(("former", "now"), MOVED.items())
def test_a_former_module_is_the_new_one_and_warns(former: str, now: str) -> None:
    """A path of 0.1 works, says where its module is now, and is the same module."""
    sys.modules.pop(former, None)
    with pytest.warns(DeprecationWarning, match=f"{re.escape(former)} is {re.escape(now)} now"):
        found = importlib.import_module(former)
    assert found is importlib.import_module(now)
    assert found.__spec__ is not None
    assert found.__spec__.name == now


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("handbell.delivery.delivery", "Delivery"),
        ("handbell.delivery.events", "DeliveryFailed"),
        ("handbell.delivery.events", "Event"),
        ("handbell.delivery.events", "Hook"),
        ("handbell.delivery.response", "Response"),
        ("handbell.push", "Auth"),
        ("handbell.push", "PushNotification"),
        ("handbell.push", "Sessions"),
        ("handbell.registry.session", "Session"),
        ("handbell.settings", "Settings"),
    ],
)
def test_where_0_1_had_a_name_it_still_is(module: str, name: str) -> None:
    """Paths that people have written stay, beside the public ones."""
    assert getattr(importlib.import_module(module), name) is getattr(handbell, name)


def test_the_plugin_and_the_remote_client_stay_where_they_were() -> None:
    """The fixtures' module and the client of a send server have the paths of 0.1."""
    assert importlib.import_module("handbell.testing").VirtualPhone
    assert importlib.import_module("handbell.remote").RemoteApp


def test_a_missing_notification_stands_by_itself() -> None:
    """It is no RegistryError: users and sessions have nothing to do with it. Its code stays."""
    missing = errors.UnknownNotificationError
    assert missing.__bases__ == (errors.HandbellError,)
    assert (missing.code, missing.status) == ("notification-unknown", 404)


@pytest.mark.parametrize("reason", NOTES)
def test_a_reason_of_a_diagnostic_is_documented(reason: str) -> None:
    """docs/errors.md has a row for each, with the words of the code."""
    assert f"| `{reason}` | {NOTES[reason]} |" in ERRORS


def test_a_diagnostic_is_a_text() -> None:
    """It joins, formats, compares and hashes like one, and says its parts beside."""
    told = Diagnostic("It failed.", recipient="test@4d.com", reason="BadTopic", fix="Look.")
    assert told == "It failed."
    assert "\n".join(iter([told, told])) == "It failed.\nIt failed."
    assert hash(told) == hash("It failed.")
    assert told.parts() == {"recipient": "test@4d.com", "reason": "BadTopic", "fix": "Look."}
    plain = Diagnostic.read("It failed.")
    assert plain.parts() == {"recipient": None, "reason": "", "fix": ""}
    assert Diagnostic.read(told) is told


@pytest.mark.parametrize(
    ("told", "known"),
    [
        (PushType, PUSH_TYPES.keys() - {"mdm"}),  # which Handbell does not send
        (InterruptionLevel, INTERRUPTION_LEVELS),
        (LiveActivityEvent, LIVE_ACTIVITY_EVENTS),
        (handbell.Urgency, URGENCIES),
        (handbell.DeliveryState, STATES),
        (handbell.Environment, {one for its in SERVICES.values() for one in its.environments}),
        (handbell.Platform, PLATFORMS),
        (handbell.SessionStatus, STATUSES),
    ],
)
def test_a_literal_names_what_is_known(told: Any, known: Collection[str]) -> None:
    """What a type checker lets pass is what the code takes, and nothing is missing."""
    assert set(get_args(told)) == set(known)


if TYPE_CHECKING:

    def _as_a_type_checker_sees_it(push: PushNotification, sessions: Sessions) -> None:
        """Hold that the synchronous doors are typed: mypy fails where one of these is not so."""
        assert_type(push.send({}, MAIL, urgency="bulk", send_at=1.5, timeout=1), Response)
        assert_type(push.enqueue({}, {"addresses": []}), Response)
        assert_type(push.send_each("welcome", {MAIL: {}}), dict[str, Response])
        assert_type(sessions.register(MAIL, "ab" * 32, platform="ios"), RegisteredSession)
        assert_type(sessions.sessions_of(MAIL), list[Session])
        assert_type(sessions.why(MAIL), Story)
        push.send({}, MAIL, urgency="soon")  # type: ignore[arg-type]
        push.send({}, MAIL, urgent=True)  # type: ignore[call-arg]
        sessions.register(MAIL, "ab" * 32, environment="sandbox")  # type: ignore[arg-type]


def _delivery(number: int) -> Delivery:
    return Delivery(
        number=number,
        notification_id="0" * 15,
        gateway="apns",
        address=f"{number:064x}",
        environment="production",
        state="sent",
        created_at=0,
    )


class Counted:
    """A ledger of so many deliveries that counts how many rows it has handed out at a time."""

    def __init__(self, total: int) -> None:
        self.pages: list[int] = []
        self.total = total

    def read(self, number: int, limit: int) -> list[Delivery]:
        """Return so many behind a number."""
        last = min(number + 1 + limit, self.total)
        self.pages.append(last - number - 1)
        return [_delivery(one) for one in range(number + 1, last)]

    def deliveries(self) -> Deliveries:
        """Return them as a response does."""
        return Deliveries(LedgerDeliveries(lambda: self.total, self.read))


@pytest.mark.parametrize("total", [0, 1, PAGE - 1, PAGE, PAGE + 1, 5 * PAGE + 3])
def test_no_more_than_a_page_is_read_at_a_time(total: int) -> None:
    """However many there are: rows are asked for by pages, and counting asks for none."""
    ledger = Counted(total)
    found = ledger.deliveries()
    assert len(found) == total
    assert bool(found) is (total > 0)
    assert ledger.pages == []
    assert sum(1 for _ in found) == total
    assert sum(ledger.pages) == total
    assert max(ledger.pages) <= PAGE


def test_only_what_is_looked_at_is_read() -> None:
    """The first ones cost one page, whatever comes behind; each loop reads anew."""
    ledger = Counted(20 * PAGE)
    found = ledger.deliveries()
    assert [found[0].number, found[7].number] == [0, 7]
    assert [one.number for one in found[3:5]] == [3, 4]
    assert next(iter(found)).number == 0
    assert ledger.pages == [PAGE] * 4


def test_they_are_a_sequence() -> None:
    """Indices, slices, membership, the way back, and equality to a tuple of the same."""
    whole = tuple(_delivery(number) for number in range(PAGE + 2))
    found = Counted(PAGE + 2).deliveries()
    assert (found[-1], found[-2:], found[::-1][0]) == (whole[-1], whole[-2:], whole[-1])
    assert tuple(found) == whole
    assert found == whole
    assert found == list(whole)
    assert found != whole[1:]
    assert next(reversed(found)) == whole[-1]
    assert whole[3] in found
    assert Deliveries() == ()
    for wrong in (PAGE + 2, -PAGE - 3):
        with pytest.raises(IndexError):
            found[wrong]


if __name__ == "__main__":
    LIST.write_text("\n".join(_lines()) + "\n", encoding="utf-8")
