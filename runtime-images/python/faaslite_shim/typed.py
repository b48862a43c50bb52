"""Handlers with typed parameters: arguments are taken from body and query, checked, and refused with 422 and the reasons."""

from __future__ import annotations

import inspect
import json
import typing
from typing import Any
from urllib.parse import parse_qs

from . import sdk
from .cloudevents import parse_event, reply_event
from .discovery import StartFailure
from .kinds import MISSING, Faults, Kind, Unsupported, kind_of
from .reply import Reply, to_reply
from .request import Context, Event

__all__ = ["Parameter", "Typed", "refusal"]

_GIVEN = {sdk.Event: "event", Event: "event", sdk.Context: "context", Context: "context", sdk.CloudEvent: "cloudevent"}
_FORM = "application/x-www-form-urlencoded"


class Parameter:
    """`role`: event, context, cloudevent, raw (the body's bytes), body (a value that takes the body), value (query, or a field of the body)."""

    def __init__(self, name: str, role: str, kind: Kind | None, default: Any, by_name: bool) -> None:
        self.name, self.role, self.kind, self.default, self.by_name = name, role, kind, default, by_name

    @property
    def required(self) -> bool:
        return self.default is MISSING


class Typed:
    """A handler behind its parameters; what it is wrapped in is called with (event, context). Raises `StartFailure`."""

    def __init__(self, handler: Any) -> None:
        self.handler = handler
        name = getattr(handler, "__name__", type(handler).__name__)
        try:
            hints = typing.get_type_hints(
                handler if inspect.isroutine(handler) else handler.__call__, include_extras=True
            )
            self.returns = hints.pop("return", MISSING)
            signature = inspect.signature(handler)
            self.parameters = [
                _parameter(each, hints.get(each.name, MISSING)) for each in signature.parameters.values()
            ]
        except (NameError, Unsupported, TypeError) as error:
            raise StartFailure(f"handler {name}: its parameters can't be understood: {error}") from error
        self.bodies = [each for each in self.parameters if each.role == "body"]
        self.values = [each for each in self.parameters if each.role == "value"]

    def adapted(self) -> Any:
        """A handler of (event, context), of the same sort: async or not."""
        if inspect.iscoroutinefunction(self.handler):

            async def call_async(event: Event, context: Context) -> Any:
                faults = Faults()
                positional, named = self.bind(event, context, faults)
                if faults:
                    return refusal(faults, context.call_id)
                return self._replied(await self.handler(*positional, **named), event)

            return call_async

        def call(event: Event, context: Context) -> Any:
            faults = Faults()
            positional, named = self.bind(event, context, faults)
            if faults:
                return refusal(faults, context.call_id)
            return self._replied(self.handler(*positional, **named), event)

        return call

    def _replied(self, value: Any, event: Event) -> Any:
        return reply_event(value, event) if isinstance(value, sdk.CloudEvent) else value

    def bind(self, event: Event, context: Context, faults: Faults) -> tuple[list[Any], dict[str, Any]]:
        """The handler's arguments; faults are added to `faults`."""
        given = self._arguments(event, faults)
        positional: list[Any] = []
        named: dict[str, Any] = {}
        for each in self.parameters:
            match each.role:
                case "event":
                    value: Any = event
                case "context":
                    value = context
                case "cloudevent":
                    value = parse_event(event, faults)
                case "raw":
                    value = event.body
                case _:
                    loc, raw, text = given.get(each.name, (("body", each.name), MISSING, False))
                    if raw is MISSING:
                        value = faults.add(loc, "is required") if each.required else each.default
                    else:
                        assert each.kind is not None
                        value = each.kind.read(raw, loc, faults, text)
            if each.by_name:
                named[each.name] = value
            else:
                positional.append(value)
        return positional, named

    def _arguments(self, event: Event, faults: Faults) -> dict[str, tuple[tuple[Any, ...], Any, bool]]:
        """Where each argument is, its raw value, and whether that is text of a query or form."""
        kind = event.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == _FORM and event.body.lstrip()[:1] in (b"{", b"["):
            kind = ""  # JSON from curl, which calls everything a form; in a real one these are escaped
        if kind == sdk.ARGUMENTS:
            return self._passed(event, faults)
        wanted = bool(self.bodies) or any(each.name not in event.query for each in self.values)
        document = _document(event, kind, faults) if wanted and event.body else MISSING
        form = kind == _FORM
        found: dict[str, tuple[tuple[Any, ...], Any, bool]] = {}
        whole = len(self.bodies) == 1
        fields = document if isinstance(document, dict) else {}
        if document is not MISSING and not isinstance(document, dict) and len(self.bodies) > 1:
            faults.add(("body",), "must be an object")
        for each in self.bodies:
            place = ("body",) if whole else ("body", each.name)
            found[each.name] = (place, document if whole else fields.get(each.name, MISSING), form)
        for each in self.values:
            if each.name in event.query:
                found[each.name] = (("query", each.name), event.query[each.name], True)
            elif not whole and each.name in fields:
                found[each.name] = (("body", each.name), fields[each.name], form)
            else:
                found[each.name] = (("query", each.name), MISSING, False)
        return found

    def _passed(self, event: Event, faults: Faults) -> dict[str, tuple[tuple[Any, ...], Any, bool]]:
        """Arguments as another function passed them."""
        document = _document(event, "", faults)
        if not isinstance(document, dict):
            return {}
        own = [each for each in self.parameters if each.role in ("body", "value", "raw")]
        args, kwargs = document.get("args") or [], document.get("kwargs") or {}
        if len(args) > len(own):
            faults.add(("args",), f"{len(args)} were given, {len(own)} are taken")
        found = {each.name: ((each.name,), value, False) for each, value in zip(own, args, strict=False)}
        for name, value in kwargs.items():
            if name not in {each.name for each in own}:
                faults.add((name,), "is not a parameter")
            else:
                found[name] = ((name,), value, False)
        return {**{each.name: ((each.name,), MISSING, False) for each in own}, **found}


def _parameter(parameter: inspect.Parameter, hint: Any) -> Parameter:
    default = MISSING if parameter.default is parameter.empty else parameter.default
    by_name = parameter.kind is parameter.KEYWORD_ONLY
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        raise Unsupported(f"{parameter} has no types to check by")
    role = _GIVEN.get(hint, "") if getattr(hint, "__hash__", None) else ""
    if not role and hint is MISSING and parameter.name in ("event", "context"):
        role = parameter.name
    if role:
        return Parameter(parameter.name, role, None, default, by_name)
    if hint is bytes:
        return Parameter(parameter.name, "raw", None, default, by_name)
    kind = kind_of(Any if hint is MISSING else hint)
    return Parameter(parameter.name, "value" if kind.scalar or hint is MISSING else "body", kind, default, by_name)


def _document(event: Event, kind: str, faults: Faults) -> Any:
    if kind == _FORM:
        pairs = parse_qs(event.text, keep_blank_values=True)
        return {name: values[0] if len(values) == 1 else values for name, values in pairs.items()}
    try:
        return json.loads(event.body)
    except ValueError as error:
        return faults.add(("body",), f"is not JSON: {error}")


def refusal(faults: Faults, call_id: str) -> Reply:
    """422, with where and why."""
    document = {"error": "InvalidArguments", "message": faults.text(), "callId": call_id, "details": list(faults)}
    return to_reply((document, 422, {"x-call-id": call_id}))
