"""What a run comes to: everybody reached, nobody wrongly, nothing lost, and the file whole."""

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from bench.doors import integrity
from handbell.delivery.ids import apns_id
from handbell.delivery.work.app_states import WINDOW

from .figures import Figures, told
from .home import APP, Home

MOST_MEMORY: Final = 150 * 1024 * 1024

_OF_APP: Final = "notification_id IN (SELECT id FROM notifications WHERE app = ?)"
_SWITCHED_ENDS: Final = {"sent", "cancelled SessionClosed", "failed SessionClosed"}


def unwritten(home: Home) -> int:
    """Return how many pushes the twin has accepted that nobody has written down."""
    # In this order: what others send and write meanwhile must not hide what a dead one sent.
    written = home.read(
        f"SELECT count(*) FROM deliveries WHERE state = 'sent' AND {_OF_APP}",  # noqa: S608
        APP,
    )[0][0]
    return max(0, _accepted_once(home) - int(written))


def _accepted_once(home: Home) -> int:
    return home.twin.call(lambda twin: sum(len(twin.accepted_of(token)) for token in home.tokens))


def count(home: Home, figures: Figures) -> None:
    """Count what came of everything, and judge it."""
    with contextlib.closing(sqlite3.connect(home.database, timeout=30)) as raw:
        figures.problems += integrity(raw)
    figures.states = Counter(
        dict(
            home.read(
                f"SELECT state, count(*) FROM deliveries WHERE {_OF_APP} GROUP BY state",  # noqa: S608
                APP,
            )
        )
    )
    ends = home.read(
        "SELECT trim(state || ' ' || coalesce(reason, '')), count(*) FROM deliveries"  # noqa: S608
        f" WHERE NOT {_OF_APP} GROUP BY 1",
        APP,
    )
    figures.switched = Counter(dict(ends))
    figures.statuses = Counter(
        dict(
            home.read(
                "SELECT status, count(*) FROM sessions WHERE id <= ? GROUP BY status",
                len(home.tokens),
            )
        )
    )
    figures.pushes = _expected(home)
    figures.unreached = sum(1 for _ in _unreached(home))
    figures.duplicates = home.twin.call(
        lambda twin: sum(
            sum(times - 1 for times in twin.accepted_of(token).values()) for token in home.tokens
        )
    )
    figures.at_risk_unanswered = home.read("SELECT count(*) FROM chaos_unknown")[0][0]
    for phone in home.twin.phones.values():
        ids = [card.push_id for card in phone.cards]
        figures.shown_twice += len(ids) - len(set(ids))
    _judge(figures)


def _expected(home: Home) -> int:
    """Return how many deliveries the orders to the first app make."""
    lists = [order["to"] for order in home.orders if "app" not in order]
    return sum(len(to) if isinstance(to, list) else len(home.tokens) for to in lists)


def _unreached(home: Home) -> Iterator[tuple[str, int]]:
    """Yield each delivery that the twin has never accepted."""
    taken = home.twin.call(lambda twin: [twin.accepted_of(token) for token in home.tokens])
    everybody = range(1, len(home.tokens) + 1)
    for row, name, recipients in home.read(
        "SELECT id, public_id, recipients FROM notifications WHERE app = ?", APP
    ):
        is_broadcast = "everybody" in json.loads(recipients)
        numbers: Sequence[int] = everybody if is_broadcast else _numbers(home, row)
        for number in numbers:
            # Apple is told the delivery, and the data of a message its notification.
            is_apple = home.tokens[number - 1] in home.apple
            if (apns_id(name, number) if is_apple else name) not in taken[number - 1]:
                yield name, number


def _numbers(home: Home, row: int) -> list[int]:
    rows = home.read("SELECT number FROM deliveries WHERE notification_id = ?", row)
    return [number for (number,) in rows]


def _judge(figures: Figures) -> None:
    wrong = figures.problems
    if figures.states != {"sent": figures.pushes}:
        wrong.append(f"{figures.pushes:,} deliveries should be sent: {told(figures.states)}")
    if figures.unreached:
        wrong.append(f"{figures.unreached} were not reached")
    if figures.duplicates > figures.at_risk:
        wrong.append("there are more duplicates than there were pushes at risk")
    at_once = (figures.kills + figures.losses) * WINDOW
    if figures.duplicates > at_once + figures.at_risk_unanswered:
        wrong.append("there are more duplicates than may be in flight")
    if set(figures.statuses) != {"active"}:
        wrong.append("valid tokens were closed or put in quarantine")
    if figures.shown_twice:
        wrong.append("a phone shows a notification twice")
    if figures.after_switch:
        wrong.append(f"{figures.after_switch} pushes for a former user came after the answer")
    if len(figures.switches) != 2 or not set(figures.switched) <= _SWITCHED_ENDS:  # noqa: PLR2004
        wrong.append(f"switches went wrong: {told(figures.switches)}, {told(figures.switched)}")
    if max(figures.memory) > MOST_MEMORY:
        wrong.append("a sender held too much memory")
