"""What a function's file says of itself, and how functions call each other: `from faaslite import function, Secret, Cron`.

Standard library only, and that imported where it is used, so that importing this costs next to nothing. Inside an instance this file
alone is the module `faaslite`; the shim carries a copy of it (`runtime-images/python/faaslite_shim/sdk.py`), equal byte for byte.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

__all__ = ["Call", "CallFailed", "CloudEvent", "Context", "Cron", "Event", "Remote", "Secret", "function", "remote"]

ARGUMENTS = "application/vnd.faaslite.arguments+json"
"""The type of a body `{"args": [...], "kwargs": {...}}`, which a typed handler's parameters are bound from."""

current_call: Callable[[], tuple[str, float | None, str] | None] | None = None
"""Set by the shim: id, deadline (seconds since the epoch) and traceparent of the call that runs here and now."""


class CallFailed(Exception):
    """A function answered with an error. `reason` and `call_id` are those of its reply, `details` what it says besides."""

    def __init__(self, status: int, reason: str, message: str, call_id: str = "", details: Any = None) -> None:
        super().__init__(f"{reason} ({status}): {message}")
        self.status, self.reason, self.message, self.call_id, self.details = status, reason, message, call_id, details


class Secret:
    """A secret of the namespace: named in `@function(secrets=[...])`, and read inside as `Secret("db")["password"]`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getitem__(self, key: str) -> str:
        import os

        folder = os.environ.get("FAASLITE_SECRETS") or "/var/run/secrets/faaslite"
        try:
            with open(os.path.join(folder, self.name, key), encoding="utf-8") as file:
                return file.read()
        except FileNotFoundError:
            raise KeyError(f"{self.name}/{key}: no such secret; is it in secrets=[...] of the function?") from None

    def get(self, key: str, default: str | None = None) -> str | None:
        try:
            return self[key]
        except KeyError:
            return default

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"


class Cron:
    """A trigger: five fields, `@hourly` and the like, or `@every 5s`; `tz` is an IANA zone. The rest as in function.yaml."""

    def __init__(
        self,
        schedule: str,
        *,
        tz: str = "UTC",
        name: str = "",
        overlap: str = "Skip",
        missed: str = "last",
        jitter: float | str = 0,
        path: str = "/",
        method: str = "POST",
        payload: Any = None,
    ) -> None:
        self.schedule, self.tz, self.name, self.overlap, self.missed = schedule, tz, name, overlap, missed
        self.jitter, self.path, self.method, self.payload = jitter, path, method, payload

    def spec(self) -> dict[str, Any]:
        """As in a Function's `spec.cron`, without what is said by default."""
        found: dict[str, Any] = {"schedule": self.schedule, "timeZone": self.tz}
        usual = {"name": "", "overlap": "Skip", "missed": "last", "jitter": 0, "path": "/", "method": "POST"}
        found.update({key: getattr(self, key) for key, value in usual.items() if getattr(self, key) != value})
        if self.payload is not None:
            found["payload"] = self.payload
        return found

    def __repr__(self) -> str:
        return f"Cron({self.schedule!r}, tz={self.tz!r})"


class Event:
    """For annotations: a call's request, as in docs/functions.md."""

    method: str
    path: str
    query: dict[str, str]
    headers: Mapping[str, str]
    body: bytes
    text: str
    if TYPE_CHECKING:

        def json(self) -> Any: ...


class Context:
    """For annotations: what a handler may know of its call, as in docs/functions.md."""

    call_id: str
    deadline: float | None
    function: str
    namespace: str
    revision: str
    secrets: Mapping[str, str]
    logger: Any
    if TYPE_CHECKING:

        def remaining(self) -> float | None: ...


