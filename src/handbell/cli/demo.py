"""``handbell demo``: a complete send in a few seconds, without anybody's account."""

import asyncio
import shutil
import sys
import time
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich import box
from rich.console import Group
from rich.markup import escape
from rich.panel import Panel
from rich.text import Text

from handbell._files import refused
from handbell.errors import StorageError, TwinError

from .output import Json, console, console_on, write_json
from .signals import stop_on_signal

if TYPE_CHECKING:
    from handbell.delivery.delivery import Delivery
    from handbell.settings import Settings
    from handbell.twin.phone import Card
    from handbell.twin.threaded import RunningTwin

_AGAIN: Final = (
    "Run it again; if it lasts, look whether this machine is very busy, and whether something "
    "hinders connections to 127.0.0.1"
)

NOTIFICATION: Final = {
    "title": "This is title",
    "body": "Here is the content of this notification",
}
PHONES: Final = {"iPhone": "ios", "Android phone": "android", "Browser": "web"}
"""The devices of the demo's user, by name: their platform."""
_SERVICES: Final = {
    "apns": "Apple's service",
    "fcm": "Google's service",
    "webpush": "a browser's service",
}
_WAIT_SECONDS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceResult:
    """What became of the notification on one device: its delivery, and the card that it shows.

    ``accepted_at`` is the twin's own time of acceptance, in UNIX milliseconds.
    """

    device: str
    delivery: "Delivery"
    card: "Card"
    accepted_at: int

    @property
    def accepted_after(self) -> int:
        """Return the milliseconds from created to accepted."""
        return self.accepted_at - self.delivery.created_at

    @property
    def displayed_after(self) -> int:
        """Return the milliseconds from created to displayed."""
        return self.card.shown_at - self.delivery.created_at

    def to_dict(self) -> dict[str, Any]:
        """Return the result in its JSON form."""
        return {
            "device": self.device,
            "platform": PHONES[self.device],
            "service": self.delivery.gateway,
            "accepted": self.delivery.state == "sent",
            "displayed": True,
            "id": self.delivery.id,
            "milliseconds": {
                "accepted": self.accepted_after,
                "displayed": self.displayed_after,
            },
        }


