"""Where devices are reached: the address of a session, and the columns that keep it."""

from typing import Any

from sqlalchemy import Row

from handbell.services.address import Address
from handbell.services.table import SERVICES

from .session import Session

Place = tuple[str, str]
"""Where a device is reached: service and token. It has one owner in an app."""


def address_of(session: Session) -> Address:
    """Return the address of a session."""
    return Address(session.service, session.token, session.kind, session.details)


def address_in(row: Row[Any]) -> Address:
    """Return the address of a session's row."""
    return Address(row.service, row.token, row.kind, row.address)


def address_columns(address: Address) -> dict[str, Any]:
    """Return the columns of an address."""
    return {
        "service": address.service,
        "token": address.token,
        "kind": address.kind,
        "address": address.details,
    }


def place_of(address: Address | Session | Row[Any]) -> Place:
    """Return where a device is reached."""
    return (address.service, address.token)


def fitting(address: Address, environment: str) -> str:
    """Return the environment of an address that may have changed its service."""
    return environment if environment in SERVICES[address.service].environments else "production"
