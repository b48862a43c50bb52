"""Every sort of handler that the Python shim knows, asked over its socket."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]


def ask(shim, path="/", body=None, method="POST", **headers):
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    status, found, raw = shim.call(path, method, data, **headers)
    return status, found, json.loads(raw) if "json" in found.get("content-type", "") else raw


TYPED = """
from __future__ import annotations
import datetime, enum
from dataclasses import dataclass, field
from typing import Literal, NotRequired, TypedDict
from faaslite import function, Context

class Size(enum.Enum):
    SMALL = "s"
    LARGE = "l"

@dataclass
class Item:
    sku: str
    count: int = 1

@dataclass
class Order:
    '''What a customer wants.'''
    customer: str
    items: list[Item]
    size: Size = Size.SMALL
    due: datetime.date | None = None

    def __post_init__(self):
        if not self.items:
            raise ValueError("an order has items")

class Receipt(TypedDict):
    total: int
    note: NotRequired[str]

@function(route="/orders", methods=["POST"], name="orders")
async def create_order(order: Order, context: Context, dry: bool = False, level: Literal[1, 2] = 1) -> Receipt:
    '''Create an order.

    It is kept.'''
    return {"total": sum(each.count for each in order.items), "order": order, "dry": dry, "level": level, "at": context.function}

def add(a: int, b: float = 1.5):
    return a + b

def both(first: Item, second: Item):
    return [first, second]
"""


def test_typed_parameters_are_bound_checked_and_described(start):
    shim = start(TYPED, FAASLITE_HANDLER="app:create_order", FAASLITE_FUNCTION="orders", FAASLITE_NAMESPACE="shop")
    order = {"customer": "Ada", "items": [{"sku": "a", "count": 2}, {"sku": "b"}], "due": "2024-05-01", "size": "l"}
    status, _, found = ask(shim, "/?dry=yes&level=2", order)
    assert (status, found["total"], found["dry"], found["level"], found["at"]) == (200, 3, True, 2, "orders")
    assert found["order"] == {
        "customer": "Ada",
        "items": [{"sku": "a", "count": 2}, {"sku": "b", "count": 1}],
        "size": "l",
        "due": "2024-05-01",
    }
    wrong = {"items": [{"sku": 1, "count": "2", "colour": "red"}], "size": "xl"}
    status, headers, found = ask(shim, "/?dry=perhaps&level=3", wrong, X_Call_Id="c-1")
    assert (status, found["error"], found["callId"], headers["x-call-id"]) == (422, "InvalidArguments", "c-1", "c-1")
    assert {".".join(map(str, each["loc"])): each["message"] for each in found["details"]} == {
        "body.customer": "is required",
        "body.items.0.sku": "must be text",
        "body.items.0.count": "must be a whole number",
        "body.items.0.colour": "is not a field of Item",
        "body.size": "must be one of 's', 'l'",
        "query.dry": "must be true or false",
        "query.level": "must be one of 1, 2",
    }
    assert ask(shim, "/", b"{")[2]["details"][0]["message"].startswith("is not JSON")
    assert ask(shim, "/")[2]["message"] == "body: is required"
    assert ask(shim, "/", {"customer": "x", "items": []})[2]["message"] == "body: an order has items"

    status, _, document = ask(shim, "/_/openapi.json", method="GET")
    operation = document["paths"]["/"]["post"]
    assert (status, document["openapi"], document["servers"]) == (200, "3.1.0", [{"url": "/function/orders.shop"}])
    assert (operation["summary"], operation["description"]) == ("Create an order.", "It is kept.")
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Order"}
    assert operation["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Receipt")
    assert [each["name"] for each in operation["parameters"]] == ["dry", "level"]
    schemas = document["components"]["schemas"]
    assert schemas["Order"]["required"] == ["customer", "items"]
    assert schemas["Order"]["properties"]["due"] == {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}
    assert schemas["Receipt"]["required"] == ["total"]


def test_scalars_come_from_query_form_or_body_and_several_bodies_by_name(start):
    shim = start(TYPED, FAASLITE_HANDLER="app:add")
    assert ask(shim, "/?a=2&b=0.5", method="GET")[2] == 2.5
    assert ask(shim, "/", {"a": 2})[2] == 3.5
    assert ask(shim, "/?b=3", {"a": 2})[2] == 5
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert ask(shim, "/", b"a=4", **form)[2] == 5.5
    assert ask(shim, "/", b' {"a": 4}', **form)[2] == 5.5  # as curl -d sends it
    arguments = {"Content_Type": "application/vnd.faaslite.arguments+json"}
    assert ask(shim, "/", {"args": [1], "kwargs": {"b": 2}}, **arguments)[2] == 3
    status, _, found = ask(shim, "/", {"args": [1, 2, 3], "kwargs": {"c": 2}}, **arguments)
    assert (status, found["message"]) == (422, "args: 3 were given, 2 are taken; c: is not a parameter")
    assert ask(shim, "/", {"a": True})[0] == 422
    both = start(TYPED, FAASLITE_HANDLER="app:both")
    found = ask(both, "/", {"first": {"sku": "a"}, "second": {"sku": "b"}})[2]
    assert [each["sku"] for each in found] == ["a", "b"]


def test_annotations_of_event_and_context_leave_a_handler_plain(start):
    shim = start(
        "from faaslite import Context, Event\n"
        "def handle(event: Event, context: Context) -> dict:\n    return {'path': event.path, 'id': context.call_id}\n"
    )
    assert ask(shim, "/x", X_Call_Id="c")[2] == {"path": "/x", "id": "c"}


def test_a_type_that_nothing_can_be_read_as_is_said_at_start(launch):
    source = "import threading\ndef handle(lock: threading.Thread):\n    return 1\n"
    shim = launch(source)
    assert shim.process.wait(10) == 1
    assert "Thread can't be read from a request" in shim.termination.read_text()


EVENTS = """
from faaslite import CloudEvent
def handle(event: CloudEvent):
    return CloudEvent("reply", "/me", {"got": event.data if not isinstance(event.data, bytes) else len(event.data), "x": event.extensions}, id="r")