def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the devices' page running until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send a notification to a person and show it arrive on each of their devices.

    Everything is created in a temporary home: twins of the push services, an app, its keys, and
    three devices of test@4d.com: an iPhone, an Android phone and a browser.
    """
    try:
        made = TemporaryDirectory(prefix="handbell-demo-")
    except OSError as error:
        _, why, fix = refused(error, elsewhere="name a folder that can be written in TMPDIR")
        raise StorageError(f"No temporary folder can be made: {why}", fix=fix) from None
    with made as folder:
        _demo(Path(folder), keep=keep, as_json=as_json)


def _demo(home: Path, *, keep: bool, as_json: bool) -> None:
    from handbell.demo_environment import (  # noqa: PLC0415 - heavy
        SAMPLE_MAIL,
        DemoEnvironment,
        isolated_settings,
        without_twin,
    )
    from handbell.system import System  # noqa: PLC0415

    try:
        from handbell.twin.threaded import start_twin  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise without_twin(error) from None

    settings = isolated_settings(home)
    parts = System(settings)
    with DemoEnvironment(parts) as demo_environment:
        app = demo_environment.prepare()[0]
        with start_twin(parts.twin_folder, hooks=demo_environment.hooks()) as twin:
            twin.add_app(app.id, app.name)
            for name, platform in PHONES.items():
                twin.add_phone(name, mail=SAMPLE_MAIL, app=app.id, platform=platform)
            shown = _send(settings, twin, SAMPLE_MAIL)
            _tell(shown, app.name, as_json=as_json)
            if keep:
                _wait(twin.page_link, is_told=as_json)
            elif not as_json:
                _say_more()


def _send(settings: "Settings", twin: "RunningTwin", mail: str) -> list[DeviceResult]:
    from handbell.push import PushNotification  # noqa: PLC0415 - heavy

    push = PushNotification(settings=settings)
    response = push.send(NOTIFICATION, mail)
    push.close()
    if not response.success:
        problems = " ".join((*response.errors, *response.warnings))
        raise TwinError(f"The notification was not accepted: {problems}", fix=_AGAIN)
    until = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < until:
        results = [_result(twin, delivery) for delivery in response.deliveries]
        found = [result for result in results if result is not None]
        if len(found) == len(PHONES):
            return found
        time.sleep(0.01)
    raise TwinError(
        f"Not every device showed the notification within {_WAIT_SECONDS} seconds", fix=_AGAIN
    )


def _result(twin: "RunningTwin", delivery: "Delivery") -> DeviceResult | None:
    """Return what became of a delivery; None as long as its device shows nothing."""
    phone = next(one for one in twin.phones.values() if one.token == delivery.address)
    accepted = [item.at for item in twin.requests if item.token == phone.token]
    if not phone.cards or not accepted:
        return None
    card = phone.cards[0]
    # The twin records a request when it is complete, a moment after the card is shown.
    accepted_at = min(card.shown_at, *accepted)
    return DeviceResult(device=phone.name, delivery=delivery, card=card, accepted_at=accepted_at)


def _tell(shown: list[DeviceResult], app_name: str, *, as_json: bool) -> None:
    if as_json:
        devices = [result.to_dict() for result in shown]
        write_json(
            {
                "accepted": all(device["accepted"] for device in devices),
                "displayed": True,
                "notification_id": shown[0].delivery.notification_id,
                "devices": devices,
            }
        )
        return
    console.print("push.send(", style="dim", end="")
    console.print(f"{NOTIFICATION}, {shown[0].delivery.mail!r})\n", style="dim")
    _print_timeline(shown)
    for result in shown:
        console.print(_card(result, app_name))


def _print_timeline(shown: list[DeviceResult]) -> None:
    moments = [(0, "created")]
    for result in shown:
        service = _SERVICES.get(result.delivery.gateway, result.delivery.gateway)
        moments += [
            (result.accepted_after, f"accepted by the twin of {service}"),
            (result.displayed_after, f"displayed: {result.device}"),
        ]
    for milliseconds, label in sorted(moments, key=itemgetter(0)):
        console.print(f"{milliseconds:6} ms  {label}")
    console.print()


def _card(result: DeviceResult, app_name: str) -> Panel:
    card = result.card
    lines = [Text(card.title, style="bold")]
    lines += [Text(line) for line in (card.subtitle, card.body) if line]
    return Panel(
        Group(*lines),
        title=Text(f"{result.device}: {app_name}", style="dim"),
        title_align="left",
        subtitle="now",
        subtitle_align="right",
        box=box.ROUNDED,
        width=52,
        padding=(0, 1),
    )


def _say_more() -> None:
    command = escape(_own_name())
    console.print(f"\nSee more: [bold]{command} demo --keep[/] leaves the devices up in")
    console.print(f"your browser; [bold]{command} twin[/] runs it for your own code.")


def _own_name() -> str:
    """Return the command to call: its name, or what was typed if PATH lacks it."""
    own, found = Path(sys.argv[0]), shutil.which("handbell")
    if own.name != "handbell" or (found and own.exists() and own.samefile(found)):
        return "handbell"
    return str(own)


def _wait(page_url: str, *, is_told: bool) -> None:
    """Wait for Ctrl-C or SIGTERM; with ``is_told`` standard output stays one JSON value."""
    place = console_on(stderr=True) if is_told else console

    async def wait() -> None:
        stop = stop_on_signal()
        place.print(f"\nThe devices: [bold]{page_url}[/]   Ctrl-C ends it.", soft_wrap=True)
        await stop.wait()

    asyncio.run(wait())
    place.print()
