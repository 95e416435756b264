"""Passwords of operators: which may be used, and how they are kept."""

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from handbell.access.passwords import LONGEST, SHORTEST, Passwords, check_password
from handbell.errors import OperatorError

MAIL = "somebody@example.com"
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.mark.parametrize(
    "password",
    [
        "",
        "eleven char",
        "password1234",
        "PassWord1234",
        "aaaaaaaaaaaaaaaa",
        "abababababababab",
        MAIL,
        MAIL.upper(),
        "x" * (LONGEST + 1),
    ],
)
def test_a_password_that_is_easily_guessed_is_refused(password: str) -> None:
    """Too short, too long, among the commonest, or the mail address: refused with a fix."""
    with pytest.raises(OperatorError) as caught:
        check_password(password, mail=MAIL)
    assert caught.value.fix
    assert password not in str(caught.value) or not password


@pytest.mark.parametrize("password", ["a bell rings twice", "ünïcödé-wörter", "x7!kQ9_zLmP2"])
def test_no_kind_of_character_is_asked_for(password: str) -> None:
    """Twelve characters are enough, whatever they are."""
    check_password(password, mail=MAIL)


@given(st.text(min_size=SHORTEST, max_size=LONGEST))
def test_a_password_of_the_right_length_is_judged_without_a_failure(password: str) -> None:
    """Whatever is typed, the judgement is yes or an OperatorError."""
    try:
        check_password(password, mail=MAIL)
    except OperatorError as error:
        assert "most common" in error.what  # noqa: PT017 - not every text is refused


def test_a_hash_is_argon2id_and_of_this_password_only() -> None:
    """What is stored is Argon2id with a salt of its own; only the same password fits."""
    passwords = Passwords()
    stored = passwords.hash("a bell rings twice")
    assert stored.startswith("$argon2id$")
    assert stored != passwords.hash("a bell rings twice")
    assert passwords.fits("a bell rings twice", stored)
    assert not passwords.fits("a bell rings thrice", stored)
    assert not passwords.is_outdated(stored)


def test_nobodys_password_never_fits() -> None:
    """An account that is not there is checked against a hash that nobody knows."""
    assert not Passwords(QUICK).fits("a bell rings twice", None)


def test_what_is_no_hash_fits_nothing() -> None:
    """A damaged row lets nobody in."""
    assert not Passwords(QUICK).fits("a bell rings twice", "damaged")


def test_a_hash_of_other_parameters_is_outdated() -> None:
    """A hash says how it was made, and that this is not today's way."""
    stored = Passwords(QUICK).hash("a bell rings twice")
    assert Passwords().is_outdated(stored)
    assert Passwords().fits("a bell rings twice", stored)
