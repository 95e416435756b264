"""Previews for people: what a notification becomes, before anything is stored or sent."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from handbell.apps.app import App
from handbell.apps.store import AppStore
from handbell.apps.templates import TemplateStore
from handbell.creation.notification import Notification
from handbell.creation.recipients import Recipients
from handbell.creation.template import Template
from handbell.delivery.policy.rules_store import RulesStore
from handbell.errors import HandbellError
from handbell.services.apns.credential import Certificate
from handbell.services.forms import forms_of

from .preview import (
    LanguagePreview,
    Preview,
    ServicePreview,
    preview,
    preview_languages,
    preview_services,
)
from .resolve import ResolvedRecipients
from .send_store import SendStore


class Previewer:
    """Shows what a send would make of a notification, with the app's services and credentials.

    ``plan`` resolves recipients, ``describe_host`` gives the address of a service's environment,
    ``now`` is in UNIX seconds.
    """

    def __init__(
        self,
        apps: AppStore,
        templates: TemplateStore,
        sends: SendStore,
        rules_store: RulesStore,
        *,
        plan: Callable[[App, Recipients], ResolvedRecipients],
        describe_host: Callable[[str, str], str],
        now: Callable[[], float],
    ) -> None:
        self._apps = apps
        self._templates = templates
        self._sends = sends
        self._rules_store = rules_store
        self._plan = plan
        self._describe_host = describe_host
        self._now = now

    def requests(
        self, app: App, notification: Notification, recipients: Recipients
    ) -> list[Preview]:
        """Return the requests that a send would make; for everybody, the first ones."""
        return preview(
            app,
            notification,
            self._plan(app, recipients),
            describe_host=self._describe_host,
            has_token=lambda environment: self._has_token(app, environment),
            project_of=lambda environment: self._project_of(app, environment),
            now=self._now(),
            order=self._rules_store.rules_of(app.id).service_order,
        )

    def _has_token(self, app: App, environment: str) -> bool:
        """Return whether an app uses a provider token there, or has no credential."""
        try:
            return not isinstance(self._apps.credential_for(app, environment), Certificate)
        except HandbellError:
            return True

    def _project_of(self, app: App, environment: str) -> str | None:
        """Return the project at Google that an app sends by there, None without a credential."""
        try:
            return self._apps.credential_for(app, environment, service="fcm").project_id
        except HandbellError:
            return None

    def template(
        self,
        app: App,
        template: Template | str,
        variables: Mapping[str, Any],
        overrides: Mapping[str, Any] | None = None,
    ) -> list[LanguagePreview]:
        """Render a template in each language, its default language first.

        ``template`` is a stored one's name, or an unstored template. Raises TemplateError for a
        variable that is missing or unknown.
        """
        if isinstance(template, str):
            template = self._templates.get(app, template).template
        own, *others = self.languages(app, template.render(variables, overrides))
        language = template.default_language
        # One of its parents is among the others; it is reported once.
        return [
            replace(own, language=language),
            *(other for other in others if other.language != language),
        ]

    def languages(self, app: App, notification: Notification) -> list[LanguagePreview]:
        """Return each language of a notification as composed for the app's first push service."""
        service = next(iter(self._apps.services_of(app)), "apns")
        return preview_languages(app, notification, form=service, now=self._now())

    def services(self, app: App, notification: Notification) -> list[ServicePreview]:
        """Return a notification as each push service of an app carries it; Apple's for none."""
        return preview_services(app, notification, self.forms_of(app), now=self._now())

    def forms_of(self, app: App) -> list[str]:
        """Return the forms in which an app's devices may get a notification, at least one.

        They are those of the services that it is set up for; a variant where it has sessions of it.
        """
        services = self._apps.services_of(app) or ["apns"]
        held = self._sends.other_forms(app) if "fcm" in services else []
        return [
            form
            for service in services
            for form in forms_of(service)
            if form == service or form in held
        ]
