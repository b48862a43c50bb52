"""Functions that a file declares, read and never run."""

import textwrap

import pytest

from faaslite.build.declared import declared_in, local_modules
from faaslite.build.errors import BuildError
from faaslite.build.plan import Asked, plan
from faaslite.sdk import Cron, Secret, function, spec_of

APP = """
import os
import faaslite as fl
from faaslite import function, Secret as S, Cron

raise SystemExit("never run")
LIMIT = 10 * 2
ZONE = "Europe/Oslo"
DB = S("db")

@function(cron=Cron("0 3 * * *", tz=ZONE, payload={"full": True}), secrets=[DB, "mail"], memory="256Mi", max=LIMIT)
def nightly(event, context): ...

@fl.function(route="/orders", methods=["post"], concurrency=20, env={"MODE": os.environ.get("MODE", "test"), "L": f"{LIMIT}s"}, name="orders")
async def create_order(order): ...

@fl.function
def _plain_one(event): ...

def not_declared(): ...
"""


def write(folder, text, name="app.py"):
    file = folder / name
    file.write_text(textwrap.dedent(text))
    return file


def test_decorators_are_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MODE", "live")
    found = {each.name: each for each in declared_in(write(tmp_path, APP))}
    assert list(found) == ["nightly", "orders", "plain-one"]
    assert found["nightly"].handler == "app:nightly" and found["orders"].handler == "app:create_order"
    assert found["nightly"].spec == {
        "secrets": ["db", "mail"],
        "cron": [{"schedule": "0 3 * * *", "timeZone": "Europe/Oslo", "payload": {"full": True}}],
        "resources": {"requests": {"memory": "256Mi"}, "limits": {"memory": "256Mi"}},
        "scale": {"max": 20},
    }
    assert found["orders"].spec == {
        "env": [{"name": "MODE", "value": "live"}, {"name": "L", "value": "20s"}],
        "concurrency": 20,
        "http": {"routes": [{"path": "/orders", "methods": ["POST"]}]},
    }
    assert found["plain-one"].spec == {}


@pytest.mark.parametrize(
    ("decorator", "message"),
    [
        (
            "@function(max=compute())",
            r"app.py:3: max= of @function can't be known without running the file: compute\(\)",
        ),
        ("@function(memroy='1Mi')", "app.py:3: @function: got an unexpected keyword argument 'memroy'"),
        ("@function('name')", "takes keywords only"),
        ("@function(**OPTIONS)", "write its arguments out"),
        ("@function(cron=Cron())", "app.py:3: Cron: missing 1 required positional argument: 'schedule'"),
        ("@function(secrets=[1])", "secrets= has a int in it"),
        ("@function(methods=['GET'])", "methods= needs a route="),
        ("@function(max=os.environ['NOT_THERE_AT_ALL'])", "the environment has no NOT_THERE_AT_ALL"),
        ("@function(max='a' - 1)", "unsupported operand"),
        ("@function(name='other')", "declared at app.py:6 already"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, decorator, message):
    first = "from faaslite import function, Cron\nimport os\n"
    file = write(tmp_path, f"{first}{decorator}\ndef one(event): ...\n\n@function(name='other')\ndef two(event): ...\n")
    if "already" in message:
        message = message.replace("app.py:6", "app.py:3")
    with pytest.raises(BuildError, match=message):
        declared_in(file)


def test_the_decorator_leaves_the_function_and_says_the_same():
    @function(cron=Cron("@hourly"), secrets=[Secret("db")], max=3)
    def some_job(event, context):
        return event

    assert some_job("x", None) == "x" and some_job.declaration["name"] == "some-job"
    arguments = {key: value for key, value in some_job.declaration.items() if key != "name"}
    assert spec_of(**arguments) == {
        "secrets": ["db"], "cron": [{"schedule": "@hourly", "timeZone": "UTC"}], "scale": {"max": 3},
    }  # fmt: skip


def test_modules_beside_the_file_travel_with_it(tmp_path):
    file = write(tmp_path, "import helper, json\nfrom inner.part import x\ndef handle(event): ...\n")
    write(tmp_path, "import third", "helper.py")
    write(tmp_path, "", "third.py")
    write(tmp_path, "", "unrelated.py")
    (tmp_path / "inner").mkdir()
    write(tmp_path / "inner", "", "__init__.py")
    write(tmp_path / "inner", "", "part.py")
    assert [each.name for each in local_modules(file)] == ["helper.py", "inner", "third.py"]
    (planned,) = plan(file, Asked(name="one", cache=tmp_path / "cache"))
    assert planned.archive.files == 5


def test_plans_lay_flags_over_the_file_over_the_code(tmp_path):
    write(tmp_path, APP)
    (tmp_path / "function.yaml").write_text(
        "spec: {timeout: 5s, scale: {min: 1}}\nfunctions:\n  orders: {scale: {max: 7}}\n  extra: {handler: 'app:not_declared'}\n"
    )
    planned = {each.name: each.document["spec"] for each in plan(tmp_path, Asked(spec={"concurrency": 1}))}
    assert list(planned) == ["nightly", "orders", "plain-one", "extra"]
    assert planned["nightly"]["scale"] == {"min": 1, "max": 20} and planned["orders"]["scale"] == {"min": 1, "max": 7}
    assert {each["concurrency"] for each in planned.values()} == {1} and {
        each["timeout"] for each in planned.values()
    } == {"5s"}
    assert planned["extra"]["handler"] == "app:not_declared"
    (only,) = plan(tmp_path, Asked(name="orders", preview=True))
    assert only.name == "orders-preview" and only.document["metadata"]["labels"] == {
        "faaslite.dev/preview-of": "orders"
    }
    assert "http" in only.document["spec"] and "routes" not in only.document["spec"]["http"]
    assert only.document["spec"]["scale"] == {"min": 0, "max": 7}
    with pytest.raises(BuildError, match="there is no function 'none'; there are nightly"):
        plan(tmp_path, Asked(name="none"))


def test_runtimes_are_told_from_the_files(tmp_path):
    write(tmp_path, "export default () => 1", "index.mjs")
    (planned,) = plan(tmp_path, Asked(name="js"))
    assert planned.document["spec"]["runtime"] == "node" and planned.layer is None
    write(tmp_path, "def handle(event): ...", "main.py")
    (planned,) = plan(tmp_path, Asked(name="py"))
    assert planned.document["spec"]["handler"] == "main:handle" and "runtime" not in planned.document["spec"]
