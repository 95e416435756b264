"""The deliveries of one notification, read page by page while somebody goes through them."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol, overload

from handbell._thread_pool import in_thread

from .delivery import Delivery

PAGE: Final = 500
"""How many deliveries are read, and held in memory, at a time."""


class DeliveryBatch(NamedTuple):
    """Some deliveries, and where the next ones begin; None where these are the last."""

    deliveries: Sequence[Delivery]
    following: Any


class DeliverySource(Protocol):
    """Where the deliveries of one notification are kept, for ordinary and asynchronous callers."""

    def count(self) -> int:
        """Return how many there are now."""

    def page(self, start: Any) -> DeliveryBatch:
        """Return the page that begins at ``start``; the first one at None."""

    async def fetch(self, start: Any) -> DeliveryBatch:
        """Return what :meth:`page` does, without holding up the event loop."""


class LedgerDeliveries:
    """Reads from a ledger: ``count`` counts, ``read`` returns so many after a number."""

    def __init__(
        self, count: Callable[[], int], read: Callable[[int, int], Sequence[Delivery]]
    ) -> None:
        self.count = count
        self._read = read

    def page(self, start: int | None) -> DeliveryBatch:
        """Return the page behind the delivery with the number ``start``."""
        found = self._read(-1 if start is None else start, PAGE)
        return DeliveryBatch(found, found[-1].number if len(found) == PAGE else None)

    async def fetch(self, start: int | None) -> DeliveryBatch:
        """Return what :meth:`page` does, read in another thread."""
        return await in_thread(self.page, start)


class Deliveries(Sequence[Delivery]):
    """The deliveries of a notification as they are when they are looked at: sessions first.

    Each loop reads them anew, some hundred at a time, so that a broadcast to millions takes no more
    memory than one page. ``len`` counts without reading any. An index reads up to that place, a
    slice returns a tuple; ``tuple(...)`` holds all of them. ``async for`` reads without holding up
    the event loop.
    """

    __slots__ = ("_source",)

    def __init__(self, source: DeliverySource | None = None) -> None:
        self._source = source

    def __len__(self) -> int:
        return 0 if self._source is None else self._source.count()

    def __iter__(self) -> Iterator[Delivery]:
        if self._source is None:
            return
        page = self._source.page(None)
        yield from page.deliveries
        while page.following is not None:
            page = self._source.page(page.following)
            yield from page.deliveries

    async def __aiter__(self) -> AsyncIterator[Delivery]:
        if self._source is None:
            return
        page = await self._source.fetch(None)
        while True:
            for delivery in page.deliveries:
                yield delivery
            if page.following is None:
                return
            page = await self._source.fetch(page.following)

    def __reversed__(self) -> Iterator[Delivery]:
        return reversed(tuple(self))

    @overload
    def __getitem__(self, index: int) -> Delivery: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Delivery, ...]: ...
    def __getitem__(self, index: int | slice) -> Delivery | tuple[Delivery, ...]:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return tuple(islice(self, start, stop, step)) if step > 0 else tuple(self)[index]
        place = index if index >= 0 else index + len(self)
        for delivery in islice(self, place, None) if place >= 0 else ():
            return delivery
        raise IndexError("There are not so many deliveries")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]  # what it holds changes

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, read when looked at>"
