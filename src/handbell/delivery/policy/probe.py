"""A probe: the permission to send one push while a circuit is open."""

from typing import Protocol


class ProbedCircuit(Protocol):
    """Grants the permission, and takes it back."""

    def take_back(self, probe: "Probe") -> None:
        """Let the next caller probe, unless the permission was granted again by now."""


class Probe:
    """A permission to send one push, released exactly once, however often it is called.

    The owner releases it in a ``finally``, or hands it to a ticket, which releases it when that
    push has ended. What the answer means for the circuit is decided elsewhere.
    """

    __slots__ = ("_circuits",)

    def __init__(self, circuit: ProbedCircuit) -> None:
        self._circuits = [circuit]

    def bind(self, circuit: ProbedCircuit) -> None:
        """Have another one take the permission back as well."""
        self._circuits.append(circuit)

    def release(self) -> None:
        """Release the permission: the next caller may probe."""
        circuits, self._circuits = self._circuits, []
        for circuit in circuits:
            circuit.take_back(self)
