"""Counts for lists: exact for what is small, a moment old for what is large."""

import json
from pathlib import Path

from handbell.delivery.ledger.state_counts import DELIVERIES_PER_SECOND, LARGE, CountCache, Counted
from handbell.storage.database import Database

_FILL = """
INSERT INTO deliveries (notification_id, number, gateway, environment, state)
SELECT ?1, value, 'apns', 'production', 'sent' FROM json_each(?2)
"""


class _Watch:
    """A clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_large_count_is_kept_for_a_moment_and_a_small_one_never(tmp_path: Path) -> None:
    """A page that refreshes counts a large broadcast only now and then, a small one each time."""
    database, watch = Database.open(f"sqlite:///{tmp_path}/handbell.db"), _Watch()
    counting = CountCache(monotonic=watch)

    def count(row: int) -> list[Counted]:
        with database.read() as connection:
            return counting.count(connection, row)

    _fill(database, 1, range(LARGE))
    _fill(database, 2, range(10))
    assert [count(1)[0].number, count(2)[0].number] == [LARGE, 10]
    _fill(database, 1, range(LARGE, LARGE + 5))
    _fill(database, 2, range(10, 15))
    assert [count(1)[0].number, count(2)[0].number] == [LARGE, 15]
    watch.now += LARGE / DELIVERIES_PER_SECOND
    assert count(1)[0].number == LARGE + 5
    database.close()


def _fill(database: Database, row: int, numbers: range) -> None:
    with database.write() as connection:
        connection.exec_driver_sql(
            "INSERT OR IGNORE INTO notifications"
            " (id, public_id, app, content, recipients, created_at)"
            " VALUES (?1, ?1, 'app', '{}', '{}', 0)",
            (row,),
        )
        connection.exec_driver_sql(_FILL, (row, json.dumps(list(numbers))))
