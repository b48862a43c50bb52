"""Where a process looks for what is mounted."""

from __future__ import annotations

import pytest

from core.node.runtime.sandboxer.slots import rewrite


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("/data", "/slot/fs/data"),
        ("/data/x", "/slot/fs/data/x"),
        ("/database", "/database"),
        ("/var/faaslite/package", "/slot/fs/var/faaslite/package"),
        ("/var/faaslite", "/slot/fs/var/faaslite"),
        ("/var", "/var"),
        ("/", "/"),
        ("data", "data"),
    ],
)
def test_values_that_name_a_volume_are_rewritten(value: str, found: str) -> None:
    assert rewrite(value, ["/data", "/var/faaslite/package"], "/slot/fs") == found
