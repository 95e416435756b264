"""Mails requested links in the background, and retries until the mail server accepts them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid
from typing import Final

from handbell._background import forever
from handbell._mail import mailbox
from handbell.registry.proofs import LEASE_SECONDS, VALID_SECONDS, MailLink
from handbell.server.context import Context

from .smtp import MailServer
from .templating import render

LONGEST_WAIT: Final = 30.0
"""The interval at which the database is checked for links of other processes."""

_SHORTEST_WAIT: Final = 0.05
_FIRST_PAUSE: Final = 2.0
_LONGEST_PAUSE: Final = 120.0
_FORGET_SECONDS: Final = 3600.0
_ATTEMPT_SECONDS: Final = LEASE_SECONDS - 15.0
"""The time-out of one attempt, shorter than the lease."""
_CANCEL_AGAIN_SECONDS: Final = 0.5
_PERMANENT: Final = range(500, 600)

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def mailing(context: Context) -> AsyncIterator[None]:
    """Mail links while the block runs; without delay when ``context.link_asked`` is set."""
    tasks = [asyncio.create_task(_forget_old(context))]
    server = MailServer.of(context.settings)
    if server is not None:
        tasks.append(asyncio.create_task(_mail(context, server)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _mail(context: Context, server: MailServer) -> None:
    proofs = context.system.proofs

    async def turn() -> float:
        due = await context.run(proofs.next_due)
        wait = LONGEST_WAIT if due is None else due - context.system.now()
        if wait <= 0:
            links = await context.run(proofs.take_due)
            await asyncio.gather(*(_send(context, server, link) for link in links))
            return 0.0
        with contextlib.suppress(TimeoutError):
            seconds = min(LONGEST_WAIT, max(_SHORTEST_WAIT, wait))
            async with asyncio.timeout(seconds):
                await context.link_asked.wait()
        context.link_asked.clear()
        return 0.0

    await forever(turn, name="Mailing links", pause=_FIRST_PAUSE)


async def _send(context: Context, server: MailServer, link: MailLink) -> None:
    """Send one mail, or postpone it.

    The delay doubles the time since the request. Attempts are not counted: a link is valid for
    minutes, and a new request starts afresh.
    """
    proofs = context.system.proofs
    try:
        to = await context.run(mailbox, link.mail)
        message = compose(link, server.sender, context.public_url, context.system.now())
        await _hand_in(server, message, to)
    except asyncio.CancelledError:
        # The outcome is unknown; the next attempt need not wait for the end of the lease.
        await context.run(proofs.postpone, link, 0)
        raise
    except Exception as error:  # noqa: BLE001 - whatever a mail server may answer
        if is_permanent(error):
            # An address that does not exist; the requester must not learn of it.
            _log.info("Proof mail given up: app=%s error=%s", link.app.id, _tell(error))
            await context.run(proofs.mailed, link)
            return
        age = context.system.now() - link.asked_at / 1000
        pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, age))
        _log.warning(
            "Proof mail failed: app=%s retry_in=%.0fs error=%s",
            link.app.id,
            pause,
            _tell(error),
        )
        await context.run(proofs.postpone, link, pause)
    else:
        await context.run(proofs.mailed, link)


async def _hand_in(server: MailServer, message: EmailMessage, to: str) -> None:
    """Send a mail within the time of an attempt; cancellation takes about a second at most."""
    sending = asyncio.ensure_future(server.send(message, to=to))
    try:
        await asyncio.wait([sending], timeout=_ATTEMPT_SECONDS)
        if not sending.done():
            raise TimeoutError
    finally:
        while not sending.done():
            # Python 3.11 loses the cancellation of a connection that is just made.
            sending.cancel()
            await asyncio.wait([sending], timeout=_CANCEL_AGAIN_SECONDS)
        if not sending.cancelled():
            sending.exception()
    await sending


def is_permanent(error: Exception) -> bool:
    """Return whether a mail server refused the recipient for good."""
    from aiosmtplib import SMTPRecipientsRefused  # noqa: PLC0415 - of the extra `server`

    if isinstance(error, ValueError | UnicodeError):
        return True
    if not isinstance(error, SMTPRecipientsRefused):
        return False
    return all(one.code in _PERMANENT for one in error.recipients)


def _tell(error: Exception) -> str:
    """Describe an error without the server's text, which may name the recipient."""
    code = getattr(error, "code", None)
    return type(error).__name__ if code is None else f"{type(error).__name__} {code}"


def compose(link: MailLink, sender: str, public_url: str, now: float) -> EmailMessage:
    """Return the mail of a link, as text and as HTML. Raises ValueError for an invalid address."""
    values = {
        "app": link.app.name,
        "url": f"{public_url}/prove/{link.secret}",
        "minutes": VALID_SECONDS // 60,
    }
    message = EmailMessage(policy=SMTP)
    message["From"] = _address(sender, link.app.name)
    message["To"] = _address(mailbox(link.mail))
    message["Subject"] = f"Notifications of {link.app.name} on your device"
    message["Date"] = format_datetime(datetime.fromtimestamp(now, UTC))
    message["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    # Suppresses out-of-office replies.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(render("mail.txt", **values))
    message.add_alternative(render("mail.html", **values), subtype="html")
    return message


def _address(mail: str, name: str = "") -> Address:
    # Passed in parts: as one text it would be parsed, possibly as another address.
    username, _, domain = mail.rpartition("@")
    return Address(display_name=name, username=username, domain=domain)


async def _forget_old(context: Context) -> None:
    async def turn() -> float:
        while await context.run(context.system.proofs.forget_old):
            pass
        return _FORGET_SECONDS

    await forever(turn, name="Forgetting old links", pause=_FORGET_SECONDS)
