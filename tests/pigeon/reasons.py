"""The loft's answers, each with its meaning, the reaction to it, and what to do."""

from types import MappingProxyType
from typing import Final

from handbell._back_off import BackOff
from handbell.services.reactions import Reaction, Reason

REASONS: Final = MappingProxyType(
    {
        row.name: row
        for row in (
            Reason("NeverCameBack", 1, "the pigeon has moved", Reaction.CLOSE_SESSION),
            Reason(
                "WrongTune", 2, "the loft does not know the whistle", Reaction.FIX_CONFIGURATION
            ),
            Reason("ForeignRing", 3, "the pigeon is another loft's", Reaction.WRONG_APP),
            Reason("Moulting", 4, "no pigeon flies", Reaction.BACK_OFF),
        )
    }
)
FIXES: Final = MappingProxyType(
    {
        Reaction.CLOSE_SESSION: "nothing to do: the session opens again when it registers",
        Reaction.FIX_CONFIGURATION: "learn the tune again",
        Reaction.WRONG_APP: "ask the other loft",
        Reaction.BACK_OFF: "wait for autumn",
    }
)
BACK_OFF: Final = MappingProxyType({Reaction.BACK_OFF: BackOff(3600, 2, 86400)})
