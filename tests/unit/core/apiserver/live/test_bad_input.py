"""Bodies, headers and queries that are too long, too deep, too many or of the wrong sort, over the HTTP edge: an answer each, never a 500."""

from __future__ import annotations

import gzip
import json

import pytest
import yaml

from core.apiserver import body, presentation
from core.errors import BadRequest

CORE = "/api/v1/namespaces/default"
MAPS = f"{CORE}/configmaps"
MIB = 1024 * 1024
JSON_PATCH = "application/json-patch+json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
DEEP = b"[" * (MIB + MIB // 2 - 100) + b"]" * (MIB + MIB // 2 - 100)


@pytest.fixture
async def ask(api, monkeypatch):
    """A request over ASGI, its body in pieces as a network brings them: (status, headers, body)."""

    async def allow(user, info):
        return None

    monkeypatch.setattr(api._authorizer, "check", allow)

    async def call(method, path, data=b"", content_type="application/json", query=b"", **headers):
        pieces = [data[at : at + 65536] for at in range(0, len(data), 65536)] or [b""]
        sent, read = [], iter(enumerate(pieces, 1))

        async def receive():
            number, piece = next(read)
            return {"type": "http.request", "body": piece, "more_body": number < len(pieces)}

        async def send(message):
            sent.append(message)

        named = {"authorization": "Bearer secret", **headers}
        if content_type is not None:
            named["content-type"] = content_type
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()]
        await api({"type": "http", "method": method, "path": path, "query_string": query, "headers": raw}, receive, send)  # fmt: skip
        found = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return sent[0]["status"], found, b"".join(each.get("body", b"") for each in sent[1:])

    status, _, _ = await call("POST", MAPS, b'{"metadata":{"name":"a"}}')
    assert status == 201
    return call


async def refused(ask, *arguments, **options):
    """The (code, reason, message) of what must be refused."""
    code, _, said = await ask(*arguments, **options)
    status = json.loads(said)
    assert status["kind"] == "Status" and status["code"] == code, said[:200]
    return code, status["reason"], status["message"]


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [
        ("POST", MAPS, "application/json"),
        ("POST", MAPS, "application/yaml"),
        ("PUT", f"{MAPS}/a", "application/json"),
        ("PATCH", f"{MAPS}/a", JSON_PATCH),
        ("DELETE", f"{MAPS}/a", "application/json"),
    ],
)
async def test_bodies_over_three_mebibytes(ask, method, path, kind):
    found = await refused(ask, method, path, b"x" * (3 * MIB + 1), kind)
    assert found == (413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728")


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        (JSON_PATCH, b'[{"op":"add","path":"/foo","value":0' + b" " * (3 * MIB - 100) + b"}]"),
        (MERGE, b'{"value":0' + b" " * (3 * MIB - 100) + b"}"),
        (STRATEGIC, b'{"value":0' + b" " * (3 * MIB - 100) + b"}"),
        (APPLY, b'{"apiVersion":"v1","kind":"ConfigMap"' + b" " * (3 * MIB - 100) + b"}"),
    ],
)
async def test_patches_just_under_the_limit_are_taken(ask, kind, data):
    status, _, said = await ask("PATCH", f"{MAPS}/a", data, kind, b"fieldManager=t")
    assert status == 200, said[:200]


@pytest.mark.parametrize(
    ("method", "path", "kind", "data"),
    [
        ("PATCH", f"{MAPS}/a", JSON_PATCH, b'[{"op":"add","path":"/foo","value":' + DEEP + b"}]"),
        ("PATCH", f"{MAPS}/a", MERGE, b'{"value":' + DEEP + b"}"),
        ("PATCH", f"{MAPS}/a", STRATEGIC, b'{"value":' + DEEP + b"}"),
        ("PATCH", f"{MAPS}/a", APPLY, b'{"value":' + DEEP + b"}"),
        ("POST", MAPS, "application/json", b'{"metadata":{"name":"d"},"values":' + DEEP + b"}"),
        ("POST", MAPS, "application/json", b'{"metadata":{"name":"d"},"values":' + b"[" * (3 * MIB - 1000)),
        ("POST", MAPS, "application/yaml", b"kind: ConfigMap\nvalues: " + DEEP),
        ("POST", MAPS, "application/yaml", b"kind: ConfigMap\nvalues: " + b"[" * (3 * MIB - 1000)),
    ],
)
async def test_absurd_nesting(ask, method, path, kind, data):
    code, reason, message = await refused(ask, method, path, data, kind, b"fieldManager=t")
    assert (code, reason) == (400, "BadRequest")
    assert "depth" in message


