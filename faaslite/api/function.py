"""The Function as its author writes it: pydantic models of the spec, and the rules that a schema can't say.

`validate(document)` is the one door: the CLI calls it before it sends, the controller before it acts. Durations are
seconds here, whatever they were written as.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_camel

from core.api import quantity
from core.errors import FaasliteError
from faaslite.api.durations import parse_duration
from faaslite.api.schedule import load_zone, parse

__all__ = [
    "Async", "Cors", "Cron", "EnvVar", "Function", "FunctionInvalid", "FunctionMeta", "FunctionSpec", "Http", "Package", "Resources", "Route",
    "Scale", "Traffic", "validate",
]  # fmt: skip

MAX_NAME = 50
"""A revision's name is the function's and six characters, a Pod's has six more, and 63 is the limit."""
MAX_REQUIREMENTS = 64 << 10
"""Characters: they go into the environment of a Pod."""
TARGET_SHARE = 0.7
"""Of the hard limit per instance: what the autoscaler aims at where `scale.target` is not given."""
UNLIMITED_TARGET = 70.0

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_HANDLER = re.compile(r"[A-Za-z_][\w.-]*(:[A-Za-z_][\w.]*)?")
_RUNTIME = re.compile(r"python(3\.(?P<minor>\d+))?|node([1-9]\d)?|image")
_RESERVED = "FAASLITE_"
LEAST_MEMORY = 6 << 20
"""Bytes; as Docker has it."""
OLDEST_PYTHON = 11


class FunctionInvalid(FaasliteError):
    """A Function that can't be. `errors` are lines `path: message`; the text of the exception joins them with `; `."""

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(self.errors))


Seconds = Annotated[float, BeforeValidator(parse_duration)]


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


def _label(value: str, what: str) -> str:
    if len(value) > 63 or not _LABEL.fullmatch(value):
        raise ValueError(f'"{value}" is not a {what}: use a-z, 0-9 and -, beginning and ending with a letter or digit')
    return value


def _digest(value: str) -> str:
    if not _DIGEST.fullmatch(value):
        raise ValueError(f'"{value}" is not a digest: sha256: and 64 hex digits are expected')
    return value


class Package(_Model):
    """Content-addressed archives: the function's files, and its dependencies as a second layer.

    The layer is named, or it is built in the cluster from `requirements`: text as in `requirements.txt` (`faaslite.api.layers`).
    """

    digest: str
    layer: str = ""
    requirements: str = Field("", max_length=MAX_REQUIREMENTS)

    @field_validator("digest", "layer")
    @classmethod
    def _digests(cls, value: str) -> str:
        return _digest(value) if value else value


class EnvVar(_Model):
    """As in a container of a Pod: a value, or where to take it from."""

    name: str
    value: str = ""
    value_from: dict[str, Any] | None = None

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not _ENV_NAME.fullmatch(value):
            raise ValueError(f'"{value}" is not a name of an environment variable')
        if value == "PORT" or value.startswith(_RESERVED):
            raise ValueError(f'"{value}" is reserved for the platform')
        return value

    @field_validator("value", mode="before")
    @classmethod
    def _value(cls, value: Any) -> Any:
        if isinstance(value, bool | int | float):
            raise ValueError(
                f'must be text: write "{str(value).lower() if isinstance(value, bool) else value}" in quotes'
            )
        return value


def _quantities(value: dict[str, str | int | float]) -> dict[str, str | int | float]:
    for name, amount in value.items():
        try:
            number = quantity.parse(amount)
        except ValueError:
            raise ValueError(f'{name} "{amount}" is not a quantity: write it like 100m, 0.5, 64Mi') from None
        if number < 0:
            raise ValueError(f'{name} "{amount}" is negative')
    return value


Amounts = Annotated[dict[str, str | int | float], Field(default_factory=dict)]


class Resources(_Model):
    """Of one instance, in quantities (`100m`, `64Mi`)."""

    requests: Amounts
    limits: Amounts

    @field_validator("requests", "limits")
    @classmethod
    def _amounts(cls, value: dict[str, str | int | float]) -> dict[str, str | int | float]:
        return _quantities(value)


