"""Modules that had another name in 0.1: the former one works until 0.3, and warns."""

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

MOVED: Final = {
    "handbell.apps.credentials": "handbell.services.apns.credential",
    "handbell.database": "handbell.storage.database",
    "handbell.delivery.audience": "handbell.delivery.accept.audience",
    "handbell.delivery.listing": "handbell.delivery.ledger.listing",
    "handbell.delivery.log_lines": "handbell.delivery.observe.log_lines",
    "handbell.delivery.logs": "handbell.delivery.observe.logs",
    "handbell.delivery.metrics": "handbell.delivery.observe.metrics",
    "handbell.delivery.preview": "handbell.delivery.accept.preview",
    "handbell.delivery.receipts": "handbell.delivery.ledger.receipts",
    "handbell.delivery.reports": "handbell.delivery.ledger.reports",
    "handbell.delivery.store": "handbell.delivery.ledger.store",
    "handbell.delivery.timing": "handbell.delivery.policy.schedule",
    "handbell.delivery.why": "handbell.delivery.ledger.why",
    "handbell.tables": "handbell.storage.tables",
    "handbell.twin.address": "handbell.twin.discovery",
    "handbell.twin.running": "handbell.twin.threaded",
}
"""The new name of each module by its former one."""

_PUBLIC: Final = {
    "handbell.delivery.logs": "handbell.Logs",
    "handbell.delivery.metrics": "handbell.Metrics",
    "handbell.delivery.why": "handbell.Story",
}
"""What most looked for in a module, where that has a place among the public names."""


class _Finder(MetaPathFinder, Loader):
    """Finds what nobody else does; the module that it gives is the one of the new name."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the protocol's
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname not in MOVED:
            return None
        better = _PUBLIC.get(fullname, MOVED[fullname])
        warnings.warn(
            f"{fullname} is {MOVED[fullname]} now; the former name works until 0.3. "
            f"Import {better}.",
            DeprecationWarning,
            stacklevel=2,
        )
        return ModuleSpec(fullname, self)

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = import_module(MOVED[module.__name__])


def install() -> None:
    """Let the former names be found, after all others."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
