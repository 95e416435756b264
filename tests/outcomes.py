"""What push services answered about sessions, written by the recorder as a worker has it."""

from collections.abc import Callable, Iterable
from time import time

from handbell.delivery.record.outcome_batch import Batch
from handbell.delivery.record.write import Recorder
from handbell.registry.session import Environment, Session
from handbell.storage.database import Database


class Outcomes:
    """Records outcomes in a database. ``now`` returns UNIX seconds."""

    def __init__(self, database: Database, *, now: Callable[[], float] = time) -> None:
        self._recorder = Recorder(database, now=now)

    def gone(
        self, session: Session | int, *, since: int | None = None, reason: str = "Unregistered"
    ) -> bool:
        """Record that a device is gone ``since`` (UNIX ms); return whether that closed it."""
        number = session if isinstance(session, int) else session.id
        return number not in self._recorder.record(Batch(gone={number: (since, reason)}))

    def accepted(self, session_ids: Iterable[int]) -> None:
        """Record that a push was accepted for each session."""
        self._recorder.record(Batch(accepted_sessions=list(session_ids)))

    def moved(self, session: Session, environment: Environment) -> None:
        """Record the environment in which a session's token was found."""
        self._recorder.record(Batch(moved={session.id: environment}))
