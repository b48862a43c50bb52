"""Where dependencies are said."""

import pytest

from faaslite.build.dependencies import declared_text, dependencies_of
from faaslite.build.errors import BuildError
from faaslite.build.installing import reason
from faaslite.build.layer import layer_for

INLINE = "# /// script\n# requires-python = '>=3.11'\n# dependencies = [\n#   'flask',\n# ]\n# ///\nimport flask\n"


def test_the_first_of_metadata_requirements_and_project(tmp_path):
    module = tmp_path / "app.py"
    module.write_text("x = 1")
    assert dependencies_of(tmp_path, module) is None
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = ['numpy>=2', 'x']\nrequires-python = '>=3.12'")
    found = dependencies_of(tmp_path, module)
    assert (found.text, found.source, found.python) == ("numpy>=2\nx", "pyproject.toml", ">=3.12")
    (tmp_path / "more.txt").write_text("b==1 # why\n")
    (tmp_path / "requirements.txt").write_text("-r more.txt\na \\\n  >=2\n./wheels/c.whl\n# no\n")
    found = dependencies_of(tmp_path, module)
    assert found.text.splitlines()[0] == "b==1" and found.text.splitlines()[2] == str(tmp_path / "wheels" / "c.whl")
    module.write_text(INLINE)
    found = dependencies_of(tmp_path, module)
    assert (found.text, found.source, found.python) == ("flask", "app.py", ">=3.11")
    assert dependencies_of(module, module).text == "flask"


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("pyproject.toml", "[project", "pyproject.toml: "),
        ("pyproject.toml", "[project]\ndependencies = 'x'", "dependencies must be a list"),
        ("app.py", INLINE + INLINE, "several blocks"),
        ("requirements.txt", "-r none.txt", "none.txt can't be read"),
    ],
)
def test_what_can_not_be_read(tmp_path, file, text, message):
    (tmp_path / "app.py").write_text("")
    (tmp_path / file).write_text(text)
    with pytest.raises(BuildError, match=message):
        dependencies_of(tmp_path, tmp_path / "app.py")


def test_package_json(tmp_path):
    (tmp_path / "package.json").write_text('{"devDependencies": {"x": "1"}}')
    assert dependencies_of(tmp_path, None, "node") is None
    (tmp_path / "package.json").write_text('{"dependencies": {"x": "1"}}')
    assert dependencies_of(tmp_path, None, "node20").source == "package.json"
    (tmp_path / "package.json").write_text("{")
    with pytest.raises(BuildError, match="package.json"):
        dependencies_of(tmp_path, None, "node")


def test_another_python_is_asked_for(tmp_path):
    module = tmp_path / "app.py"
    module.write_text(INLINE.replace(">=3.11", ">=3.99"))
    with pytest.raises(BuildError, match=r"app.py requires Python >=3.99, the function's runtime is Python 3.12"):
        layer_for(dependencies_of(module, module), tmp_path, print, runtime="python3.12")


def test_installers_are_summed_up():
    pip = [
        "Collecting x",
        "ERROR: Could not find a version that satisfies the requirement x (from versions: none)",
        "ERROR: No matching distribution found for x",
    ]
    assert reason(pip, "3.11").startswith(
        "Could not find a version that satisfies the requirement x (from versions: none); No matching"
    )
    assert "wheels for Python 3.11 on Linux" in reason(pip, "3.11")
    uv = [
        "  × No solution found when resolving dependencies:",
        "  ╰─▶ Because x was not found in the package registry and you require x, we",
        "      can conclude that your requirements are unsatisfiable.",
    ]
    assert reason(uv, "3.12").startswith("No solution found when resolving dependencies: Because x was not found")


def test_what_the_cluster_is_told_names_nothing_of_this_machine(tmp_path):
    folder = tmp_path / "app"
    (folder / "wheels").mkdir(parents=True)
    (folder / "app.py").write_text("")
    (folder / "limits.txt").write_text("")
    (folder / "requirements.txt").write_text(
        "-c limits.txt\n--extra-index-url file:///srv/simple\nsix==1.16.0\n./wheels/c.whl\n"
        f"d[x] @ file://{folder}/wheels/d.whl\n"
    )
    found = dependencies_of(folder, folder / "app.py")
    assert declared_text(found, folder).splitlines() == [
        "# from requirements.txt",
        "-c ./limits.txt",
        "--extra-index-url file:///srv/simple",
        "six==1.16.0",
        "./wheels/c.whl",
        "./wheels/d.whl[x]",
    ]
    for outside in ("../c.whl", f"{tmp_path}/c.whl", f"d @ file://{tmp_path}/d.whl", "-c ../limits.txt"):
        (folder / "requirements.txt").write_text(outside)
        with pytest.raises(
            BuildError, match=r"requirements.txt: .* is not in the folder that is deployed, .*--build local"
        ):
            declared_text(dependencies_of(folder, folder / "app.py"), folder)


def test_script_metadata_says_its_python(tmp_path):
    module = tmp_path / "app.py"
    module.write_text(INLINE)
    assert declared_text(dependencies_of(module, module), module) == "# from app.py\n# requires-python: >=3.11\nflask"