class CloudEvent:
    """A CloudEvent 1.0. `data` is what JSON holds, text or bytes, by `datacontenttype`; further attributes are `extensions`."""

    def __init__(
        self,
        type: str,
        source: str,
        data: Any = None,
        *,
        id: str = "",
        subject: str = "",
        time: str = "",
        datacontenttype: str = "",
        dataschema: str = "",
        **extensions: str,
    ) -> None:
        if not id:
            import os

            id = os.urandom(16).hex()
        self.type, self.source, self.id, self.data = type, source, id, data
        self.subject, self.time, self.datacontenttype, self.dataschema = subject, time, datacontenttype, dataschema
        self.extensions = extensions

    def attributes(self) -> dict[str, str]:
        """All that are set, with `specversion`, without the data."""
        found = {"specversion": "1.0", "id": self.id, "source": self.source, "type": self.type}
        optional = ("subject", "time", "datacontenttype", "dataschema")
        found.update({name: getattr(self, name) for name in optional if getattr(self, name)})
        return {**found, **self.extensions}

    def __repr__(self) -> str:
        return f"CloudEvent(type={self.type!r}, source={self.source!r}, id={self.id!r})"


class Call:
    """An asynchronous call that was accepted."""

    def __init__(self, id: str, gateway: str) -> None:
        self.id = id
        self._gateway = gateway

    def record(self) -> dict[str, Any]:
        """What is known of it: `status`, `attempts`, `result` ... Needs the platform's token (`FAASLITE_TOKEN`), as `faas calls` does."""
        import json
        import os

        token = os.environ.get("FAASLITE_TOKEN", "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        status, _, body = _exchange(self._gateway, "GET", f"/system/calls/{self.id}", None, headers, 30.0)
        if status >= 400:
            raise _failure(status, body, self.id)
        found: dict[str, Any] = json.loads(body)
        return found

    def result(self, timeout: float = 60.0) -> Any:
        """Wait until it is over: what the function returned. Raises CallFailed, TimeoutError."""
        import base64
        import json
        import time

        until, pause = time.monotonic() + timeout, 0.02
        while not (found := self.record()).get("finishedAt"):
            if time.monotonic() + pause > until:
                raise TimeoutError(f"call {self.id} is {found['status']} after {timeout:g} s")
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)
        result = found.get("result") or {}
        raw = result.get("body") or ""
        body = base64.b64decode(raw) if result.get("encoding") == "base64" else raw.encode()
        if found["status"] != "Succeeded":
            raise CallFailed(
                int(found.get("httpStatus") or 0), found["status"], str(found.get("error") or raw), self.id
            )
        return _decoded(str(result.get("contentType") or ""), body) if body else json.loads("null")

    def __repr__(self) -> str:
        return f"Call({self.id!r})"


class Remote:
    """A function where it is deployed. Without `namespace` the caller's own."""

    def __init__(self, name: str, namespace: str = "", *, plain: bool | None = None) -> None:
        self.name, self.namespace = name, namespace
        self._plain = plain

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call it and wait: what it returned (JSON, text or bytes). Raises CallFailed.

        Arguments are bound to the parameters of a typed handler. One argument alone, to a handler that takes (event, context) or
        one that is known by its name only, is the body itself.
        """
        body, kind = self._body(args, kwargs)
        status, headers, data = self._send("/function/", body, kind)
        if status >= 400:
            raise _failure(status, data, headers.get("x-call-id", ""))
        return _decoded(headers.get("content-type", ""), data) if data else None

    def spawn(self, *args: Any, **kwargs: Any) -> Call:
        """Have it called in the background, with retries: the call. Raises CallFailed where it isn't accepted."""
        import json

        body, kind = self._body(args, kwargs)
        status, headers, data = self._send("/async-function/", body, kind)
        if status != 202:
            raise _failure(status, data, headers.get("x-call-id", ""))
        return Call(json.loads(data)["callId"], _gateway())

    async def acall(self, *args: Any, **kwargs: Any) -> Any:
        """`call` for async code."""
        import asyncio

        return await asyncio.to_thread(self.call, *args, **kwargs)

    async def aspawn(self, *args: Any, **kwargs: Any) -> Call:
        """`spawn` for async code."""
        import asyncio

        return await asyncio.to_thread(self.spawn, *args, **kwargs)

    def _body(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bytes, str]:
        if not args and not kwargs:
            return b"", ""
        if self._plain is not False and len(args) == 1 and not kwargs:
            value = args[0]
            if isinstance(value, (bytes, bytearray)):
                return bytes(value), "application/octet-stream"
            if isinstance(value, str):
                return value.encode(), "text/plain; charset=utf-8"
            return dumps(value), "application/json"
        if self._plain:
            raise TypeError(f"{self.name} takes (event, context): call it with one argument, the body")
        return dumps({"args": list(args), "kwargs": kwargs}), ARGUMENTS

    def _send(self, prefix: str, body: bytes, kind: str) -> tuple[int, dict[str, str], bytes]:
        import os
        import time

        headers = {"Content-Type": kind} if kind else {}
        timeout = 330.0
        around = current_call() if current_call is not None else None
        if around is not None:
            call_id, deadline, trace = around
            if deadline is not None:
                timeout = deadline - time.time()
                if timeout <= 0:
                    raise CallFailed(504, "DeadlineExceeded", "the caller's own deadline has passed", call_id)
                if prefix == "/function/":
                    headers["X-Faaslite-Deadline"] = f"{deadline:.3f}"
            if trace:
                headers["traceparent"] = trace
        namespace = self.namespace or os.environ.get("FAASLITE_NAMESPACE", "") or "default"
        path = f"{prefix}{self.name}.{namespace}/"
        return _exchange(_gateway(), "POST", path, body, headers, timeout + 1.0)

    def __repr__(self) -> str:
        return f"Remote({self.name!r}{f', {self.namespace!r}' if self.namespace else ''})"


