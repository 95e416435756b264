"""``make chaos``: kill senders, break connections and disks, and count whether anything was lost.

Two processes with the real engine send broadcasts and named sends to iPhones, Android phones and
browsers of a twin, out of one SQLite
file. They are killed with SIGKILL and started again, the twin misbehaves in bursts and is out of
order for whole stretches, the file is locked, writes fail, and the wall's clock is set forward and
back. Phones change hands meanwhile, by processes that send nothing. Between episodes the clock of
all of them moves ahead, so that what waits for a quarter of an hour falls due. In the end every
session has to have been reached, as the twin counts it, nothing of a former user may have come
after a switch was answered, and the file has to be whole. Front doors that come and go are another
part: bench/doors.py.
"""

from .clock import Clock
from .filling import fill

__all__ = ["Clock", "fill"]