async def test_too_many_operations_and_elements(ask):
    operation = b'{"op":"add","path":"/x","value":"y"}'
    many = b"[" + b",".join([operation] * 10_001) + b"]"
    found = await refused(ask, "PATCH", f"{MAPS}/a", many, JSON_PATCH)
    assert found == (413, "RequestEntityTooLarge", "the allowed maximum operations in a JSON patch is 10000, got 10001")
    elements = b'{"metadata":{"name":"e"},"values":[' + b"0," * (MIB // 2) + b"0]}"
    found = await refused(ask, "POST", MAPS, elements)
    assert found == (413, "RequestEntityTooLarge", "Request entity too large: limit is 100000 values")


async def test_yaml_that_grows_is_not_grown(ask):
    lines = [b"a: &a [x,x,x,x,x,x,x,x,x]"]
    lines += [b"%c: &%c [%s]" % (each, each, b",".join([b"*%c" % (each - 1)] * 9)) for each in b"bcdefghij"]
    code, reason, message = await refused(ask, "POST", MAPS, b"\n".join(lines), "application/yaml")
    assert (code, reason) == (400, "BadRequest") and "aliasing" in message


WRONG_TYPES = (
    "text/plain", "application/xml", "application/cbor", "multipart/form-data; boundary=x", "text/json", "nonsense",
    MERGE, JSON_PATCH, STRATEGIC, APPLY,
)  # fmt: skip


async def test_documents_of_other_content_types(ask):
    for kind in WRONG_TYPES:
        for method, path in (("POST", MAPS), ("PUT", f"{MAPS}/a")):
            code, reason, message = await refused(ask, method, path, b'{"metadata":{"name":"a"}}', kind)
            assert (code, reason) == (415, "UnsupportedMediaType"), kind
            assert message.endswith("application/json, application/yaml, application/vnd.kubernetes.protobuf")


async def test_patches_of_other_content_types(ask):
    for kind in ("application/json", "text/plain", "", None, body.PROTOBUF):
        code, reason, message = await refused(ask, "PATCH", f"{MAPS}/a", b"{}", kind)
        assert (code, reason) == (415, "UnsupportedMediaType"), kind
        assert all(each in message for each in (JSON_PATCH, MERGE, STRATEGIC, APPLY))


async def test_a_content_type_may_have_parameters_and_be_missing(ask):
    for number, kind in enumerate(("application/json; charset=utf-8", "Application/JSON", "", None)):
        status, _, _ = await ask("POST", MAPS, b'{"metadata":{"name":"c%d"}}' % number, kind)
        assert status == 201


async def test_packed_bodies_are_not_unpacked(ask):
    """As in Kubernetes: nothing can grow in here."""
    packed = gzip.compress(b'{"metadata":{"name":"z"}}')
    for encoding in ("gzip", "deflate", "br"):
        code, reason, _ = await refused(ask, "POST", MAPS, packed, content_encoding=encoding)
        assert (code, reason) == (400, "BadRequest")


NO_DOCUMENTS = (
    b"", b"null", b"[]", b'"x"', b"1", b"{", b"\xff\xfe", b"\x00", b"NaN", b'{"metadata":[]}', b'{"metadata":{"name":1}}', b'{"kind":1}',
    b'{"metadata":{"name":"\\ud800"}}', b'{"metadata":{"name":"n","labels":{"x":1}}}', b'{"metadata":{"name":"n"},"immutable":1e999}',
    b"k8s\x00", b"k8s\x00\xff\xff\xff\xff",
)  # fmt: skip


@pytest.mark.parametrize("kind", ["application/json", "application/yaml", body.PROTOBUF])
async def test_what_is_no_document(ask, kind):
    for data in NO_DOCUMENTS:
        code, _, _ = await refused(ask, "POST", MAPS, data, kind)
        assert code in (400, 422), data


BAD_NAMES = (
    "",
    "A",
    "a_b",
    "-a",
    "a-",
    ".",
    "..",
    "a/b",
    "a b",
    "a\\u0000b",
    "ä",
    "\\ud83d\\ude00",
    "a" * 254,
    "a..b",
    "%2e%2e",
)


async def test_names(ask):
    for name in BAD_NAMES:
        code, reason, _ = await refused(ask, "POST", MAPS, b'{"metadata":{"name":"%s"}}' % name.encode())
        assert (code, reason) == (422, "Invalid"), name


async def test_data_over_a_mebibyte(ask):
    maps = await refused(ask, "POST", MAPS, b'{"metadata":{"name":"b"},"data":{"a":"%s"}}' % (b"x" * (MIB + 1)))
    assert maps[2] == 'ConfigMap "b" is invalid: []: Too long: may not be more than 1048576 bytes'
    data = b'{"metadata":{"name":"b"},"data":{"a":"%s"}}' % (b"eHh4" * (MIB // 3 + 1))
    secret = await refused(ask, "POST", f"{CORE}/secrets", data)
    assert secret[2] == 'Secret "b" is invalid: data: Too long: may not be more than 1048576 bytes'
    noted = b'{"metadata":{"name":"b","annotations":{"a":"%s"}}}' % (b"x" * 262_145)
    found = await refused(ask, "POST", MAPS, noted)
    assert found[2] == 'ConfigMap "b" is invalid: metadata.annotations: Too long: may not be more than 262144 bytes'


BAD_QUERIES = (
    (b"limit=x", 400), (b"limit=99999999999999999999", 400), (b"limit=1_0", 400), (b"limit=%D9%A1", 400), (b"continue=x", 400),
    (b"labelSelector=%00", 400), (b"labelSelector=a=b=c", 400), (b"labelSelector=((", 400), (b"fieldSelector=%3D", 400),
    (b"fieldSelector=spec.nope=1", 400), (b"resourceVersion=x", 422), (b"resourceVersion=-1", 422),
    (b"resourceVersion=99999999999999999999", 422), (b"resourceVersion=1&resourceVersionMatch=Nope", 422),
    (b"watch=1&resourceVersion=x", 422), (b"watch=1&timeoutSeconds=x", 400), (b"watch=1&labelSelector=((", 400),
    (b"resourceVersion=999999", 504),
)  # fmt: skip


async def test_queries(ask):
    for query, code in BAD_QUERIES:
        assert (await refused(ask, "GET", MAPS, query=query, content_type=None))[0] == code


async def test_forms_that_nobody_has(ask):
    for accept in ("text/html", "nonsense", body.PROTOBUF, "application/json;as=Table;v=v9;g=meta.k8s.io"):
        code, reason, message = await refused(ask, "GET", MAPS, accept=accept)
        assert (code, reason) == (406, "NotAcceptable") and "application/yaml" in message


async def test_what_is_not_false_is_true(admin):
    for word in ("1", "true", "yes", "TRUE", ""):
        with pytest.raises(BadRequest, match="a watch is asked for by watch"):
            await admin.get(MAPS, watch=word)
    for no in ("0", "false", "False"):
        assert (await admin.get(MAPS, watch=no))["kind"] == "ConfigMapList"


# Forms that people read


async def test_yaml_is_an_answer_too(ask):
    status, headers, said = await ask("GET", f"{MAPS}/a", accept="application/yaml")
    assert (status, headers["content-type"]) == (200, "application/yaml")
    assert yaml.safe_load(said)["metadata"]["name"] == "a"
    assert said.startswith(b"apiVersion: v1\nkind: ConfigMap\n")
    _, headers, _ = await ask("GET", f"{MAPS}/a", accept="application/json, application/yaml")
    assert headers["content-type"] == "application/json"


async def test_people_get_line_breaks(ask):
    for query, agent, broken in (
        (b"", "kubectl/v1.32", False),
        (b"pretty=true", "x", True),
        (b"", "curl/8", True),
        (b"pretty=false", "curl/8", False),
    ):
        _, _, said = await ask("GET", f"{MAPS}/a", query=query, user_agent=agent)
        assert (b"\n  " in said) is broken
        assert json.loads(said)["metadata"]["name"] == "a"
        _, _, refusal = await ask("GET", f"{MAPS}/none", query=query, user_agent=agent)
        assert (b"\n  " in refusal) is broken


async def test_programs_get_a_line_in_the_order_of_kubernetes(ask):
    _, _, said = await ask("GET", f"{MAPS}/a")
    assert said.endswith(b"}\n") and said.count(b"\n") == 1
    _, _, said = await ask("GET", "/apis/apps/v1/namespaces/default/replicasets/none")
    assert said == (
        b'{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"replicasets.apps \\"none\\" not found",'
        b'"reason":"NotFound","details":{"name":"none","group":"apps","kind":"replicasets"},"code":404}\n'
    )


def test_the_first_form_that_is_acceptable_counts():
    assert presentation.wants_yaml("application/yaml, */*")
    assert not presentation.wants_yaml("*/*, application/yaml")
    assert not presentation.wants_yaml("text/yaml")


async def test_doubts_are_told_in_the_order_of_the_document(ask):
    text = (
        b'{"metadata":{"name":"s"},"spec":{"unknown1":"v","paused":true,"paused":false,"selector":{"matchLabels":{"a":"b"}},'
        b'"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"x","nested":1,'
        b'"imagePullPolicy":"Always","imagePullPolicy":"Never"}]}}}}'
    )
    at = "/apis/apps/v1/namespaces/default/deployments"
    _, _, message = await refused(ask, "POST", at, text, query=b"fieldValidation=Strict")
    assert message.partition("strict decoding error: ")[2] == (
        'unknown field "spec.unknown1", duplicate field "spec.paused", unknown field "spec.template.spec.containers[0].nested", '
        'duplicate field "spec.template.spec.containers[0].imagePullPolicy"'
    )
    lines = b"metadata: {name: y}\ndata:\n  a: b\n  a: c\nfoo: 1\n"
    _, _, message = await refused(ask, "POST", MAPS, lines, "application/yaml", b"fieldValidation=Strict")
    assert message.endswith('strict decoding error: line 4: key "a" already set in map, unknown field "foo"')


@pytest.mark.parametrize(
    ("kind", "patch", "doubts"),
    [
        (
            "merge-patch",
            b'{"spec":{"unknown":1,"paused":true,"paused":false}}',
            ['duplicate field "spec.paused"', 'unknown field "spec.unknown"'],
        ),
        (
            "strategic-merge-patch",
            b'{"spec":{"paused":true,"paused":false,"template":{"spec":{"containers":[{"name":"c","nested":1}]}}}}',
            ['duplicate field "spec.paused"', 'unknown field "spec.template.spec.containers[0].nested"'],
        ),
        (
            "json-patch",
            b'[{"op":"add","path":"/spec/one","value":1,"foo":2},{"op":"add","path":"/spec/x","path":"/spec/two","value":1}]',
            [
                'json patch duplicate field "[1].path"', 'json patch unknown field "[0].foo"', 'unknown field "spec.one"',
                'unknown field "spec.two"',
            ],
        ),
    ],
)  # fmt: skip
async def test_doubts_about_a_patch_come_before_those_about_its_outcome(ask, kind, patch, doubts):
    made = (
        b'{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},'
        b'"spec":{"containers":[{"name":"c","image":"x"}]}}}}'
    )
    at = "/apis/apps/v1/namespaces/default/deployments"
    await ask("POST", at, made)
    content = f"application/{kind}+json"
    code, reason, message = await refused(ask, "PATCH", f"{at}/d", patch, content, b"fieldValidation=Strict")
    assert (code, reason) == (422, "Invalid")
    assert message.partition(": strict decoding error: ")[2] == ", ".join(doubts)
    status, headers, _ = await ask("PATCH", f"{at}/d", patch, content, b"fieldValidation=Warn")
    assert status == 200 and headers["warning"].endswith(json.dumps(doubts[-1]))
    status, headers, _ = await ask("PATCH", f"{at}/d", patch, content, b"fieldValidation=Ignore")
    assert status == 200 and "warning" not in headers


async def test_reviews_have_no_tables(ask):
    review = b'{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}'
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    assert (await refused(ask, "POST", path, review, accept=table))[0] == 406
    status, _, _ = await ask("POST", path, review, accept=f"{table}, application/json")
    assert status == 201


async def test_forms_that_dont_fit_what_is_asked_for(ask):
    one, many = (f"application/json;as=PartialObjectMetadata{end};v=v1;g=meta.k8s.io" for end in ("", "List"))
    assert (await ask("GET", f"{MAPS}/a", accept=one))[0] == (await ask("GET", MAPS, accept=many))[0] == 200
    code, reason, message = await refused(ask, "GET", MAPS, accept=one)
    assert (code, reason) == (406, "NotAcceptable")
    assert message == "you requested PartialObjectMetadata, but the requested object is a list"
    assert "is not a list" in (await refused(ask, "GET", f"{MAPS}/a", accept=many))[2]
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    refusal = await refused(ask, "GET", MAPS, query=b"includeObject=All", accept=table)
    assert refusal == (400, "BadRequest", 'unrecognized includeObject value: "All"')
