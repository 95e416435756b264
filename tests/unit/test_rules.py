"""An operator's rules, as they are read and as they are kept."""

import pytest

from handbell.delivery.policy.app_rules import HELD_BY, read_rules
from handbell.errors import AppError


@pytest.mark.parametrize(
    ("name", "text", "kept"),
    [
        ("quiet_hours", "22:00 to 7:00", "22:00-07:00"),
        ("cap", "5 per day", "5/day"),
        ("rate_limit", "200", "200/second burst 200"),
        ("rate_limit", "6000/minute burst 10", "100/second burst 10"),
        ("time_zone", "Europe/Paris", "Europe/Paris"),
        *((name, "none", None) for name in HELD_BY),
        *((name, " None ", None) for name in HELD_BY),
    ],
)
def test_a_rule_is_kept_as_the_text_that_reads_back(name: str, text: str, kept: str | None) -> None:
    """What is kept reads back as itself, and ``none`` removes the rule."""
    assert read_rules({name: text}) == {name: kept}
    if kept is not None:
        assert read_rules({name: kept}) == {name: kept}


@pytest.mark.parametrize("name", HELD_BY)
@pytest.mark.parametrize("text", ["", "often", "0/day", "25:00-07:00", "-5"])
def test_what_is_no_rule_is_an_error_of_the_app(name: str, text: str) -> None:
    """A text that cannot be read is refused with what to write instead."""
    with pytest.raises(AppError) as caught:
        read_rules({name: text})
    assert caught.value.fix
