"""Secrets and ConfigMaps as a node knows them: of the namespaces only whose Pods here refer to some."""

from __future__ import annotations

from collections.abc import Callable

from core.api import views
from core.api.kinds import CONFIG_MAP, SECRET
from core.client.informer import Informer, Informers

__all__ = ["ObjectCache"]

OnChange = Callable[[str, str, str], None]
"""(kind, namespace, name); kind is `secret` or `configMap`."""


class ObjectCache:
    """Implements `core.node.env.Objects`. A namespace is watched from the first Pod on that refers to its objects."""

    def __init__(self, informers: Informers, on_change: OnChange) -> None:
        self._informers = informers
        self._on_change = on_change
        self._secrets: dict[str, Informer[views.Secret]] = {}
        self._config_maps: dict[str, Informer[views.ConfigMap]] = {}

    async def ready(self, namespace: str, kinds: set[str]) -> None:
        """Return once those kinds (`secret`, `configMap`) of that namespace are known."""
        if "secret" in kinds and namespace not in self._secrets:
            secrets = self._informers.watch(SECRET, views.Secret, namespace=namespace)
            self._secrets[namespace] = secrets
            secrets.add_handler(lambda old, new: self._changed("secret", old, new))
        if "configMap" in kinds and namespace not in self._config_maps:
            config_maps = self._informers.watch(CONFIG_MAP, views.ConfigMap, namespace=namespace)
            self._config_maps[namespace] = config_maps
            config_maps.add_handler(lambda old, new: self._changed("configMap", old, new))
        if "secret" in kinds:
            await self._secrets[namespace].wait_synced()
        if "configMap" in kinds:
            await self._config_maps[namespace].wait_synced()

    def secret(self, namespace: str, name: str) -> views.Secret | None:
        informer = self._secrets.get(namespace)
        return informer.get(f"{namespace}/{name}") if informer else None

    def config_map(self, namespace: str, name: str) -> views.ConfigMap | None:
        informer = self._config_maps.get(namespace)
        return informer.get(f"{namespace}/{name}") if informer else None

    def _changed(self, kind: str, old: views.ObjectView | None, new: views.ObjectView | None) -> None:
        known = new or old
        if known is not None:
            self._on_change(kind, known.namespace, known.name)
