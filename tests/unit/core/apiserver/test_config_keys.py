"""Keys of Secrets and ConfigMaps are names of files on a node, which has files of its own there."""

from __future__ import annotations

import pytest

from core.api.kinds import CONFIG_MAP, SECRET
from core.apiserver.registry.config import ConfigMapStrategy, SecretStrategy


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (".", "must not be '.'"),
        ("..", "must not be '..'"),
        ("..data", "must not start with '..'"),
        ("a/b", "a valid config key"),
        ("", "a valid config key"),
        ("é", "a valid config key"),
    ],
)
def test_keys_that_lead_elsewhere(key: str, why: str) -> None:
    for strategy in (SecretStrategy(SECRET), ConfigMapStrategy(CONFIG_MAP)):
        (found,) = strategy.validate({"type": "Opaque", "data": {key: "eA=="}})
        assert why in str(found["message"])


@pytest.mark.parametrize("key", ["a", ".a", "a..b", "A-b_c.d"])
def test_keys_that_are_well(key: str) -> None:
    for strategy in (SecretStrategy(SECRET), ConfigMapStrategy(CONFIG_MAP)):
        assert strategy.validate({"type": "Opaque", "data": {key: "eA=="}}) == []
