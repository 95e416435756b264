"""Templates in the database, and sent by the library."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.conftest import Stage

from handbell import PushNotification
from handbell.apps.app import App
from handbell.creation.template import Template
from handbell.errors import TemplateError, UnknownAppError, UnknownTemplateError

WELCOME = Template.read(
    {
        "name": "welcome",
        "notification": {
            "title": "Hello {{ name }}",
            "languages": {"fr": {"title": "Bonjour {{ name }}"}},
        },
    }
)


@pytest.fixture
def push(stage: Stage) -> PushNotification:
    """Give the front door to a stage whose app has the template `welcome`."""
    stage.system.templates.put(stage.app, WELCOME)
    return PushNotification(settings=stage.system.settings)


def test_a_template_is_kept_by_app_and_name(stage: Stage) -> None:
    """What is put is what is got; the same name again changes it; another app has its own."""
    store = stage.system.templates
    stored, is_new = store.put(stage.app, WELCOME)
    assert is_new
    assert store.get(stage.app, "welcome") == stored
    assert stored.template == WELCOME
    changed = Template.read({"notification": {"title": "Hi"}}, name="welcome")
    again, is_new = store.put(stage.app, changed)
    assert not is_new
    assert again.created_at == stored.created_at <= again.updated_at
    other = stage.system.apps.add("TEAM654321", "com.sample.second", name="Second")
    assert store.list(other) == []
    store.put(other, WELCOME)
    assert [one.template for one in store.list(stage.app)] == [changed]
    store.remove(stage.app, "welcome")
    assert [one.template for one in store.list(other)] == [WELCOME]
    stage.system.apps.remove(other)
    assert store.list(other) == []


def test_a_template_that_is_not_there_names_the_nearest(stage: Stage) -> None:
    """Neither a wrong name nor an app without an entry goes further than a clear error."""
    store = stage.system.templates
    store.put(stage.app, WELCOME)
    for name in ("welcom", "WELCOME", "", "\0"):
        with pytest.raises(UnknownTemplateError):
            store.get(stage.app, name)
        with pytest.raises(UnknownTemplateError):
            store.remove(stage.app, name)
    with pytest.raises(UnknownTemplateError, match=r"Did you mean `welcome`\?"):
        store.render(stage.app, "welcom")
    with pytest.raises(UnknownAppError):
        store.put(App.read_id("TEAM654321.com.sample.unknown"), WELCOME)


def test_sends_that_are_read_together_get_one_state_of_a_template(stage: Stage) -> None:
    """What is changed meanwhile counts for the sends after them, and in other threads at once."""
    store = stage.system.templates
    store.put(stage.app, WELCOME)

    def title() -> str | None:
        return store.render(stage.app, "welcome", {"name": "Ada"}).title

    with store.held():
        assert title() == "Hello Ada"
        store.put(
            stage.app, Template.read({"notification": {"title": "Hi {{ name }}"}}, name="welcome")
        )
        assert title() == "Hello Ada"
        with ThreadPoolExecutor() as pool:
            assert pool.submit(title).result() == "Hi Ada"
    assert title() == "Hi Ada"


def test_the_library_sends_a_template(push: PushNotification, stage: Stage) -> None:
    """A mapping that names a template is sent as it makes it, to each in their language."""
    english, french = (stage.add_phone(f"user{one}@example.com") for one in range(2))
    stage.system.registry.register(stage.app, french.mail or "", french.token, locale="fr-BE")
    mails = [english.mail or "", french.mail or ""]
    use = {"template": "welcome", "variables": {"name": "you"}, "collapse_id": "w"}
    response = push.send(use, mails)
    assert response.reached == 2
    assert push.send_all(use).reached == 2
    opened = push.open(("Letter", 7), use, mails)
    assert opened.success
    again = {"template": "welcome", "variables": {"name": "all"}}
    assert push.replace(opened.notification_id or "", again).success
    assert [card.title for card in stage.twin.phone(english.id).cards] == ["Hello all"]
    assert [card.title for card in stage.twin.phone(french.id).cards] == ["Bonjour all"]
    with pytest.raises(TemplateError, match="needs the variable `name`"):
        push.send({"template": "welcome"}, mails)
    push.close()


def test_each_gets_variables_of_their_own(push: PushNotification, stage: Stage) -> None:
    """One call, one answer for each; what is wrong with one is no matter to the others."""
    phones = [stage.add_phone(f"user{one}@example.com") for one in range(3)]
    variables = {phone.mail or "": {"name": phone.mail} for phone in phones}
    answers = push.send_each(
        "welcome",
        {
            **variables,
            "nobody@example.com": {"name": "x"},
            "no mail": {"name": "x"},
            "a@b.example": {},
        },
        idempotency_key="batch",
    )
    assert [one.success for one in answers.values()] == [True, True, True, False, False, False]
    assert [card.title for phone in phones for card in stage.twin.phone(phone.id).cards] == [
        f"Hello {phone.mail}" for phone in phones
    ]
    assert "has no device" in answers["nobody@example.com"].warnings[0]
    assert "neither a mail address" in answers["no mail"].errors[0]
    assert "needs the variable `name`" in answers["a@b.example"].errors[0]
    repeated = push.send_each("welcome", variables, idempotency_key="batch")
    assert [one.notification_id for one in repeated.values()] == [
        answers[mail].notification_id for mail in variables
    ]
    common = {"template": "welcome", "variables": {"name": "common"}, "shorten": True}
    mail = phones[0].mail or ""
    long = push.send_each(common, {mail: {}, phones[1].mail or "": {"name": "x" * 5000}})
    assert [bool(one.warnings) for one in long.values()] == [False, True]
    with pytest.raises(UnknownTemplateError):
        push.send_each("welcom", variables)
    with pytest.raises(TemplateError, match="no template"):
        push.send_each({"title": "x"}, variables)
    with pytest.raises(TemplateError, match="for the recipients is a list"):
        push.send_each("welcome", ["test@4d.com"])  # type: ignore[arg-type]
    assert push.send_each("welcome", {mail: 3})[mail].errors  # type: ignore[dict-item]
    push.close()
