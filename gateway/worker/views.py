"""What the gateway reads of a Function."""

from __future__ import annotations

from msgspec import Struct, field

from core.api.views import Condition, ObjectView

__all__ = [
    "Cors",
    "Function",
    "FunctionSpec",
    "FunctionStatus",
    "Http",
    "HttpRoute",
    "Key",
    "RevisionLimits",
    "TrafficTarget",
]


class TrafficTarget(Struct, rename="camel", kw_only=True, omit_defaults=True):
    """One resolved row of `status.traffic`. `concurrency` is the limit per instance (0: none), `timeout` seconds, `tags` names of its
    own for the revision."""

    revision: str
    percent: int = 100
    concurrency: int = 0
    timeout: float = 0.0
    tags: list[str] = []


class RevisionLimits(Struct, rename="camel", kw_only=True, omit_defaults=True):
    """One row of `status.revisions`: a revision that can be called by its number."""

    revision: str
    concurrency: int = 0
    timeout: float = 0.0


class Key(Struct, rename="camel", kw_only=True, omit_defaults=True):
    """One row of `status.keys`: SHA-256 of a key that may call the function, in hex; `expires` in seconds since the epoch, 0 for never."""

    name: str
    hash: str
    expires: float = 0.0


class HttpRoute(Struct, rename="camel", kw_only=True, omit_defaults=True):
    host: str = ""
    path: str = "/"
    methods: list[str] = []


class Cors(Struct, rename="camel", kw_only=True, omit_defaults=True):
    """`spec.http.cors`; `max_age` in seconds."""

    origins: list[str] = []
    methods: list[str] = []
    headers: list[str] = []
    expose_headers: list[str] = []
    credentials: bool = False
    max_age: int = 0


class Http(Struct, rename="camel", kw_only=True, omit_defaults=True):
    visibility: str = "public"
    routes: list[HttpRoute] = []
    cors: Cors | None = None


class FunctionSpec(Struct, rename="camel", kw_only=True, omit_defaults=True):
    http: Http = field(default_factory=Http)


class FunctionStatus(Struct, rename="camel", kw_only=True, omit_defaults=True):
    traffic: list[TrafficTarget] = []
    revisions: list[RevisionLimits] = []
    keys: list[Key] = []
    conditions: list[Condition] = []


class Function(ObjectView):
    spec: FunctionSpec = field(default_factory=FunctionSpec)
    status: FunctionStatus = field(default_factory=FunctionStatus)

    @property
    def ready(self) -> Condition | None:
        """The condition Ready, if the controller has said anything yet."""
        return next((each for each in self.status.conditions if each.type == "Ready"), None)
