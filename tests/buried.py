"""Dead letters without a mistake of ours to make them."""

from handbell.apps.app import App
from handbell.delivery.record.outcome_batch import Batch, Ending
from handbell.delivery.urgency import NORMAL
from handbell.system import System


def bury(system: System, app: App, notification_id: str) -> None:
    """Have each delivery of a notification be a dead letter, as a worker writes one."""
    row = system.ledger.find(app, notification_id).id
    dead = [
        Ending(
            row,
            one.number,
            one.gateway,
            one.environment,
            NORMAL,
            "dead_letter",
            5,
            reason="InternalError",
            detail="it failed 5 times",
            finished_at=int(system.now() * 1000),
            failures=5,
        )
        for one in system.ledger.deliveries_of(notification_id)
    ]
    system.recorder.record(Batch(endings=dead))
