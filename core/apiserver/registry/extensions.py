"""Rules of what extends the API: webhook configurations and APIServices. Webhooks are called by `core.apiserver.webhooks`, other API servers aren't."""

from __future__ import annotations

from urllib.parse import urlsplit

from core.apiserver.registry.names import path_segment
from core.apiserver.registry.strategy import Cause, Document, Strategy
from core.apiserver.status import duplicate, forbidden, invalid_value, not_supported, required
from core.clock import timestamp

__all__ = ["ApiServiceStrategy", "WebhookStrategy"]


class WebhookStrategy(Strategy):
    """Of validating and mutating ones."""

    generation = True

    def complete(self, document: Document) -> None:
        mutating = self.kind.kind.startswith("Mutating")
        for hook in document.get("webhooks") or ():
            for key, value in (("failurePolicy", "Fail"), ("matchPolicy", "Equivalent")):
                hook[key] = hook.get(key) or value
            for key in ("namespaceSelector", "objectSelector"):
                hook[key] = hook.get(key) or {}
            if hook.get("timeoutSeconds") is None:
                hook["timeoutSeconds"] = 10
            if mutating:
                hook["reinvocationPolicy"] = hook.get("reinvocationPolicy") or "Never"
            for rule in hook.get("rules") or ():
                rule["scope"] = rule.get("scope") or "*"
            service = (hook.get("clientConfig") or {}).get("service")
            if service is not None and not service.get("port"):
                service["port"] = 443

    def validate(self, document: Document) -> list[Cause]:
        found: list[Cause] = []
        names: set[str] = set()
        for index, hook in enumerate(document.get("webhooks") or ()):
            at, name = f"webhooks[{index}]", hook.get("name") or ""
            if not name:
                found.append(required(f"{at}.name"))
            elif name.count(".") < 2:
                found.append(
                    invalid_value(
                        f"{at}.name", name, "should be a domain with at least three segments separated by dots"
                    )
                )
            elif name in names:
                found.append(duplicate(f"{at}.name", name))
            names.add(name)
            found += self._hook(hook, at)
        return found

    def _hook(self, hook: Document, at: str) -> list[Cause]:
        found = []
        if not hook.get("admissionReviewVersions"):
            why = "must specify one of v1, v1beta1"
            found.append(required(f"{at}.admissionReviewVersions", why))
        if hook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            value = hook.get("sideEffects")
            found.append(
                not_supported(f"{at}.sideEffects", value, ("None", "NoneOnDryRun"))
                if value
                else required(f"{at}.sideEffects", "must specify one of None, NoneOnDryRun")
            )
        if not 1 <= hook["timeoutSeconds"] <= 30:
            found.append(
                invalid_value(
                    f"{at}.timeoutSeconds", hook["timeoutSeconds"], "the timeout value must be between 1 and 30 seconds"
                )
            )
        for key, known in (("failurePolicy", ("Fail", "Ignore")), ("matchPolicy", ("Equivalent", "Exact"))):
            if hook[key] not in known:
                found.append(not_supported(f"{at}.{key}", hook[key], known))
        client = hook.get("clientConfig") or {}
        if (client.get("url") is None) == (client.get("service") is None):
            found.append(required(f"{at}.clientConfig", "exactly one of url or service is required"))
        elif client.get("url") is not None:
            found += _url(client["url"], f"{at}.clientConfig.url")
        if hook.get("matchConditions"):
            found.append(forbidden(f"{at}.matchConditions", "CEL expressions are not evaluated by this server"))
        return found


def _url(url: str, at: str) -> list[Cause]:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        return [required(at, f"url must be a valid URL: {error}")]
    found = []
    if parts.scheme != "https":
        found.append(
            invalid_value(
                at, parts.scheme, "'https' is the only allowed URL scheme; desired format: https://host[/path]"
            )
        )
    if not parts.hostname:
        found.append(invalid_value(at, "", "host must be specified; desired format: https://host[/path]"))
    if parts.username is not None:
        found.append(invalid_value(at, parts.username, "user information is not permitted in the URL"))
    if parts.fragment:
        found.append(invalid_value(at, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        found.append(invalid_value(at, parts.query, "query parameters are not permitted in the URL"))
    return found


class ApiServiceStrategy(Strategy):
    def check_name(self, name: str) -> str:
        return path_segment(name)  # `v1.` is that of the core group

    def prepare_create(self, document: Document, now: float) -> None:
        # What is answered by this server itself is always there; an APIService with a `spec.service` is refused below.
        condition = {
            "type": "Available",
            "status": "True",
            "reason": "Local",
            "message": "Local APIServices are always available",
            "lastTransitionTime": timestamp(now),
        }
        document["status"] = {"conditions": [condition]}

    def validate(self, document: Document) -> list[Cause]:
        spec, found = document.get("spec") or {}, []
        name = document["metadata"].get("name") or ""
        expected = f"{spec.get('version') or ''}.{spec.get('group') or ''}"
        if name != expected:
            why = f'must be `spec.version+"."+spec.group`: "{expected}"'
            found.append(invalid_value("metadata.name", name, why))
        if not spec.get("version"):
            found.append(required("spec.version"))
        for key in ("groupPriorityMinimum", "versionPriority"):
            if not 0 < (spec.get(key) or 0) <= (20000 if key.startswith("group") else 1000):
                bound = 20000 if key.startswith("group") else 1000
                found.append(
                    invalid_value(f"spec.{key}", spec.get(key) or 0, f"must be positive and less than {bound}")
                )
        if spec.get("service") is not None:
            found.append(
                forbidden(
                    "spec.service", "API aggregation is not served: no request is passed on to another API server"
                )
            )
        return found
