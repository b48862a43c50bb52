"""What docs/functions.md shows does what it says: its files, run by its test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[3] / "docs" / "functions.md"
ROOT = DOCS.parents[1]


def test_the_app_passes_the_test_beside_it(tmp_path):
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", DOCS.read_text(), re.S)
    assert {name for name, _ in blocks} == {"app.py", "test_app.py"}
    for name, text in blocks:
        (tmp_path / name).write_text(text)
    environment = {**os.environ, "FAASLITE_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_javascript_is_what_the_shim_takes(tmp_path, needs):
    import shutil

    from faaslite.testing import Platform

    needs(shutil.which("node"), "node", "apt-get install nodejs")
    (code,) = re.findall(r"```js\n(.*?)```", DOCS.read_text(), re.S)
    (tmp_path / "index.mjs").write_text(code)
    local = Platform()
    try:
        local.deploy(tmp_path, name="js")
        assert local.call("js", path="/?name=Ada").json == {"hello": "Ada"}
    finally:
        local.close()
