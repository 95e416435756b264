"""How the ledger keeps the address of a delivery that goes to no session."""

import json
from typing import Final

_OBJECT: Final = "{"


def stored_form(token: str, details: str | None) -> str:
    """Return an address as the ledger keeps it: the token, or JSON where it has further parts."""
    if details is None:
        return token
    whole = {"token": token, "details": json.loads(details)}
    return json.dumps(whole, separators=(",", ":"), sort_keys=True)


def read_stored(address: str) -> tuple[str, str | None]:
    """Return the token of a stored address, and JSON of its further parts, or None."""
    # No token and no endpoint begins like an object.
    if not address.startswith(_OBJECT):
        return address, None
    whole = json.loads(address)
    return whole["token"], json.dumps(whole["details"], separators=(",", ":"), sort_keys=True)
