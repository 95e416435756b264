"""Which hosts messages are sent to: an endpoint is a URL that a stranger chose.

A browser names its vendor's push service, an app with UnifiedPush the one that its user prefers.
The setting ``HANDBELL_WEB_PUSH_HOSTS`` says which of them are used; docs/web-push.md explains it.
"""

import re
from dataclasses import dataclass, replace
from typing import Final, Self

from handbell._ip import read_ip
from handbell._text import without_password
from handbell._url_target import Cause, UrlTarget
from handbell.errors import RegistryError

from .protocol import APPLE_HOSTS, PUSH_HOSTS

ANY: Final = "any"
KNOWN: Final = "known"
HTTPS_PORT: Final = 443

_SETTING: Final = "HANDBELL_WEB_PUSH_HOSTS"
_ENTRY: Final = re.compile(
    r"(?P<wild>\*\.)?(?P<host>[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?"
)
_LAST_PORT: Final = 65_535
_LOOKS: Final = (
    "Send the endpoint as the browser gives it, such as "
    "https://updates.push.services.mozilla.com/wpush/v2/..."
)
_FIXES: Final = {
    Cause.PRIVATE: "Use a push service with a public address",
    Cause.NO_ADDRESS: "Check the host's name",
}


class EndpointTarget(UrlTarget):
    """The endpoint of a subscription, validated; what is wrong raises ``RegistryError``."""

    __slots__ = ()

    PRIVATE_SCHEMES = ("https",)

    @classmethod
    def refusal(cls, url: str, why: str, cause: Cause) -> RegistryError:
        """Return the error for an endpoint: ``why`` follows a colon."""
        shown = without_password(url)[:200]
        return RegistryError(
            f"The endpoint {shown!r} cannot be used: {why}", fix=_FIXES.get(cause, _LOOKS)
        )

    @classmethod
    def read(cls, url: str, *, allow_private: bool = False) -> Self:
        """Return the target of an endpoint, as :meth:`UrlTarget.read`, without the root's dot."""
        target = super().read(url, allow_private=allow_private)
        return replace(target, host=target.host.rstrip("."))

    @property
    def endpoint(self) -> str:
        """The endpoint in its canonical form: the port is left out where it is the usual one."""
        return f"{self.origin}{self.path}"

    @property
    def least_ttl(self) -> int:
        """The least TTL that is taken there: Apple refuses 0, by which others mean now or never."""
        return int(self.host.endswith(APPLE_HOSTS.removeprefix("*")))


@dataclass(frozen=True, slots=True)
class _Entry:
    """A host of the setting, or any below it; at one port."""

    host: str
    port: int = HTTPS_PORT
    is_wild: bool = False

    @classmethod
    def read(cls, text: str) -> Self:
        parts = _ENTRY.fullmatch(text.strip().lower())
        if parts is None or int(parts["port"] or HTTPS_PORT) > _LAST_PORT:
            raise ValueError(f"{text.strip()[:80]!r} is not a host, such as push.example.com")
        host = parts["host"].strip("[]").rstrip(".")
        address = read_ip(host)
        return cls(
            host if address is None else str(address),
            int(parts["port"] or HTTPS_PORT),
            parts["wild"] is not None,
        )

    def covers(self, host: str, port: int) -> bool:
        """Return whether a host, in lower case, is covered at a port."""
        is_named = host.endswith(f".{self.host}") if self.is_wild else host == self.host
        return is_named and port == self.port


_KNOWN: Final = tuple(_Entry.read(each) for each in PUSH_HOSTS)


@dataclass(frozen=True, slots=True)
class PushHosts:
    """The hosts that may be sent to: those of the browsers' vendors, added ones, or any public one.

    ``twin`` is the origin of the twin that runs here, None where none does; it is used for the
    environment ``twin`` only, and that for nothing else. Addresses that are not public are refused
    whatever the setting says, but for the twin's.
    """

    added: tuple[_Entry, ...] = ()
    is_any: bool = False
    twin: str | None = None

    @classmethod
    def read(cls, setting: str, *, twin: str | None = None) -> Self:
        """Parse the setting; raises ValueError, with a text that follows its name."""
        entries = [each.strip() for each in setting.split(",") if each.strip()]
        words = {each.lower() for each in entries}
        added = [each for each in entries if each.lower() not in (ANY, KNOWN)]
        return cls(tuple(_Entry.read(each) for each in added), ANY in words, twin)

    def is_named(self, target: EndpointTarget) -> bool:
        """Return whether a target is a browser vendor's, the twin's, or was added by name."""
        return target.origin == self.twin or any(
            each.covers(target.host, target.port) for each in (*_KNOWN, *self.added)
        )

    def target(self, endpoint: str, environment: str) -> EndpointTarget:
        """Return the target of an endpoint that may be sent to.

        Raises :class:`~handbell.errors.RegistryError` for one that is not an ``https`` URL of an
        allowed host, and for one of the twin's outside its environment, or the other way round.
        """
        target = EndpointTarget.read(endpoint, allow_private=environment == "twin")
        if environment == "twin":
            if target.origin != self.twin:
                why = f"{target.host} is not the twin that runs here"
                fix = "Start the twin that made it, or leave `environment` out"
                raise self._refused(target, why, fix)
            return target
        if self.is_named(target) or (self.is_any and target.port == HTTPS_PORT):
            return target
        usual = target.port == HTTPS_PORT
        name = target.host if usual else target.authority
        why = f"{name} is not one of the push services that are used"
        raise self._refused(target, why, f"Add {name} to {_SETTING} if you trust it")

    def _refused(self, target: EndpointTarget, why: str, fix: str) -> RegistryError:
        refusal = EndpointTarget.refusal(target.url, why, Cause.FORM)
        return RegistryError(refusal.what, fix=fix)
