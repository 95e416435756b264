"""The generated icon of an app: its letter on two colours.

The console and the virtual phones draw the same one, so that people recognise the app.
"""

from dataclasses import dataclass

_OFFSET = 2166136261
_PRIME = 16777619
_TURN = 35
"""How many degrees the second colour is from the first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppIcon:
    """A letter, and the hues (in degrees) of its background, from top to bottom."""

    letter: str
    hue: int
    second_hue: int

    @classmethod
    def of(cls, app_id: str, name: str) -> "AppIcon":
        """Return the icon of an app: the colours derive from its id, the letter from its name."""
        hue = _hash(app_id) % 360
        letter = (name.strip() or "?")[:1].upper()[:1]
        return cls(letter=letter, hue=hue, second_hue=(hue + _TURN) % 360)

    def to_dict(self) -> dict[str, str | int]:
        """Return the icon as a JSON object."""
        return {"letter": self.letter, "hue": self.hue, "second_hue": self.second_hue}


def _hash(text: str) -> int:
    """Return FNV-1a of a text, which spreads ids that differ by one letter."""
    found = _OFFSET
    for byte in text.encode():
        found = (found ^ byte) * _PRIME & 0xFFFFFFFF
    return found
