"""The handler is found by reading, and mistakes are told with file and line."""

import pytest

from faaslite.build.errors import BuildError
from faaslite.build.handler import find_handler


@pytest.mark.parametrize(
    ("files", "asked", "found"),
    [
        ({"handler.py": "def handle(e, c): pass"}, "", "handler:handle"),
        ({"app.py": "import x\napp = x.App()", "lib.py": "y = 1"}, "", "app:app"),
        ({"thing.py": "async def handler(e, c): pass"}, "", "thing:handler"),
        ({"app.py": "def other(): pass"}, "app:other", "app:other"),
        ({"pkg/__init__.py": "", "pkg/web.py": "def handle(): pass"}, "pkg.web", "pkg.web:handle"),
        ({"app.py": "from lib import *"}, "app:made", "app:made"),
        ({"app.py": "try:\n    from a import handle\nexcept ImportError:\n    handle = None"}, "", "app:handle"),
        ({"app.py": "if True:\n    def handle(): pass"}, "", "app:handle"),
    ],
)
def test_finds(tmp_path, files, asked, found):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert find_handler(tmp_path, asked) == found


@pytest.mark.parametrize(
    ("files", "asked", "message"),
    [
        ({}, "", "no Python file"),
        ({"app.py": "def f(:"}, "", r"app\.py:1: "),
        ({"app.py": "x = 1"}, "", "has no handler.*defines x"),
        ({"app.py": "class A:\n    def handle(self): pass"}, "", "has no handler.*defines A"),
        ({"app.py": "def handle(): pass"}, "app:main", "has no 'main'"),
        ({"app.py": "def handle(): pass"}, "web:main", "module 'web' is not in"),
        ({"a.py": "", "b.py": ""}, "", "several modules"),
        ({"app.py": "def handle(): pass\0"}, "", r"app\.py: source"),
        ({"my app.py": "def handle(): pass"}, "", r"my app\.py can't be imported"),
    ],
)
def test_says_what_is_wrong(tmp_path, files, asked, message):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(BuildError, match=message):
        find_handler(tmp_path, asked)


def test_single_files(tmp_path):
    (tmp_path / "one.py").write_text("def handle(): pass")
    assert find_handler(tmp_path / "one.py") == "one:handle"
    with pytest.raises(BuildError, match="is not one.py"):
        find_handler(tmp_path / "one.py", "two:handle")
    (tmp_path / "data.txt").write_text("")
    with pytest.raises(BuildError, match="not a Python file"):
        find_handler(tmp_path / "data.txt")