class ScaleFloor(_Model):
    """A minimum for some hours: from each instant of `cron` (in `time_zone`) for `duration`, or until the next instant of `until`."""

    cron: str
    min: int = Field(ge=1)
    time_zone: str = "UTC"
    duration: Seconds = Field(0.0, ge=0.0, le=7 * 86400.0)
    until: str = ""

    @field_validator("cron", "until")
    @classmethod
    def _expression(cls, value: str) -> str:
        if value:
            parse(value)
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        load_zone(value)
        return value


class Scale(_Model):
    """Bounds and aim of the autoscaler. `max` 0 is no bound; `target` is per instance, in the unit of `metric`; times in seconds.

    Instances go only when nothing within `down_delay` asked for more; one decision grows by at most `up_rate` times what is ready, and
    shrinks to no less than its `down_rate`-th part. `schedule` has minima for some hours.
    """

    min: int = Field(0, ge=0)
    max: int = Field(20, ge=0)
    initial: int = Field(1, ge=0)
    target: float | None = Field(None, gt=0)
    metric: Literal["concurrency", "rps"] = "concurrency"
    window: Seconds = Field(60.0, ge=6.0, le=3600.0)
    idle: Seconds = Field(30.0, ge=0.0)
    down_delay: Seconds = Field(0.0, ge=0.0, le=3600.0)
    up_rate: float = Field(1000.0, gt=1.0)
    down_rate: float = Field(2.0, gt=1.0)
    schedule: tuple[ScaleFloor, ...] = ()