def remote(name: str, namespace: str = "") -> Remote:
    """A function of another app, by its name: `remote("orders", "shop").call({...})`."""
    return Remote(name, namespace)


def function(
    handler: Any = None,
    /,
    *,
    name: str = "",
    route: str = "",
    methods: Iterable[str] = (),
    cron: Cron | str | Iterable[Cron | str] = (),
    secrets: Iterable[Secret | str] = (),
    env: Mapping[str, str] | None = None,
    memory: str = "",
    cpu: str = "",
    min: int | None = None,
    max: int | None = None,
    idle: str | float | None = None,
    target: float | None = None,
    concurrency: int | None = None,
    timeout: str | float | None = None,
    retries: int | None = None,
    max_age: str | float | None = None,
    visibility: str = "",
    runtime: str = "",
) -> Any:
    """Declare a function of this file; `faas deploy FILE` deploys each of them. It stays the function that it is, with `call` and `spawn`.

    The name is the function's with `-` for `_`. `route` is a path of the gateway's own, `methods` those that it takes; `idle`, `timeout`
    and `max_age` are `30s` or seconds. `faas` reads this without running the file, so arguments are literals, or names of literals.
    """
    given = {key: value for key, value in locals().items() if key != "handler"}

    def declare(handler: Any) -> Any:
        own = name or handler.__name__.strip("_").lower().replace("_", "-")
        there = Remote(own, plain=_is_plain(handler))
        handler.declaration = {**given, "name": own}
        handler.call, handler.spawn = there.call, there.spawn
        handler.acall, handler.aspawn = there.acall, there.aspawn
        return handler

    return declare if handler is None else declare(handler)


