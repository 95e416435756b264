"""A request as it was received, and its answer: what the rules of every service work on."""

from dataclasses import dataclass, field

from handbell.twin.faults import Fault


@dataclass(frozen=True, slots=True)
class Request:
    """A received request: header names in lower case, ``size`` of the whole body in bytes.

    ``body`` is cut where the server keeps no more of it. ``host`` is the name that the client
    asked for, with a port where it sent one.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    body: bytes
    size: int
    host: str = ""

    def header(self, name: str) -> str | None:
        """Return the value of a header, None when it is absent or empty."""
        return next((value for key, value in self.headers if key == name), None) or None


@dataclass(frozen=True, slots=True)
class TwinResponse:
    """An HTTP answer: status, headers except ``:status``, body."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """Return the value of a header, None when it is absent."""
        return dict(self.headers).get(name)


@dataclass(frozen=True, slots=True)
class TwinExchange:
    """The result of a request: the answer, if any, and the fault that affects it."""

    answer: TwinResponse | None
    fault: Fault | None = None
