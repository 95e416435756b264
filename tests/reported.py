"""What a phone says of a push, as it reaches the ledger."""

from handbell.delivery.ledger.receipts import Receipt, ReceiptKind
from handbell.system import System


def report(system: System, event: ReceiptKind, apns_id: str) -> bool:
    """Note that something happened on a phone just now; return whether the delivery is here."""
    return system.receipts.note([Receipt.read(event=event, delivery_id=apns_id)]) == [True]
