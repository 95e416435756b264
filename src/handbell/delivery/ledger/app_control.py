"""What an operator does to the sending of an app, and what keeps it from being sent to."""

from collections.abc import Callable, Collection, Mapping

from handbell.apps.app import App
from handbell.apps.store import AppStore
from handbell.delivery.policy.app_rules import HELD_BY, read_rules, stopped_by
from handbell.delivery.policy.rules_store import RulesStore
from handbell.delivery.queue.workers import Workers
from handbell.delivery.work.app_states import RULES_SECONDS

from .blockers import Blocker, cautions, obstacles


class AppControl:
    """The switch, the rules and the circuits of apps. ``now`` returns UNIX seconds.

    What a change releases of the deliveries that wait is looked at again within seconds.
    """

    def __init__(
        self,
        apps: AppStore,
        rules_store: RulesStore,
        known_workers: Workers,
        *,
        now: Callable[[], float],
    ) -> None:
        self._apps = apps
        self._rules_store = rules_store
        self._known_workers = known_workers
        self._now = now

    def set_rules(self, app: App, rules: Mapping[str, str]) -> None:
        """Set an app's rules from an operator's texts; ``none`` removes one.

        Raises AppError for an invalid text; nothing is changed then.
        """
        self._apps.set_rules(app, read_rules(rules))
        self._look_again(app, frozenset().union(*(HELD_BY[name] for name in rules)))

    def switch(self, app: App, is_enabled: bool) -> App:  # noqa: FBT001 - the switch's position
        """Enable or disable an app, and return it."""
        switched = self._apps.set_enabled(app, is_enabled)
        self._look_again(app, {"AppDisabled"} if is_enabled else ())
        return switched

    def resume(self, app: App) -> bool:
        """Close an app's circuits by hand; return whether one was open."""
        was_stopped = self._rules_store.resume(app.id)
        self._look_again(app, stopped_by())
        self._rules_store.resume_broadcasts(app.id, self._soon)
        return was_stopped

    def _look_again(self, app: App, reasons: Collection[str]) -> None:
        if reasons:
            self._rules_store.make_due(app.id, reasons, self._soon)

    @property
    def _soon(self) -> float:
        # Workers cache rules for some seconds; after that they would not hold these again.
        return self._now() + RULES_SECONDS + 1

    def obstacles(self, app: App) -> list[Blocker]:
        """Return what blocks all sends of an app, the most pressing first."""
        return obstacles(
            app,
            self._rules_store.rules_of(app.id),
            now=self._now(),
            workers=self._known_workers.live_workers(),
            has_key=bool(self._apps.credentials(app)),
        )

    def cautions(self, app: App) -> list[Blocker]:
        """Return the refused keys of an app that others replace."""
        return cautions(app, self._rules_store.rules_of(app.id))
