"""``handbell demo``: a complete send in a few seconds, without an Apple account."""

import asyncio
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Final

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
_WAIT_SECONDS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """The demo's result: the delivery in the ledger, and the card on the phone.

    ``accepted_at`` is the twin's own time of acceptance, in UNIX milliseconds.
    """

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


def demo(
    *,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the phone's page running until Ctrl-C.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send a notification to a virtual phone and show it arrive.

    Everything is created in a temporary home: a twin, an app, a key, and a phone of test@4d.com.
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
            phone = twin.add_phone("Test phone", mail=SAMPLE_MAIL, app=app.id)
            shown = _send(settings, twin, phone.id, SAMPLE_MAIL)
            _tell(shown, app.name, as_json=as_json)
            if keep:
                _wait(twin.page_link, is_told=as_json)
            elif not as_json:
                _say_more()


def _send(settings: "Settings", twin: "RunningTwin", phone: str, mail: str) -> DemoResult:
    from handbell.push import PushNotification  # noqa: PLC0415 - heavy

    push = PushNotification(settings=settings)
    response = push.send(NOTIFICATION, mail)
    push.close()
    if not response.success:
        problems = " ".join((*response.errors, *response.warnings))
        raise TwinError(f"The notification was not accepted: {problems}", fix=_AGAIN)
    (delivery,) = response.deliveries
    until = time.monotonic() + _WAIT_SECONDS
    while time.monotonic() < until:
        for card in twin.phone(phone).cards:
            if card.push_id == delivery.apns_id:
                # The twin records a request when it is complete, a moment after the card is shown.
                accepted_at = min(card.shown_at, _accepted_at(twin, delivery))
                return DemoResult(delivery=delivery, card=card, accepted_at=accepted_at)
        time.sleep(0.01)
    raise TwinError(
        f"The phone did not show the notification within {_WAIT_SECONDS} seconds", fix=_AGAIN
    )


def _accepted_at(twin: "RunningTwin", delivery: "Delivery") -> int:
    return next(request.at for request in twin.requests if request.push_id == delivery.apns_id)


def _tell(shown: DemoResult, app_name: str, *, as_json: bool) -> None:
    if as_json:
        write_json(
            {
                "accepted": shown.delivery.state == "sent",
                "displayed": True,
                "id": shown.delivery.id,
                "apns_id": shown.delivery.apns_id,
                "notification_id": shown.delivery.notification_id,
                "milliseconds": {
                    "accepted": shown.accepted_after,
                    "displayed": shown.displayed_after,
                },
            }
        )
        return
    console.print("push.send(", style="dim", end="")
    console.print(f"{NOTIFICATION}, {shown.delivery.mail!r})\n", style="dim")
    _print_timeline(shown)
    console.print(_card(shown.card, app_name))


def _print_timeline(shown: DemoResult) -> None:
    for milliseconds, label in (
        (0, "created"),
        (shown.accepted_after, "accepted by the twin of Apple's service"),
        (shown.displayed_after, "displayed on the phone"),
    ):
        console.print(f"{milliseconds:6} ms  {label}")
    console.print()


def _card(card: "Card", app_name: str) -> Panel:
    lines = [Text(card.title, style="bold")]
    lines += [Text(line) for line in (card.subtitle, card.body) if line]
    return Panel(
        Group(*lines),
        title=Text(app_name.upper(), style="dim"),
        title_align="left",
        subtitle="now",
        subtitle_align="right",
        box=box.ROUNDED,
        width=52,
        padding=(0, 1),
    )


def _say_more() -> None:
    command = escape(_own_name())
    console.print(f"\nSee more: [bold]{command} demo --keep[/] leaves the phone up in")
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
        place.print(f"\nThe phone: [bold]{page_url}[/]   Ctrl-C ends it.", soft_wrap=True)
        await stop.wait()

    asyncio.run(wait())
    place.print()
