"""The configured mail server, and sending of one mail."""

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
from handbell.setting_values import check_authority
from handbell.settings import Settings

TIMEOUT_SECONDS: Final = 30.0
"""The time-out of one step of the SMTP dialogue."""

_PORTS: Final = {"smtp": 587, "smtps": 465}
_WAYS: Final = ("none", "starttls")
_OPTIONS: Final = frozenset({"tls", "ca_file"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """The address and credentials of the mail server; its repr omits the password.

    ``security`` is ``tls`` from the first byte on, ``starttls`` (required), or ``none``.
    ``ca_file`` names a private certificate authority.
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
        """Return the mail server of the settings, or None if there is none.

        Raises :class:`~handbell.errors.SettingsError` for unknown options.
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
        """Send a mail to the mailbox ``to``, whatever its headers say.

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
            "HANDBELL_SMTP_URL has unknown options",
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
