import pytest

from handbell.apps.app import App
from handbell.errors import AppError


def test_an_app_is_named_after_its_bundle_id() -> None:
    """The last part of the bundle id is the name, unless another is given."""
    assert App(team_id="TEAM123456", bundle_id="com.sample.myapp").name == "myapp"
    assert App(team_id="TEAM123456", bundle_id="com.sample.myapp", name=" Shop ").name == "Shop"


def test_an_id_can_be_read_back() -> None:
    """The id is team id and bundle id, and reading it gives the same app."""
    app = App.read_id(" TEAM123456.com.sample.my-app ")
    assert (app.team_id, app.bundle_id) == ("TEAM123456", "com.sample.my-app")
    assert App.read_id(app.id) == app
    assert app.row is None


@pytest.mark.parametrize("unseen", [" ", "\t", "\n", "\u00a0", "\ufeff", "\u200b", "\u2060 "])
def test_what_is_pasted_around_an_id_is_nobody_s(unseen: str) -> None:
    """Blanks and what is not seen at all, as pages and documents bring them along."""
    app = App(team_id=f"{unseen}TEAM123456{unseen}", bundle_id=f"{unseen}com.sample.myapp{unseen}")
    assert app.id == "TEAM123456.com.sample.myapp"
    assert App.read_id(f"{unseen}{app.id}{unseen}") == app


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("myapp", "not an app id"),
        ("", "not an app id"),
        ("team123456.com.sample.myapp", "not a team id"),
        ("TEAM12345.com.sample.myapp", "not a team id"),
        ("TEAM1234567.com.sample.myapp", "not a team id"),
        ("com.sample.myapp", "team id is missing"),
        (" io.example.some-App ", "team id is missing"),
        ("de.beispiel", "team id is missing"),
        ("TEAM12345\n.com.sample", "not a team id"),
        ("TEAM123456.", "empty"),
        ("TEAM123456.com..myapp", "dot"),
        ("TEAM123456..com", "dot"),
        ("TEAM123456.com.my_app", "'_' is not a letter"),
        ("TEAM123456.com.my app", "' ' is not a letter"),
        ("TEAM123456.com.äpp", "'ä' is not a letter"),
        ("TEAM123456." + "a" * 156, "longer than 155"),
    ],
)
def test_an_id_that_cannot_be_apples_says_what_is_wrong(text: str, why: str) -> None:
    """The error names the part that is wrong, and how to write it."""
    with pytest.raises(AppError, match=why) as caught:
        App.read_id(text)
    assert caught.value.fix
    if "missing" in why:
        assert f"TEAM123456.{text.strip()}" in caught.value.fix


@pytest.mark.parametrize("name", ["two\nlines", "n" * 201])
def test_a_name_that_cannot_be_shown_is_refused(name: str) -> None:
    """A name stands in lists: it is one short line."""
    with pytest.raises(AppError, match="name"):
        App(team_id="TEAM123456", bundle_id="com.sample.myapp", name=name)


@pytest.mark.parametrize(
    ("given", "app_id", "name"),
    [
        (
            {"team_id": "TEAM123456", "bundle_id": "com.a.B", "android_package": "com.a.c"},
            "TEAM123456.com.a.B",
            "B",
        ),
        ({"android_package": "com.Example.my_app"}, "com.Example.my_app", "my_app"),
        ({"web_origin": "https://Shop.Example/"}, "shop-example", "shop.example"),
        ({"web_origin": "https://a.example", "name": "My Shop!"}, "my-shop", "My Shop!"),
        ({"web_origin": "https://a.example", "name": "店"}, "a-example", "店"),
        ({"name": "Shop 2"}, "shop-2", "Shop 2"),
        ({"id": "till", "web_origin": "https://a.example"}, "till", "a.example"),
        ({"id": "till"}, "till", "till"),
    ],
)
def test_an_app_has_an_id_by_what_it_has(given: dict[str, str], app_id: str, name: str) -> None:
    """The id is Apple's, the package, or one made of name or origin, unless one is given."""
    app = App(**given)  # type: ignore[arg-type]
    assert (app.id, app.name) == (app_id, name)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({}, "has no id"),
        ({"name": "店"}, "has no id"),
        ({"team_id": "TEAM123456"}, "both of Apple's ids"),
        ({"bundle_id": "com.sample.myapp"}, "both of Apple's ids"),
        ({"id": "My Shop"}, "not an id for an app"),
        ({"id": "a--b"}, "not an id for an app"),
        ({"android_package": "myapp"}, "not the package"),
        ({"android_package": "com.1a.b"}, "not the package"),
        ({"android_package": "com.my-app"}, "not the package"),
        ({"android_package": "a." * 120 + "a"}, "not the package"),
        ({"web_origin": "shop.example"}, "not the origin"),
        ({"web_origin": "https://shop.example/shop"}, "not the origin"),
        ({"web_origin": "https://user@shop.example"}, "not the origin"),
        ({"web_origin": "https://shop.example:99999"}, "not the origin"),
        ({"web_origin": "https://sh op.example"}, "not the origin"),
        ({"web_origin": "https://"}, "not the origin"),
        ({"web_origin": "http://shop.example"}, "no push to pages"),
        ({"web_origin": "ftp://shop.example"}, "no push to pages"),
        ({"id": "shop", "android_fingerprints": ["14:6D"]}, "fingerprint"),
        ({"id": "shop", "android_fingerprints": ["0" * 63 + "g"]}, "fingerprint"),
        ({"id": "shop", "android_fingerprints": [f"{n:064x}" for n in range(21)]}, "too many"),
    ],
)
def test_what_cannot_name_an_app_is_refused(given: dict[str, str], why: str) -> None:
    """The error names the part that is wrong, and how to write it."""
    with pytest.raises(AppError, match=why) as caught:
        App(**given)  # type: ignore[arg-type]
    assert caught.value.fix


@pytest.mark.parametrize(
    ("origin", "canonical"),
    [
        (" HTTPS://Shop.Example:443/ ", "https://shop.example"),
        ("https://shop.example:8443", "https://shop.example:8443"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://127.0.0.1", "http://127.0.0.1"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_an_origin_is_written_in_one_way(origin: str, canonical: str) -> None:
    """As browsers write it: lower case, without a default port, names in ASCII."""
    assert App(web_origin=origin).web_origin == canonical


def test_fingerprints_are_written_as_android_expects() -> None:
    """With or without colons, in either case: pairs of upper-case digits, each once."""
    digits = "0123456789abcdef" * 4
    app = App(id="shop", android_fingerprints=(digits, digits.upper(), " "))
    (only,) = app.android_fingerprints
    assert only == ":".join(f"{digits.upper()[place : place + 2]}" for place in range(0, 64, 2))


def test_who_asks_for_apples_ids_in_vain_hears_how_to_add_them() -> None:
    """An app without Apple's ids has none to prove itself with."""
    with pytest.raises(AppError, match="no team id") as caught:
        _ = App(android_package="com.sample.myapp").apple
    assert "handbell app set com.sample.myapp --team" in caught.value.fix
