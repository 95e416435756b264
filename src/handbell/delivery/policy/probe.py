"""A probe: the permission to send one push while a circuit is open."""

from typing import Protocol


class ProbedCircuit(Protocol):
    """Grants a probe and takes it back."""

    def take_back(self, probe: "Probe") -> None:
        """Let the next caller probe, unless the probe was granted to another caller meanwhile."""


class Probe:
    """A permission to send one push. :meth:`release` takes effect once; further calls do nothing.

    The owner releases it in a ``finally``, or hands it to a ticket, which releases it when that
    push has ended. What the outcome means for the circuit is decided elsewhere.
    """

    __slots__ = ("_circuits",)

    def __init__(self, circuit: ProbedCircuit) -> None:
        self._circuits = [circuit]

    def bind(self, circuit: ProbedCircuit) -> None:
        """Add a circuit that takes the permission back on release."""
        self._circuits.append(circuit)

    def release(self) -> None:
        """Release the permission: the next caller may probe."""
        circuits, self._circuits = self._circuits, []
        for circuit in circuits:
            circuit.take_back(self)
