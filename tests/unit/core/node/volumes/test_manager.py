"""Volumes of a Pod, type by type."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from core.api import views
from core.api.volumes import LOCAL_DRIVER
from core.errors import NotFound
from core.node.volumes.base import Prepared, VolumeContext, VolumeError
from core.node.volumes.claim import remove_folder
from core.node.volumes.manager import Volumes, host_path


class Known:
    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, str]] = {}
        self.config_maps: dict[str, dict[str, str]] = {}

    def secret(self, namespace: str, name: str) -> views.Secret | None:
        data = self.secrets.get(name)
        return (
            None
            if data is None
            else views.Secret(data={k: base64.b64encode(v.encode()).decode() for k, v in data.items()})
        )

    def config_map(self, namespace: str, name: str) -> views.ConfigMap | None:
        data = self.config_maps.get(name)
        return None if data is None else views.ConfigMap(data=data)


@pytest.fixture
def known() -> Known:
    return Known()


class Claimed:
    """What the API has of claims and volumes."""

    def __init__(self) -> None:
        self.claims: dict[str, views.PersistentVolumeClaim] = {}
        self.volumes: dict[str, views.PersistentVolume] = {}

    async def claim(self, namespace: str, name: str) -> views.PersistentVolumeClaim:
        if name not in self.claims:
            raise NotFound(f'persistentvolumeclaims "{name}" not found')
        return self.claims[name]

    async def volume(self, name: str) -> views.PersistentVolume:
        if name not in self.volumes:
            raise NotFound(f'persistentvolumes "{name}" not found')
        return self.volumes[name]

    def bind(self, name: str, source: dict[str, Any], *, owner: str = "", **more: Any) -> None:
        meta: dict[str, Any] = {"name": name, "namespace": "ns", "uid": f"uid-{name}"}
        if owner:
            meta["ownerReferences"] = [{"kind": "Pod", "name": "p", "uid": owner, "controller": True}]
        claim = {"metadata": meta, "spec": {"volumeName": f"pv-{name}"}, "status": {"phase": "Bound"}}
        self.claims[name] = msgspec.convert(claim, views.PersistentVolumeClaim)
        spec = {"claimRef": {"uid": f"uid-{name}"}, "accessModes": ["ReadWriteOnce"], **source, **more}
        volume = {"metadata": {"name": f"pv-{name}"}, "spec": spec}
        self.volumes[f"pv-{name}"] = msgspec.convert(volume, views.PersistentVolume)


@pytest.fixture
def claims() -> Claimed:
    return Claimed()


@pytest.fixture
def volumes(tmp_path: Path, known: Known, claims: Claimed) -> Volumes:
    return Volumes(tmp_path / "pods", VolumeContext(known, "5.6.7.8", {"cpu": "2"}, {}, claims, tmp_path / "volumes"))


def pod(*found: dict[str, Any]) -> views.Pod:
    metadata = {"name": "p", "namespace": "ns", "uid": "u", "labels": {"a": "b"}}
    containers = [{"name": "c", "resources": {"limits": {"cpu": "1"}}}]
    return msgspec.convert(
        {"metadata": metadata, "spec": {"volumes": list(found), "containers": containers}}, views.Pod
    )


async def test_empty_dir_is_anybodys_and_goes_with_the_pod(volumes: Volumes, tmp_path: Path) -> None:
    one = pod({"name": "v", "emptyDir": {}})
    path = (await volumes.prepare(one))["v"].path
    assert path.stat().st_mode & 0o777 == 0o777
    (path / "x").write_text("kept")
    assert (await volumes.prepare(one))["v"].path.joinpath("x").read_text() == "kept"
    await volumes.release(one)
    assert not (tmp_path / "pods" / "u").exists()


def mounted(*mounts: dict[str, Any], **source: str) -> views.Pod:
    """A Pod with a volume in memory, and a container for each of `mounts`."""
    containers = [{"name": f"c{number}", "volumeMounts": [mount]} for number, mount in enumerate(mounts)]
    volume = {"name": "v", "emptyDir": {"medium": "Memory", **source}}
    metadata = {"name": "p", "namespace": "ns", "uid": "u"}
    return msgspec.convert({"metadata": metadata, "spec": {"volumes": [volume], "containers": containers}}, views.Pod)


async def test_a_folder_in_memory_is_the_runtimes(volumes: Volumes, tmp_path: Path) -> None:
    here = {"name": "v", "mountPath": "/tmp"}
    assert (await volumes.prepare(mounted(here)))["v"].scratch == 512 << 20
    assert (await volumes.prepare(mounted(here, sizeLimit="1Mi")))["v"].scratch == 1 << 20
    assert not (tmp_path / "pods" / "u").exists()
    with pytest.raises(VolumeError, match="lots"):
        await volumes.prepare(mounted(here, sizeLimit="lots"))


async def test_a_folder_in_memory_that_is_shared_lies_on_disk(volumes: Volumes) -> None:
    here = {"name": "v", "mountPath": "/tmp"}
    for one in (mounted(here, here), mounted({**here, "subPath": "a"})):
        found = (await volumes.prepare(one))["v"]
        assert found.scratch == 0 and found.path.is_dir()


async def test_secret_files_and_modes(volumes: Volumes, known: Known) -> None:
    known.secrets["s"] = {"a": "1", "b": "2"}
    found = await volumes.prepare(
        pod({"name": "all", "secret": {"secretName": "s", "defaultMode": 0o400}},
            {"name": "some", "secret": {"secretName": "s", "items": [{"key": "b", "path": "deep/er", "mode": 0o440}]}})
    )  # fmt: skip
    assert {each: (found["all"].path / each).read_text() for each in ("a", "b")} == {"a": "1", "b": "2"}
    assert (found["all"].path / "a").stat().st_mode & 0o777 == 0o400
    assert (found["some"].path / "deep/er").read_text() == "2"
    assert (found["some"].path / "deep/er").stat().st_mode & 0o777 == 0o440
    assert sorted(each for each in os.listdir(found["some"].path) if not each.startswith("..")) == ["deep"]
    assert found["all"].read_only


async def test_updates_are_one_rename(volumes: Volumes, known: Known) -> None:
    known.config_maps["m"] = {"a": "1", "gone": "x"}
    one = pod({"name": "v", "configMap": {"name": "m"}})
    path = (await volumes.prepare(one))["v"].path
    before = os.readlink(path / "..data")
    opened = os.open(path / "..data", os.O_PATH)
    await volumes.refresh(one)
    assert os.readlink(path / "..data") == before  # nothing changed: nothing written
    known.config_maps["m"] = {"a": "2", "new": "y"}
    await volumes.refresh(one)
    os.close(opened)
    assert (path / "a").read_text() == "2"
    assert sorted(each for each in os.listdir(path) if not each.startswith("..")) == ["a", "new"]
    assert len([each for each in os.listdir(path) if each.startswith("..")]) == 2


async def test_a_source_that_vanishes_leaves_the_files(volumes: Volumes, known: Known) -> None:
    known.secrets["s"] = {"a": "1"}
    one = pod({"name": "v", "secret": {"secretName": "s"}})
    path = (await volumes.prepare(one))["v"].path
    del known.secrets["s"]
    await volumes.refresh(one)
    assert (path / "a").read_text() == "1"


async def test_projected_and_downward(volumes: Volumes, known: Known) -> None:
    known.secrets["s"], known.config_maps["m"] = {"k": "1"}, {"l": "2"}
    items = [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
             {"path": "cpu", "resourceFieldRef": {"containerName": "c", "resource": "limits.cpu", "divisor": "1m"}}]  # fmt: skip
    sources = [{"secret": {"name": "s"}}, {"configMap": {"name": "m"}}, {"downwardAPI": {"items": items}}]
    found = await volumes.prepare(
        pod({"name": "v", "projected": {"sources": sources}}, {"name": "d", "downwardAPI": {"items": items}})
    )
    assert {each: (found["v"].path / each).read_text() for each in ("k", "l", "labels", "cpu")} == {
        "k": "1",
        "l": "2",
        "labels": 'a="b"',
        "cpu": "1000",
    }
    assert (found["d"].path / "labels").read_text() == 'a="b"'


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"secret": {"secretName": "none"}}, 'secret "none" not found'),
        ({"configMap": {"name": "none"}}, 'configmap "none" not found'),
        ({"csi": {"driver": "none"}}, "no CSI driver 'none'"),
        ({"hostPath": {"path": "/none-such", "type": "Directory"}}, "isn't a directory"),
        ({"hostPath": {"path": "relative"}}, "isn't absolute"),
        ({"persistentVolumeClaim": {"claimName": "x"}}, 'persistentvolumeclaims "x" not found'),
        ({"nfs": {"server": "x"}}, "doesn't serve its type"),
        ({"projected": {"sources": [{"serviceAccountToken": {}}]}}, "serviceAccountToken"),
        (
            {"downwardAPI": {"items": [{"path": "../x", "fieldRef": {"fieldPath": "metadata.name"}}]}},
            "leave the volume",
        ),
    ],
)
async def test_what_can_not_be_had_is_said(volumes: Volumes, volume: dict[str, Any], message: str) -> None:
    with pytest.raises(VolumeError, match=message):
        await volumes.prepare(pod({"name": "v", **volume}))


async def test_optional_sources_are_empty(volumes: Volumes) -> None:
    found = await volumes.prepare(pod({"name": "v", "secret": {"secretName": "none", "optional": True}}))
    assert [each for each in os.listdir(found["v"].path) if not each.startswith("..")] == []


async def test_host_path_is_made_where_asked(volumes: Volumes, tmp_path: Path) -> None:
    wanted = tmp_path / "made"
    await volumes.prepare(pod({"name": "v", "hostPath": {"path": str(wanted), "type": "DirectoryOrCreate"}}))
    assert wanted.is_dir()


def test_sub_paths_stay_inside(tmp_path: Path) -> None:
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "out").symlink_to("/etc")
    prepared = Prepared(tmp_path / "v")
    assert host_path(prepared, "a/b") == str(tmp_path / "v/a/b")
    assert (tmp_path / "v/a/b").is_dir()
    for bad in ("../x", "/etc", "out", "out/passwd"):
        with pytest.raises(VolumeError):
            host_path(prepared, bad)


def test_sources_of_a_pod() -> None:
    found = msgspec.convert(
        {
            "spec": {
                "volumes": [
                    {"name": "a", "secret": {"secretName": "s1"}},
                    {"name": "b", "projected": {"sources": [{"configMap": {"name": "m1"}}]}},
                ],
                "containers": [
                    {
                        "envFrom": [{"secretRef": {"name": "s2"}}],
                        "env": [{"name": "x", "valueFrom": {"configMapKeyRef": {"name": "m2", "key": "k"}}}],
                    }
                ],
            }
        },
        views.Pod,
    )
    assert Volumes.sources(found) == {("secret", "s1"), ("configMap", "m1"), ("secret", "s2"), ("configMap", "m2")}


async def test_folders_of_others_are_removed(volumes: Volumes, tmp_path: Path) -> None:
    await volumes.prepare(pod({"name": "v", "emptyDir": {}}))
    (tmp_path / "pods" / "gone").mkdir()
    assert await volumes.remove_others(lambda: {"u"}) == ["gone"]
    assert os.listdir(tmp_path / "pods") == ["u"]


def claiming(name: str, **source: Any) -> views.Pod:
    return pod({"name": "v", "persistentVolumeClaim": {"claimName": name, **source}})


async def test_a_claims_folder_outlives_the_pod_until_it_is_reclaimed(
    volumes: Volumes, claims: Claimed, tmp_path: Path
) -> None:
    claims.bind("data", {"csi": {"driver": LOCAL_DRIVER, "volumeHandle": "pvc-1"}})
    found = (await volumes.prepare(claiming("data")))["v"]
    assert found == Prepared(tmp_path / "volumes" / "pvc-1") and found.path.stat().st_mode & 0o777 == 0o777
    (found.path / "x").write_text("kept")
    await volumes.release(claiming("data"))
    again = (await volumes.prepare(claiming("data", readOnly=True)))["v"]
    assert again.read_only and (again.path / "x").read_text() == "kept"
    for _ in range(2):
        await remove_folder(tmp_path / "volumes", "pvc-1")
        assert not found.path.exists()
    with pytest.raises(VolumeError, match="no name"):
        await remove_folder(tmp_path / "volumes", "../pods")


async def test_a_claim_of_a_path_of_the_node(volumes: Volumes, claims: Claimed, tmp_path: Path) -> None:
    claims.bind("made", {"hostPath": {"path": str(tmp_path / "made"), "type": ""}})
    assert (await volumes.prepare(claiming("made")))["v"].path == tmp_path / "made"
    assert (tmp_path / "made").is_dir()
    claims.bind("there", {"local": {"path": str(tmp_path)}}, accessModes=["ReadOnlyMany"])
    assert (await volumes.prepare(claiming("there")))["v"] == Prepared(tmp_path, read_only=True)


async def test_a_pods_own_claim_must_be_its_own(volumes: Volumes, claims: Claimed) -> None:
    own = pod({"name": "v", "ephemeral": {"volumeClaimTemplate": {}}})
    local = {"csi": {"driver": LOCAL_DRIVER, "volumeHandle": "pvc-2"}}
    claims.bind("p-v", local, owner="u")
    assert (await volumes.prepare(own))["v"].path.is_dir()
    claims.bind("p-v", local, owner="another")
    with pytest.raises(VolumeError, match="pod is not owner"):
        await volumes.prepare(own)


async def test_claims_that_can_not_be_had(volumes: Volumes, claims: Claimed) -> None:
    claims.bind("pending", {"local": {"path": "/x"}})
    claims.claims["pending"].status.phase = "Pending"
    claims.bind("block", {"local": {"path": "/x"}, "volumeMode": "Block"})
    claims.bind("stolen", {"local": {"path": "/x"}, "claimRef": {"uid": "another"}})
    claims.bind("far", {"csi": {"driver": "ebs.csi.aws.com", "volumeHandle": "v"}})
    claims.bind("out", {"csi": {"driver": LOCAL_DRIVER, "volumeHandle": "../pods"}})
    for name, said in (("pending", "is not bound"), ("block", "volumeMode Block"), ("stolen", "another claim"), ("far", "doesn't serve its type"), ("out", "no name")):  # fmt: skip
        with pytest.raises(VolumeError, match=said):
            await volumes.prepare(claiming(name))
