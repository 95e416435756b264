"""State shared by all commands: the chosen home, and its system."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from handbell.apps.app import App
    from handbell.settings import Settings
    from handbell.system import System

_home: list[Path] = []


def use_home(home: Path | None) -> None:
    """Set the home given on the command line."""
    _home[:] = [] if home is None else [home]


def home_options() -> list[str]:
    """Return the words by which another process has the same home."""
    return [f"--home={home}" for home in _home]


def settings(**options: Any) -> "Settings":
    """Return the settings, overridden by the command's options; None means not given.

    Raises SettingsError for an invalid one.
    """
    from handbell.settings import Settings  # noqa: PLC0415 - heavy

    return Settings.load(home=_home[0] if _home else None, **options)


def system(**options: Any) -> "System":
    """Return a system with this command's settings."""
    from handbell.system import System  # noqa: PLC0415 - heavy

    return System(settings(**options))


def apps_of(parts: "System", named: str | None) -> "list[App]":
    """Return the app of the option or the setting; every app without one."""
    wanted = named or parts.settings.app
    return [parts.apps.find(wanted)] if wanted else parts.apps.list()
