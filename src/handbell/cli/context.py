"""What every command shares: the home that was named, and the system built on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handbell.apps.app import App
    from handbell.settings import Settings
    from handbell.system import System

_home: list[Path] = []


def use_home(home: Path | None) -> None:
    """Note which home the command line named."""
    _home[:] = [] if home is None else [home]


def settings(**options: Any) -> "Settings":
    """Return the settings for this command, with its own options on top; None is not given.

    Raises SettingsError when one cannot be used.
    """
    from handbell.settings import Settings  # noqa: PLC0415 - heavy

    return Settings.load(home=_home[0] if _home else None, **options)


def system(**options: Any) -> "System":
    """Return a system on the settings of this command."""
    from handbell.system import System  # noqa: PLC0415 - heavy

    return System(settings(**options))


def apps_of(parts: "System", named: str | None) -> "list[App]":
    """Return the app that is named, by the option or by the setting; without one every app."""
    wanted = named or parts.settings.app
    return [parts.apps.find(wanted)] if wanted else parts.apps.list()
