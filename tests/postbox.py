"""A mail server for tests: it takes real mail over a socket, and can refuse it."""

import asyncio
import contextlib
import re
import ssl
import threading
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

_LINK = re.compile(r"https?://\S+/prove/(\w+)")


class Mailbox:
    """What arrived. ``answers`` holds what the next mails are answered with instead of 250."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []
        self.envelopes: list[Envelope] = []
        self.sessions: list[Session] = []
        self.answers: list[str] = []
        self.port = 0

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        """Take a mail, or refuse it."""
        if self.answers:
            return self.answers.pop(0)
        content = cast("bytes", envelope.content)
        self.mails.append(message_from_bytes(content, policy=default))
        self.envelopes.append(envelope)
        self.sessions.append(session)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: object
    ) -> str:
        """Take a recipient, unless the address says that nobody lives there."""
        if address.startswith("nobody"):
            return "550 There is nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    def wait(self, number: int = 1, seconds: float = 10) -> list[EmailMessage]:
        """Return the mails once so many have come."""
        deadline = time.monotonic() + seconds
        while len(self.mails) < number:
            assert time.monotonic() < deadline, f"{len(self.mails)} of {number} mails came"
            time.sleep(0.01)
        return self.mails

    def secret(self, number: int = 1) -> str:
        """Return the secret of the link in a mail, once so many have come."""
        return link_of(self.wait(number)[number - 1])


def link_of(mail: EmailMessage) -> str:
    """Return the secret of the one link that both parts of a mail carry."""
    found = set()
    for kind in ("plain", "html"):
        part = mail.get_body((kind,))
        assert part is not None
        found |= set(_LINK.findall(part.get_content()))
    (secret,) = found
    return str(secret)


@contextlib.contextmanager
def start_mailbox(
    *, tls: ssl.SSLContext | None = None, login: tuple[str, str] | None = None
) -> Iterator[Mailbox]:
    """Run a mail server; with ``tls`` it insists on STARTTLS, with ``login`` on that login."""
    mailbox = Mailbox()
    loop = asyncio.new_event_loop()

    def authenticate(_server: SMTP, _session: Any, _envelope: Any, _way: str, data: Any) -> Any:
        said = (data.login.decode(), data.password.decode())
        return AuthResult(success=said == login)

    def serve() -> SMTP:
        return SMTP(
            mailbox,
            hostname="mail.example.com",
            enable_SMTPUTF8=True,
            tls_context=tls,
            require_starttls=tls is not None,
            auth_required=login is not None,
            authenticator=authenticate if login else None,
            loop=loop,
        )

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    opening = loop.create_server(serve, "127.0.0.1", 0)
    server = asyncio.run_coroutine_threadsafe(opening, loop).result(5)
    mailbox.port = server.sockets[0].getsockname()[1]
    try:
        yield mailbox
    finally:
        asyncio.run_coroutine_threadsafe(_close(server), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _close(server: asyncio.Server) -> None:
    server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