def spec_of(
    *,
    route: str = "",
    methods: Iterable[str] = (),
    cron: Any = (),
    secrets: Any = (),
    env: Mapping[str, str] | None = None,
    memory: str = "",
    cpu: str = "",
    min: int | None = None,
    max: int | None = None,
    idle: Any = None,
    target: Any = None,
    concurrency: int | None = None,
    timeout: Any = None,
    retries: int | None = None,
    max_age: Any = None,
    visibility: str = "",
    runtime: str = "",
) -> dict[str, Any]:
    """What a decorator's arguments (but `name`) say, as a Function's `spec`. Raises TypeError."""
    spec: dict[str, Any] = {}
    if runtime:
        spec["runtime"] = runtime
    if env:
        spec["env"] = [{"name": key, "value": value} for key, value in env.items()]
    named = [secrets] if isinstance(secrets, (str, Secret)) else list(secrets or ())
    if named:
        spec["secrets"] = [each.name if isinstance(each, Secret) else _text(each, "secrets") for each in named]
    triggers = [cron] if isinstance(cron, (str, Cron)) else list(cron or ())
    if triggers:
        spec["cron"] = [(each if isinstance(each, Cron) else Cron(_text(each, "cron"))).spec() for each in triggers]
    if memory:
        spec["resources"] = {"requests": {"memory": memory}, "limits": {"memory": memory}}
    if cpu:
        spec.setdefault("resources", {}).setdefault("requests", {})["cpu"] = cpu
    scale = {"min": min, "max": max, "idle": idle, "target": target}
    queued = {"retries": retries, "maxAge": max_age}
    for key, group in (("scale", scale), ("async", queued)):
        if found := {name: value for name, value in group.items() if value is not None}:
            spec[key] = found
    limits = {"concurrency": concurrency, "timeout": timeout}
    spec.update({key: value for key, value in limits.items() if value is not None})
    http: dict[str, Any] = {"visibility": visibility} if visibility else {}
    verbs = [methods] if isinstance(methods, str) else list(methods or ())
    if route:
        http["routes"] = [{"path": route, **({"methods": [each.upper() for each in verbs]} if verbs else {})}]
    elif verbs:
        raise TypeError("methods= needs a route=")
    if http:
        spec["http"] = http
    return spec


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what}= has a {type(value).__name__} in it")
    return value


def _is_plain(handler: Any) -> bool:
    """Whether a handler takes (event, context) rather than values of its own."""
    code = getattr(handler, "__code__", None)
    if code is None:
        return True
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    hints = handler.__annotations__
    for each in names:
        hint = hints.get(each)
        known = str(getattr(hint, "__name__", hint) or "").rpartition(".")[2] in (
            "",
            "Event",
            "Context",
            "Any",
            "CloudEvent",
        )
        if not known or (hint is None and each not in ("event", "context") and len(names) > 2):
            return False
    return True


def dumps(value: Any) -> bytes:
    """JSON of what functions pass around: dataclasses, pydantic models, dates, enums and the like besides plain values."""
    import json

    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=jsonable).encode()


def jsonable(value: Any) -> Any:
    """`default` of json.dumps. Raises TypeError."""
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is not None:
        return {name: getattr(value, name) for name in fields}
    if isinstance(value, CloudEvent):
        return {**value.attributes(), "data": value.data}
    kind = type(value)
    if hasattr(kind, "__members__"):
        return value.value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        import base64

        return base64.b64encode(value).decode()
    if isinstance(value, (set, frozenset)):
        raise TypeError(f"Object of type {kind.__name__} is not JSON serializable: its order is not known; send a list")
    if kind.__name__ in ("UUID", "Decimal") or hasattr(value, "__fspath__"):
        return str(value)
    if hasattr(value, "total_seconds"):
        return value.total_seconds()
    raise TypeError(f"Object of type {kind.__name__} is not JSON serializable")


def _gateway() -> str:
    import os

    return os.environ.get("FAASLITE_GATEWAY") or "http://127.0.0.1:8080"


def _exchange(
    base: str, method: str, path: str, body: bytes | None, headers: dict[str, str], timeout: float
) -> tuple[int, dict[str, str], bytes]:
    import http.client
    from urllib.parse import urlsplit

    parts = urlsplit(base)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "127.0.0.1", parts.port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return response.status, found, response.read()
    except TimeoutError as error:
        raise CallFailed(504, "DeadlineExceeded", f"{base} did not answer in time") from error
    except (OSError, http.client.HTTPException) as error:
        raise CallFailed(503, "Unreachable", f"{base} can't be reached: {error or type(error).__name__}") from error
    finally:
        connection.close()


def _decoded(content_type: str, body: bytes) -> Any:
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        import json

        return json.loads(body)
    return body.decode("utf-8", "replace") if kind.startswith("text/") else body


def _failure(status: int, body: bytes, call_id: str) -> CallFailed:
    import json

    try:
        found = json.loads(body)
        reason, message = found["error"], found.get("message", "")
        return CallFailed(status, str(reason), str(message), str(found.get("callId") or call_id), found.get("details"))
    except (ValueError, TypeError, KeyError):
        return CallFailed(status, "HandlerError", body.decode("utf-8", "replace")[:1000], call_id)
