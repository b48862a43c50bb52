"""What the workloads share: Pod templates with their defaults, selectors that must agree with them."""

from __future__ import annotations

from core.api.selectors import from_label_selector
from core.apiserver.registry.names import check_annotations, check_labels
from core.apiserver.registry.pod_defaults import complete_pod_spec
from core.apiserver.registry.pod_validation import validate_pod_spec
from core.apiserver.registry.strategy import Cause, Document
from core.apiserver.status import GoValue, immutable, invalid_value, not_supported, required

__all__ = [
    "NOT_NEGATIVE", "check_amounts", "check_selector", "complete_template", "go_selector", "selector_immutable",
    "validate_restarting", "validate_workload",
]  # fmt: skip

NOT_NEGATIVE = "must be greater than or equal to 0"


def complete_template(template: Document | None) -> None:
    """The defaults of the Pods to be, as a stored template shows them."""
    if template is None:
        return
    template.setdefault("metadata", {}).pop("creationTimestamp", None)
    complete_pod_spec(template.setdefault("spec", {}))


def check_amounts(document: Document, *names: str, at: str = "spec") -> list[Cause]:
    """Fields of `document` that can't be negative."""
    return [invalid_value(f"{at}.{key}", document[key], NOT_NEGATIVE) for key in names if (document.get(key) or 0) < 0]


def go_selector(selector: Document | None) -> GoValue:
    """A label selector as the messages of Kubernetes show it."""
    if selector is None:
        return GoValue("null")
    pairs = ", ".join(f'"{key}":"{value}"' for key, value in sorted((selector.get("matchLabels") or {}).items()))
    labels = f"map[string]string{{{pairs}}}" if pairs else "map[string]string(nil)"
    terms = [
        "v1.LabelSelectorRequirement{"
        f'Key:"{each.get("key", "")}", Operator:"{each.get("operator", "")}", '
        "Values:[]string" + ("{" + ", ".join(f'"{value}"' for value in each["values"]) + "}" if each.get("values") else "(nil)") + "}"
        for each in selector.get("matchExpressions") or ()
    ]  # fmt: skip
    shown = "[]v1.LabelSelectorRequirement" + ("{" + ", ".join(terms) + "}" if terms else "(nil)")
    return GoValue(f"v1.LabelSelector{{MatchLabels:{labels}, MatchExpressions:{shown}}}")


def check_selector(selector: Document | None, word: str, at: str = "spec.selector") -> list[Cause]:
    """Causes in the selector of a workload; `word` names the workload in the message about an empty one."""
    if selector is None:
        return [required(at)]
    try:
        found = from_label_selector(selector)
    except (KeyError, ValueError, TypeError) as error:
        return [invalid_value(at, go_selector(selector), str(error))]
    if not found:
        return [invalid_value(at, go_selector(selector), f"empty selector is invalid for {word}")]
    return check_labels(selector.get("matchLabels"), f"{at}.matchLabels")


def _agrees(selector: Document, labels: Document) -> bool:
    try:
        found = from_label_selector(selector)
        return found is None or found.matches(labels)
    except (KeyError, ValueError, TypeError):
        return True  # said already


def validate_workload(spec: Document, word: str) -> list[Cause]:
    """Selector and template of a workload whose Pods always restart."""
    selector, template = spec.get("selector"), spec.get("template")
    found = check_selector(selector, word)
    if not template:
        return [*found, required("spec.template")]
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector and not _agrees(selector, labels):
        why = "`selector` does not match template `labels`"
        found.append(invalid_value("spec.template.metadata.labels", labels, why))
    return found + validate_restarting(template, "spec.template")


def validate_restarting(template: Document, at: str, allowed: tuple[str, ...] = ("Always",)) -> list[Cause]:
    """Causes in a Pod template; its Pods' restart policy is one of `allowed`."""
    metadata, spec = template.get("metadata") or {}, template.get("spec") or {}
    found = check_labels(metadata.get("labels"), f"{at}.labels")
    found += check_annotations(metadata.get("annotations"), f"{at}.annotations")
    found += validate_pod_spec(spec, f"{at}.spec")
    policy = spec.get("restartPolicy")
    if policy not in allowed and policy in ("Always", "OnFailure", "Never"):
        found.append(not_supported(f"{at}.spec.restartPolicy", policy, allowed))
    return found


def selector_immutable(new: Document, old: Document) -> list[Cause]:
    if new["spec"].get("selector") != old["spec"].get("selector"):
        return [immutable("spec.selector", go_selector(new["spec"].get("selector")))]
    return []
