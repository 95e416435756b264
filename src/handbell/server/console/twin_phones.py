"""A client for the virtual phones of a running twin, over its page's API on loopback.

The browser never talks to the twin itself: it has another origin, and may be on another machine.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

from handbell.errors import TwinError
from handbell.fixes import Action, Fix
from handbell.twin.discovery import read_address

SECONDS: Final = 2.0
"""The time-out of a request to the twin."""
SHOWN_CARDS: Final = 5
_NAMES: Final = {"android": "Android", "web": "browser"}
_MOST_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualCard:
    """A notification on a virtual phone; instants are UNIX milliseconds."""

    id: str
    push_id: str
    title: str
    subtitle: str
    body: str
    url: str | None
    shown_at: int
    opened_at: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualPhone:
    """A virtual phone with an app on it, its newest cards first; ``more`` is how many follow."""

    id: str
    name: str
    mail: str | None
    token: str
    service: str
    is_on: bool
    badge: int | None
    cards: tuple[VirtualCard, ...]
    more: int


class TwinPhones:
    """The phones of a running twin, fetched at each call. Every method blocks.

    ``folder`` is the twin's folder. A method raises TwinError when no twin runs or its answer is
    invalid.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def is_running(self) -> bool:
        """Return whether a twin runs on this home."""
        return read_address(self._folder) is not None

    @property
    def page_url(self) -> str | None:
        """Return the link of the twin's own page, on the machine that it runs on."""
        address = read_address(self._folder)
        return None if address is None else address.page_link

    def phones(self, app_id: str) -> list[VirtualPhone]:
        """Return the phones of people with this app, the newest first."""
        found = self._ask("GET", "/api/phones")
        mine = [item for item in found if item["app"] == app_id and item["mail"]]
        return [_phone(item) for item in reversed(mine) if item["side"] != "development"]

    def make(self, app_id: str, mail: str, platform: str = "ios") -> VirtualPhone:
        """Create a phone of a user with this app; it registers itself."""
        name = f"{mail.partition('@')[0]}'s {_NAMES.get(platform, 'phone')}"
        wanted = {"name": name, "mail": mail, "app": app_id, "platform": platform}
        return _phone(self._ask("POST", "/api/phones", wanted))

    def open_card(self, phone_id: str, card_id: str) -> None:
        """Open a card, as the phone's user would."""
        path = f"/api/phones/{quote(phone_id, safe='')}/cards/{quote(card_id)}/open"
        self._ask("POST", path)

    def _ask(self, method: str, path: str, fields: Mapping[str, Any] | None = None) -> Any:
        address = read_address(self._folder)
        if address is None:
            raise TwinError("The twin is not running", fix=Fix(Action.START_TWIN, "Start it"))
        where = urlsplit(address.page_url)
        connection = HTTPConnection(where.hostname or "", where.port, timeout=SECONDS)
        try:
            body = None if fields is None else json.dumps(fields)
            token = {"Authorization": f"Bearer {address.page_token}"}
            connection.request(method, path, body=body, headers=token)
            answer = connection.getresponse()
            content = json.loads(answer.read(_MOST_BYTES) or b"null")
        except (OSError, HTTPException, ValueError) as error:
            raise TwinError(f"The twin does not answer: {error}", fix="Start it anew") from None
        finally:
            connection.close()
        if answer.status >= 400:  # noqa: PLR2004 - HTTP's first error
            reason = content.get("error") if isinstance(content, dict) else None
            raise TwinError(f"The twin refused: {reason or answer.status}", fix="Look at its page")
        return content


def _phone(fields: Mapping[str, Any]) -> VirtualPhone:
    cards = fields["cards"]
    return VirtualPhone(
        id=fields["id"],
        name=fields["name"],
        mail=fields["mail"],
        token=fields["token"],
        service=fields["service"],
        is_on=fields["is_on"],
        badge=fields["badge"],
        cards=tuple(_card(card) for card in cards[:SHOWN_CARDS]),
        more=max(0, len(cards) - SHOWN_CARDS),
    )


def _card(fields: Mapping[str, Any]) -> VirtualCard:
    return VirtualCard(**{name: fields[name] for name in VirtualCard.__dataclass_fields__})