class Route(_Model):
    """A host and path prefix that lead to the function; no methods means all of them."""

    host: str = ""
    path: str = "/"
    methods: tuple[str, ...] = ()

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError(f'"{value}" must begin with /')
        return value

    @field_validator("methods")
    @classmethod
    def _methods(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if not re.fullmatch("[A-Z]+", each):
                raise ValueError(f'"{each}" is not an HTTP method')
        return value


class Cors(_Model):
    """Which pages of other origins may call; `origins` are `https://host` or `*`. No methods or headers means any that are asked for."""

    origins: tuple[str, ...] = Field(min_length=1)
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    credentials: bool = False
    max_age: Seconds = Field(0.0, ge=0.0, le=86400.0)

    @field_validator("origins")
    @classmethod
    def _origins(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if each != "*" and not re.fullmatch(r"[a-z][a-z0-9+.-]*://[A-Za-z0-9.\-\[\]:]+", each):
                raise ValueError(f'"{each}" is not an origin: write https://host, or "*"')
        return value

    @field_validator("methods", "headers", "expose_headers")
    @classmethod
    def _tokens(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for each in value:
            if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", each):
                raise ValueError(f'"{each}" is not a name of a method or header')
        return value


class Http(_Model):
    """`visibility`: everybody (`public`), who may `create functions/invoke` (`private`), who has a key (`key`, or such a right), or
    nobody through the gateway (`cluster`)."""

    visibility: Literal["public", "private", "key", "cluster"] = "public"
    routes: tuple[Route, ...] = ()
    cors: Cors | None = None


class Cron(_Model):
    """One trigger. `name` tells it from the others (`cron-1`, `cron-2` where it isn't given); `jitter` in seconds.

    `retries` None: as many as `async.retries`.
    """

    name: str = ""
    schedule: str
    time_zone: str = "UTC"
    overlap: Literal["Allow", "Skip", "Replace", "Queue"] = "Skip"
    missed: Literal["none", "last", "all"] = "last"
    jitter: Seconds = Field(0.0, ge=0.0, le=3600.0)
    paused: bool = False
    retries: int | None = Field(None, ge=0, le=100)
    method: str = "POST"
    path: str = "/"
    payload: Any = None

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return _label(value, "name") if value else value

    @field_validator("schedule")
    @classmethod
    def _schedule(cls, value: str) -> str:
        parse(value)
        return value

    @field_validator("time_zone")
    @classmethod
    def _zone(cls, value: str) -> str:
        load_zone(value)
        return value

    @field_validator("path")
    @classmethod
    def _path(cls, value: str) -> str:
        if not value.startswith("/"):
            raise ValueError(f'"{value}" must begin with /')
        return value


class Async(_Model):
    """Of queued calls. `max_age` in seconds; `weight` is the function's among those of its namespace, where they share the slots."""

    retries: int = Field(3, ge=0, le=100)
    max_age: Seconds = Field(21600.0, gt=0.0)
    dead_letter: bool = True
    weight: float = Field(1.0, ge=0.01, le=100.0)


class Traffic(_Model):
    """A share of the calls. `revision` is `latest`, a number (`"2"`) or a revision's name (`hello-00002`). With a `tag` the revision is
    also at `/function/NAME@TAG`, whatever its share."""

    revision: str = "latest"
    percent: int = Field(0, ge=0, le=100)
    tag: str = ""

    @field_validator("tag")
    @classmethod
    def _tag(cls, value: str) -> str:
        if value.isdigit():
            raise ValueError(f'"{value}" is a number: revisions have numbers, tags have names')
        return _label(value, "tag") if value else value

    @field_validator("revision", mode="before")
    @classmethod
    def _revision(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class FunctionSpec(_Model):
    """`spec` of a Function. `concurrency` is the hard limit of calls per instance (0 is none), `timeout` in seconds."""

    runtime: str = "python"
    """`python`, `node` (the node's own version), `python3.12`, `node20`, or `image`."""
    handler: str = ""
    image: str = ""
    package: Package | None = None
    env: tuple[EnvVar, ...] = ()
    env_from: tuple[dict[str, Any], ...] = ()
    secrets: tuple[str, ...] = ()
    resources: Resources = Field(default_factory=lambda: Resources.model_validate({}))
    concurrency: int = Field(10, ge=0, le=10000)
    timeout: Seconds = Field(30.0, gt=0.0, le=86400.0)
    scale: Scale = Field(default_factory=lambda: Scale.model_validate({}))
    http: Http = Field(default_factory=Http)
    cron: tuple[Cron, ...] = ()
    async_: Async = Field(default_factory=lambda: Async.model_validate({}), alias="async")
    traffic: tuple[Traffic, ...] = ()

    @field_validator("runtime")
    @classmethod
    def _runtime(cls, value: str) -> str:
        matched = _RUNTIME.fullmatch(value)
        if matched is None:
            raise ValueError(
                f'"{value}" is not one of python, node or image (or one with its version: python3.12, node20)'
            )
        if matched["minor"] and int(matched["minor"]) < OLDEST_PYTHON:
            raise ValueError(f'"{value}" is too old: 3.{OLDEST_PYTHON} is the oldest Python')
        return value

    @field_validator("handler")
    @classmethod
    def _handler(cls, value: str) -> str:
        if value and not _HANDLER.fullmatch(value):
            raise ValueError(f'"{value}" is not a handler: write module:attribute')
        return value

    @field_validator("cron")
    @classmethod
    def _cron_names(cls, value: tuple[Cron, ...]) -> tuple[Cron, ...]:
        return tuple(
            each if each.name else each.model_copy(update={"name": f"cron-{number}"})
            for number, each in enumerate(value, 1)
        )

    @property
    def target(self) -> float:
        """What one instance should carry: `scale.target`, or seven tenths of the hard limit."""
        if self.scale.target is not None:
            return self.scale.target
        return max(self.concurrency * TARGET_SHARE, 0.7) if self.concurrency else UNLIMITED_TARGET


class FunctionMeta(BaseModel):
    """The part of the object's metadata that is read here."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if len(value) > MAX_NAME:
            raise ValueError(f'"{value}" has {len(value)} characters, at most {MAX_NAME} are allowed')
        return _label(value, "name of a function")

    @field_validator("labels", "annotations", mode="before")
    @classmethod
    def _maps(cls, value: Any) -> Any:
        return {} if value is None else value


class Function(BaseModel):
    """A valid Function."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    metadata: FunctionMeta
    spec: FunctionSpec

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def namespace(self) -> str:
        return self.metadata.namespace


def validate(document: Mapping[str, Any]) -> Function:
    """Read a Function document. Raises `FunctionInvalid` with every fault found, each as `path: message`."""
    try:
        found = Function.model_validate(document)
    except ValidationError as error:
        raise FunctionInvalid(f"{_path(each['loc'])}: {_message(each)}" for each in error.errors()) from None
    faults = list(_cross_checks(found.spec))
    if faults:
        raise FunctionInvalid(faults)
    return found


def _cross_checks(spec: FunctionSpec) -> Iterable[str]:
    if spec.runtime == "image":
        if not spec.image:
            yield "spec.image: is required where spec.runtime is image"
        if spec.package is not None:
            yield "spec.package: is not used where spec.runtime is image"
        if spec.handler:
            yield "spec.handler: is not used where spec.runtime is image"
    elif spec.image:
        yield f"spec.image: is only used where spec.runtime is image, not {spec.runtime}"
    if spec.package is not None and not spec.package.digest:
        yield "spec.package.digest: is required"
    if spec.package is not None and spec.package.requirements and spec.package.layer:
        yield "spec.package.requirements: is not used where spec.package.layer is given"
    scale = spec.scale
    if scale.max and scale.min > scale.max:
        yield f"spec.scale.min: {scale.min} is over spec.scale.max, {scale.max}"
    for at, floor in enumerate(scale.schedule):
        if bool(floor.duration) == bool(floor.until):
            yield f"spec.scale.schedule[{at}]: needs either duration or until"
        if scale.max and floor.min > scale.max:
            yield f"spec.scale.schedule[{at}].min: {floor.min} is over spec.scale.max, {scale.max}"
    if scale.max and scale.initial > scale.max:
        yield f"spec.scale.initial: {scale.initial} is over spec.scale.max, {scale.max}"
    yield from _doubles("spec.env", [each.name for each in spec.env], ".name")
    yield from _doubles("spec.cron", [each.name for each in spec.cron], ".name")
    yield from _doubles("spec.secrets", list(spec.secrets), "")
    yield from _doubles("spec.traffic", [each.revision for each in spec.traffic if not each.tag], ".revision")
    yield from _doubles("spec.traffic", [each.tag for each in spec.traffic if each.tag], ".tag")
    cors = spec.http.cors
    if cors is not None and cors.credentials and "*" in cors.origins:
        yield 'spec.http.cors.credentials: not with the origin "*", which would let any page act for its visitor'
    for at, secret in enumerate(spec.secrets):
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", secret) or len(secret) > 253:
            yield f'spec.secrets[{at}]: "{secret}" is not a name of a Secret'
    total = sum(each.percent for each in spec.traffic)
    if spec.traffic and total != 100:
        yield f"spec.traffic: percentages sum to {total}, not to 100"
    memory = spec.resources.limits.get("memory")
    if memory is not None and 0 < quantity.parse(memory) < LEAST_MEMORY:
        yield f"spec.resources.limits.memory: {memory} is less than {LEAST_MEMORY >> 20}Mi, with which nothing starts"
    for name, amount in spec.resources.requests.items():
        limit = spec.resources.limits.get(name)
        if limit is not None and quantity.parse(amount) > quantity.parse(limit):
            yield f"spec.resources.requests.{name}: {amount} is over its limit, {limit}"


def _doubles(path: str, names: list[str], suffix: str) -> Iterable[str]:
    seen: set[str] = set()
    for at, name in enumerate(names):
        if name in seen:
            yield f'{path}[{at}]{suffix}: "{name}" is there twice'
        seen.add(name)


def _path(location: tuple[int | str, ...]) -> str:
    text = ""
    for each in location:
        text += f"[{each}]" if isinstance(each, int) else f".{each}"
    return text.removeprefix(".") or "document"


def _message(error: Any) -> str:
    """One line for people from an entry of `ValidationError.errors()`."""
    context = error.get("ctx") or {}
    match error["type"]:
        case "missing":
            return "is required"
        case "extra_forbidden":
            return "is not a field of a Function"
        case "value_error":
            return str(context["error"])
        case "literal_error":
            return f'"{error["input"]}" is not one of {context["expected"].replace(chr(39), "")}'
        case "string_type":
            return f"must be text, not {_kind(error['input'])}"
        case "int_type" | "int_parsing" | "int_from_float" | "float_type" | "float_parsing":
            return (
                f'"{error["input"]}" is not a number'
                if error["type"] != "int_from_float"
                else f"{error['input']} is not a whole number"
            )
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"must be a map, not {_kind(error['input'])}"
        case "tuple_type" | "list_type":
            return f"must be a list, not {_kind(error['input'])}"
        case "string_too_long":
            return f"is over {context['max_length']} characters"
        case "greater_than_equal":
            return f"{error['input']:g} is under {context['ge']:g}"
        case "greater_than":
            return f"{error['input']:g} must be over {context['gt']:g}"
        case "less_than_equal":
            return f"{error['input']:g} is over {context['le']:g}"
        case _:
            return str(error["msg"]).replace("\n", " ")


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    return {bool: "true or false", int: "a number", float: "a number", str: "text", dict: "a map", list: "a list"}.get(
        type(value), type(value).__name__
    )