"""


def test_cloudevents_in_both_modes(start):
    shim = start(EVENTS)
    binary = {"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/s", "ce_type": "t", "ce_shop": "a%20b"}
    status, headers, found = ask(shim, "/", {"n": 1}, Content_Type="application/json", **binary)
    assert (status, headers["ce-type"], headers["ce-id"]) == (200, "reply", "r")
    assert found == {"got": {"n": 1}, "x": {"shop": "a b"}}
    document = {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "t",
        "data_base64": base64.b64encode(b"abc").decode(),
    }
    status, headers, found = ask(shim, "/", document, Content_Type="application/cloudevents+json")
    assert headers["content-type"].startswith("application/cloudevents+json")
    assert (found["type"], found["data"]["got"]) == ("reply", 3)
    status, _, found = ask(shim, "/", {"n": 1}, ce_id="1")
    assert status == 422 and "ce-type: is required" in found["message"]
    status, _, found = ask(shim, "/", {"specversion": "0.3"}, Content_Type="application/cloudevents+json")
    assert status == 422 and "specversion: must be 1.0" in found["message"]


WSGI = """
def app(environ, start_response):
    body = environ["wsgi.input"].read()
    start_response("201 Created", [("Content-Type", "text/plain"), ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    if environ["PATH_INFO"] == "/stream":
        return (each for each in (b"one;", b"two;"))
    return [environ["REQUEST_METHOD"].encode(), b" ", environ["PATH_INFO"].encode("latin-1"), b" ", environ["QUERY_STRING"].encode(), b" ", body, b" ", environ["HTTP_X_ONE"].encode()]
"""


def test_wsgi_applications(start):
    shim = start(WSGI)
    head, _, body = shim.raw(
        b"POST /a%C3%A9?x=1 HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"
    ).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 201") and head.count(b"set-cookie: ") == 2
    assert body == "POST /aé x=1 hi 1".encode()
    _, headers, body = shim.call("/stream", X_One="1")
    assert headers["transfer-encoding"] == "chunked" and b"one;" in body and body.endswith(b"two;\r\n0\r\n\r\n")


def test_the_module_of_the_platform_is_the_sdk_unless_the_package_has_its_own(start):
    source = "import faaslite, faaslite.sdk, sys\ndef handle(event, context):\n    return [faaslite.Secret('db')['password'], faaslite.sdk is faaslite, hasattr(faaslite, 'api')]\n"
    shim = start(source, FAASLITE_SECRETS="")
    assert ask(shim)[0] == 500  # no secrets there
    folder = Path(shim.termination).parent / "secrets"
    assert ask(start(source, FAASLITE_SECRETS=str(folder)))[2] == ["hunter2", True, False]


class Gateway(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.seen.append((self.path, dict(self.headers), body))
        asynchronous = self.path.startswith("/async-function/")
        status, reply = (202, b'{"callId": "q-1"}') if asynchronous else (200, b'{"sum": 3}')
        if "broken" in self.path:
            status, reply = 500, b'{"error": "HandlerError", "message": "no", "callId": "q-2"}'
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


@pytest.fixture
def gateway():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Gateway)
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


CALLER = """
from dataclasses import dataclass
from faaslite import CallFailed, function, remote

@dataclass
class Pair:
    a: int
    b: int

@function
def add_up(pair: Pair, c: int = 0): ...

@function
def plain(event, context): ...

@function
async def handle(event, context):
    if event.path == "/broken":
        try:
            remote("broken").call()
        except CallFailed as error:
            return [error.status, error.reason, error.call_id]
    await add_up.acall(Pair(1, 2), c=3)
    plain.call({"x": 1})
    remote("other", "team-b").call("text")
    return add_up.spawn(Pair(3, 4)).id
"""


def test_functions_call_each_other_with_deadline_and_trace(start, gateway):
    shim = start(
        CALLER, FAASLITE_HANDLER="app:handle", FAASLITE_NAMESPACE="team-a",
        FAASLITE_GATEWAY=f"http://127.0.0.1:{gateway.server_port}",
    )  # fmt: skip
    deadline = f"{time.time() + 20:.3f}"
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    status, _, found = ask(shim, "/", X_Faaslite_Deadline=deadline, traceparent=trace)
    assert (status, found) == (200, b"q-1")
    paths = [each[0] for each in gateway.seen]
    assert paths == [
        "/function/add-up.team-a/", "/function/plain.team-a/", "/function/other.team-b/", "/async-function/add-up.team-a/",
    ]  # fmt: skip
    assert json.loads(gateway.seen[0][2]) == {"args": [{"a": 1, "b": 2}], "kwargs": {"c": 3}}
    assert json.loads(gateway.seen[1][2]) == {"x": 1} and gateway.seen[2][2] == b"text"
    for _, headers, _ in gateway.seen:
        assert headers["traceparent"] == trace
    assert [each[1].get("X-Faaslite-Deadline") for each in gateway.seen] == [deadline] * 3 + [None]
    assert ask(shim, "/broken")[2] == [500, "HandlerError", "q-2"]


def test_the_shim_carries_the_sdk_byte_for_byte():
    ours = (ROOT / "faaslite" / "sdk.py").read_bytes()
    assert (ROOT / "runtime-images" / "python" / "faaslite_shim" / "sdk.py").read_bytes() == ours, (
        "cp faaslite/sdk.py runtime-images/python/faaslite_shim/"
    )


PYDANTIC = """
from typing import Annotated
from pydantic import BaseModel, Field

class Item(BaseModel):
    sku: str = Field(min_length=2)

class Order(BaseModel):
    items: list[Item]

def handle(order: Order, limit: Annotated[int, Field(gt=0)] = 5) -> Order:
    return order if limit < 9 else [order, Item(sku="xx")]
"""


def test_pydantic_models_of_the_layer(start):
    import pydantic

    shim = start(PYDANTIC, FAASLITE_LAYER=str(Path(pydantic.__file__).parents[1]))
    assert ask(shim, "/?limit=3", {"items": [{"sku": "ab"}]})[2] == {"items": [{"sku": "ab"}]}
    assert ask(shim, "/?limit=9", {"items": []})[2] == [{"items": []}, {"sku": "xx"}]
    status, _, found = ask(shim, "/?limit=0", {"items": [{"sku": "a"}]})
    assert status == 422
    assert [each["loc"] for each in found["details"]] == [["body", "items", 0, "sku"], ["query", "limit"]]
    document = ask(shim, "/_/openapi.json", method="GET")[2]
    assert set(document["components"]["schemas"]) == {"Error", "Item", "Order"}
    (parameter,) = document["paths"]["/"]["post"]["parameters"]
    assert parameter["schema"]["exclusiveMinimum"] == 0
