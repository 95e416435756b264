"""Mail addresses: what is compared, what is mailed, and that both are one mailbox."""

import unicodedata
from email import message_from_string
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTPUTF8

import pytest
from email_validator import EmailNotValidError, validate_email
from hypothesis import example, given
from hypothesis import strategies as st

from handbell._mail import fold_mail, mailbox, read_mail

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


@pytest.mark.parametrize("text", ["K@example.com", "a@K.com", "a@exampıe.com"])  # noqa: RUF001 - look-alikes
def test_letters_that_fold_into_ascii_take_the_long_way(text: str) -> None:
    """The Kelvin sign is no k: what only looks ordinary once folded is validated."""
    assert read_mail(text) == _validated(text) == fold_mail(text)


SAME = [
    ("dora@straße.de", "dora@straße.de", "dora@xn--strae-oqa.de"),
    ("Dora@STRASSE.de", "dora@strasse.de", "dora@strasse.de"),
    ("dora@xn--strae-oqa.de", "dora@straße.de", "dora@xn--strae-oqa.de"),
    ("dora@XN--STRAE-OQA.DE", "dora@straße.de", "dora@xn--strae-oqa.de"),
    ("dora@straẞe.de", "dora@straße.de", "dora@xn--strae-oqa.de"),
    ("sofia@φύλλος.gr", "sofia@φύλλος.gr", "sofia@xn--wxaammq6b.gr"),
    ("sofia@φύλλοσ.gr", "sofia@φύλλοσ.gr", "sofia@xn--wxaamql6b.gr"),
    ("a@BÜCHER.example", "a@bücher.example", "a@xn--bcher-kva.example"),
    ("a@bu\u0308cher.example", "a@bücher.example", "a@xn--bcher-kva.example"),
    ("a@ｅｘａｍｐｌｅ。com", "a@example.com", "a@example.com"),  # noqa: RUF001 - full width
    ("ｄｏｒａ@example.com", "dora@example.com", "dora@example.com"),  # noqa: RUF001 - as above
    ("ﬁona@example.com", "fiona@example.com", "fiona@example.com"),
    ("RENE\u0301E@example.com", "renée@example.com", "renée@example.com"),
    ("ſam@example.com", "sam@example.com", "sam@example.com"),  # noqa: RUF001 - a long s
    ("weiß@example.com", "weiß@example.com", "weiß@example.com"),
    ("用户@例え.テスト", "用户@例え.テスト", "用户@xn--r8jz45g.xn--zckzah"),
    ("a@straße.local", "a@straße.local", "a@xn--strae-oqa.local"),
    ("a@localhost", "a@localhost", "a@localhost"),
]
REFUSED = [
    "=?utf-8?q?dora?=@victim.example",
    "x.=?utf-8?b?ZG9yYQ==?=@victim.example",
    "＝？utf-8?q?dora?=@victim.example",  # noqa: RUF001 - full width
    '"dora"@example.com',
    '"dora@victim.example> "@example.com',
    "dora(mail)@example.com",
    "dora@(mail)example.com",
    "@relay.example:dora@victim.example",
    "dora%victim.example@",
    "dora@victim.example,eve@example.com",
    "dora@victim.example@example.com",
    "dora＠victim.example@example.com",  # noqa: RUF001 - full width
    "Dora <dora@victim.example>",
    "dora@victim.example\r\nBcc: eve@example.com",
    "do\x00ra@example.com",
    "dora\u202emoc@example.com",
    "do\u200bra@example.com",
    "do\u00adra@example.com",
    "do\ufe0fra@example.com",
    "do\u3164ra@example.com",
    "dora@exa\u202emple.com",
    "dora@example.com.",
    "dora@.example.com",
    "dora@example..com",
    "dora@[127.0.0.1]",
    "dora@xn--zz--.com",
    "dora@xn--a.com",
    "dora@I❤.example",
    "dora@نامه\u200cای.com",  # noqa: RUF001 - Arabic
    "dora@" + "é" * 64 + ".com",
    "dora@" + "٠" * 240,  # noqa: RUF001 - Arabic
    "é" * 120 + "@" + "bücher." * 20 + "example",
    "do ra@example.com",
    "do…ra@example.com",
    "@example.com",
    "dora@",
    "",
]


@pytest.mark.parametrize(("text", "compared", "handed"), SAME)
def test_what_is_compared_and_what_is_mailed_are_one_mailbox(
    text: str, compared: str, handed: str
) -> None:
    """Hard addresses: their form, what a mail server is handed, and that it reads back alike."""
    assert read_mail(text) == compared
    assert mailbox(compared) == handed
    assert read_mail(handed) == compared
    assert fold_mail(text) == compared


@pytest.mark.parametrize("text", REFUSED)
def test_what_could_be_read_as_another_mailbox_is_no_address(text: str) -> None:
    """Encoded words, quotes, comments, routes, controls, what cannot be seen, false Punycode."""
    with pytest.raises(ValueError, match=r"\S"):
        read_mail(text)
    with pytest.raises(ValueError, match=r"\S"):
        mailbox(text)
    assert fold_mail(fold_mail(text)) == fold_mail(text)


@given(
    st.text(st.sampled_from("aZßẞſKςΣİıéÉ\u0301ﬁａ．ـعש٠-._+=?=\u0345ŉ"), max_size=8),  # noqa: RUF001
    st.text(st.sampled_from("aZßẞſςΣİıéÉ\u0301ﬁａ．。ـعש٠-.x\u200d\u0345ŉ"), max_size=8),  # noqa: RUF001
)
def test_any_address_is_refused_or_is_one_mailbox(local: str, domain: str) -> None:
    """Reading is final: what was read is read the same again, and so is what is mailed."""
    try:
        compared = read_mail(f"{local}@{domain}.com")
    except ValueError:
        return
    handed = mailbox(compared)
    assert (
        read_mail(compared) == compared == read_mail(handed) == fold_mail(f"{local}@{domain}.com")
    )
    assert handed.rpartition("@")[2].isascii()
    message = EmailMessage(policy=SMTPUTF8)
    username, _, host = handed.rpartition("@")
    message["To"] = Address(username=username, domain=host)
    read_back = message_from_string(message.as_bytes().decode(), policy=SMTPUTF8)["To"]
    assert [one.addr_spec for one in read_back.addresses] == [handed]


def test_only_the_compared_form_is_mailed() -> None:
    """What was not compared has no mailbox, whatever it could be read as."""
    with pytest.raises(ValueError, match="form"):
        mailbox("Dora@example.com")
