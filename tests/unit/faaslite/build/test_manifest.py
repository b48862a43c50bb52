"""`function.yaml` with variables."""

import pytest

from faaslite.build.errors import BuildError
from faaslite.build.manifest import read_manifest, substitute


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("${A}", "1"),
        ("${B:-x y}", "x y"),
        ("${B-x}", "x"),
        ("${EMPTY:-x}", "x"),
        ("${EMPTY-x}", ""),
        ("$$A ${A}${A}", "$A 11"),
        ("$A {A}", "$A {A}"),
    ],
)
def test_variables(text, found):
    assert substitute(text, {"A": "1", "EMPTY": ""}) == found


def test_values_are_what_they_would_be_if_they_stood_there(tmp_path):
    file = tmp_path / "function.yaml"
    file.write_text(
        '# ${NOT_SET}\nspec: {scale: {max: ${MAX:-20}}, timeout: "${T:-5}", env: [{name: A, value: "${HOST}"}]}\n'
    )
    spec = read_manifest(tmp_path, {"HOST": "db"})["spec"]
    assert spec == {"scale": {"max": 20}, "timeout": "5", "env": [{"name": "A", "value": "db"}]}
    with pytest.raises(
        BuildError, match=r"function.yaml:2: HOST is not set in the environment; write \$\{HOST:-default\}"
    ):
        read_manifest(tmp_path, {})
    file.write_text("functions: [a]")
    with pytest.raises(BuildError, match="functions must be a map"):
        read_manifest(tmp_path)
