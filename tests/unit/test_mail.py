"""Mail addresses: the short way for ordinary ones ends where the validator does."""

import unicodedata

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from handbell._mail import fold_mail, read_mail

_LOCAL = st.from_regex(r"[A-Za-z0-9_+.-]{1,66}", fullmatch=True)
_LABEL = st.from_regex(r"[A-Za-z0-9-]{1,12}", fullmatch=True)
_TOP = st.sampled_from(["com", "example", "MUSEUM", "x", "de1", "de-de"])


def _validated(text: str) -> str | None:
    """Return what the validator alone makes of an address, composed and in lower case."""
    try:
        found = validate_email(text, check_deliverability=False).normalized
    except EmailNotValidError:
        return None
    return unicodedata.normalize("NFC", found.lower())


@given(_LOCAL, st.lists(_LABEL, min_size=1, max_size=3), _TOP)
@example("a.b", ["xn--strae-oqa"], "com")
@example("a", ["1"], "com")
@example("A+b", ["Example"], "COM")
def test_an_ordinary_address_is_read_as_the_validator_reads_it(
    local: str, labels: list[str], top: str
) -> None:
    """The short way refuses nothing that is valid and lets nothing through that is not."""
    text = f"{local}@{'.'.join([*labels, top])}"
    expected = _validated(text)
    if expected is None:
        with pytest.raises(ValueError, match=r"\S"):
            read_mail(text)
    else:
        assert read_mail(text) == expected


@pytest.mark.parametrize("text", ["K@example.com", "a@K.com", "ſ@example.com", "a@exampıe.com"])  # noqa: RUF001 - look-alikes
def test_letters_that_fold_into_ascii_take_the_long_way(text: str) -> None:
    """The Kelvin sign is no k: what only looks ordinary once folded is validated."""
    assert read_mail(text) == _validated(text) == fold_mail(text)
