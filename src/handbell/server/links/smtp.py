"""The mail server that an operator named, and one mail to it."""

import ssl
from dataclasses import dataclass, field
from email.message import EmailMessage
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from handbell._mail import mailbox, read_mail
from handbell._paths import expanded
from handbell.errors import MailError, SettingsError
from handbell.settings import Settings, check_authority

TIMEOUT_SECONDS: Final = 30.0
"""How long one step of the exchange may take."""

_PORTS: Final = {"smtp": 587, "smtps": 465}
_WAYS: Final = ("none", "starttls")
_OPTIONS: Final = frozenset({"tls", "ca_file"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """Where mail is handed in, and as whom. Its text never shows the password.

    ``security`` is ``tls`` from the first byte on, ``starttls`` (required, not only tried), or
    ``none``. ``ca_file`` names a certificate authority of one's own.
    """

    host: str
    port: int
    sender: str
    security: str
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @classmethod
    def of(cls, settings: Settings) -> "MailServer | None":
        """Return the mail server of the settings, or None when they name none.

        Raises :class:`~handbell.errors.SettingsError` for options that it does not have.
        """
        if settings.smtp_url is None or settings.mail_from is None:
            return None
        parts = urlsplit(settings.smtp_url.get_secret_value())
        options = parse_qs(parts.query)
        ca_file = options.get("ca_file", [None])[0]
        return cls(
            host=parts.hostname or "",
            port=parts.port or _PORTS[parts.scheme],
            sender=mailbox(read_mail(settings.mail_from)),
            security=_security(parts, options),
            user=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
            ca_file=None if ca_file is None else _authority(expanded(ca_file)),
        )

    async def send(self, message: EmailMessage, *, to: str) -> None:
        """Hand in a mail for the mailbox ``to``, whatever its head says.

        Raises aiosmtplib's errors, OSError or ValueError when it fails.
        """
        import aiosmtplib  # noqa: PLC0415 - of the extra `server`, and only needed here

        how: dict[str, Any] = {"use_tls": self.security == "tls", "start_tls": False}
        if self.security == "starttls":
            how["start_tls"] = True
        if self.security != "none":
            how["tls_context"] = ssl.create_default_context(cafile=self.ca_file)
        await aiosmtplib.send(
            message,
            sender=self.sender,
            recipients=[to],
            hostname=self.host,
            port=self.port,
            username=self.user,
            password=self.password,
            timeout=TIMEOUT_SECONDS,
            **how,
        )


def mail_server(settings: Settings) -> MailServer:
    """Return the mail server. Raises :class:`~handbell.errors.MailError` when there is none."""
    found = MailServer.of(settings)
    if found is None:
        raise MailError(
            "This server has no mail server to send links with",
            fix="Set HANDBELL_SMTP_URL and HANDBELL_MAIL_FROM, or choose another proof",
        )
    return found


def _authority(path: Path) -> Path:
    try:
        return check_authority(path)
    except ValueError as error:
        raise SettingsError(
            f"The ca_file of HANDBELL_SMTP_URL cannot be used: {error}",
            fix="Name a file with the mail server's authority in PEM form, or leave ca_file out",
        ) from None


def _security(parts: SplitResult, options: dict[str, list[str]]) -> str:
    unknown = set(options) - _OPTIONS
    way = options.get("tls", [""])[0]
    if unknown or (way and way not in _WAYS) or (way and parts.scheme == "smtps"):
        raise SettingsError(
            "HANDBELL_SMTP_URL has options that it cannot have",
            fix="Use smtps://, or smtp:// with ?tls=starttls or ?tls=none; and ?ca_file=PATH",
        )
    if parts.scheme == "smtps":
        return "tls"
    return way or ("none" if _is_loopback(parts.hostname or "") else "starttls")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
