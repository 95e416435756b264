"""The permission to send one push while an app's circuit is open."""

from typing import Protocol


class Circuit(Protocol):
    """What gives a permission, and takes it back."""

    def take_back(self, probe: "Probe") -> None:
        """Let the next one probe who asks, unless somebody has another permission by now."""


class Probe:
    """A permission to send one push, given back exactly once, however often it is asked to be.

    Whoever acquires it gives it back in a ``finally``, or hands it to a ticket, which does so when
    that push has ended. What its answer says of the circuit is not told here.
    """

    __slots__ = ("_circuit",)

    def __init__(self, circuit: Circuit) -> None:
        self._circuit: Circuit | None = circuit

    def release(self) -> None:
        """Give the permission back: the next one to ask may probe."""
        circuit, self._circuit = self._circuit, None
        if circuit is not None:
            circuit.take_back(self)
