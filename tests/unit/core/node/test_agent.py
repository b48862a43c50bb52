"""The agent against a fake runtime and an API in memory: what becomes of Pods."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from core.client.readiness import Hint, HintListener, HintSender
from core.clock import parse_time, wall
from core.node import pod_worker
from core.node.runtime.base import AddressInUse, ContainerSpec, RuntimeFailure, SandboxInfo, SandboxSpec
from core.node.runtime.fake import (
    Behaviour,
    CrashingRuntime,
    DeafRuntime,
    DownRuntime,
    FakeRuntime,
    HalfwayRuntime,
    MuteRuntime,
    NoImagesRuntime,
    StuckRuntime,
    WarmRuntime,
)

NODE = "/api/v1/nodes/n1"


async def test_registers_node_lease_and_isolation(cluster: Any) -> None:
    await cluster.agent(
        FakeRuntime(), labels={"zone": "a"}, taints=[{"key": "k", "effect": "NoSchedule"}], pod_cidr="10.1.0.0/16"
    )
    node = await cluster.api.until(lambda: cluster.api.objects[NODE] if "status" in cluster.api.objects[NODE] else None)
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "n1"
    assert node["metadata"]["labels"]["zone"] == "a"
    assert node["spec"] == {
        "taints": [{"key": "k", "effect": "NoSchedule"}],
        "podCIDR": "10.1.0.0/16",
        "podCIDRs": ["10.1.0.0/16"],
    }
    assert node["status"]["nodeInfo"]["containerRuntimeVersion"] == "fake://0.1"
    assert node["status"]["allocatable"] == {"cpu": "2", "memory": "4Gi", "pods": "100"}
    conditions = {each["type"]: each["status"] for each in node["status"]["conditions"]}
    assert conditions["Ready"] == "True"
    assert conditions["PodIsolation"] == "False"
    assert set(conditions) == {"Ready", "PodIsolation", "MemoryPressure", "DiskPressure", "PIDPressure"}
    assert len(node["status"]["nodeInfo"]["bootID"]) == 36
    lease = cluster.api.objects["/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"]
    assert lease["spec"]["holderIdentity"] == "n1"
    assert lease["metadata"]["ownerReferences"][0]["uid"] == node["metadata"]["uid"]


async def test_pod_becomes_ready_and_is_deleted(cluster: Any) -> None:
    runtime = FakeRuntime()
    await cluster.agent(runtime)
    path = cluster.pod()
    status = await cluster.until_ready(path)
    assert status["phase"] == "Running"
    assert status["podIP"].startswith("10.")
    assert status["hostIP"] == "127.0.0.1"
    assert status["containerStatuses"][0]["containerID"].startswith("fake://")
    assert "running" in status["containerStatuses"][0]["state"]
    cluster.api.delete_gracefully(path, 30)
    await cluster.until_gone(path)
    assert not await runtime.list()
    calls = [call for call, _ in runtime.calls]
    assert calls.index("stop_container") < calls.index("remove_sandbox")


async def test_ready_event_is_one_status_write_on_the_fast_path(cluster: Any) -> None:
    runtime = WarmRuntime()
    await cluster.agent(runtime)
    path = cluster.pod(
        containers=[
            {
                "name": "main",
                "image": "i",
                "readinessProbe": {"httpGet": {"port": 1}},
                "startupProbe": {"httpGet": {"port": 1}},
            }
        ]
    )
    await cluster.until_ready(path)
    writes = [each for each in cluster.api.requests if each == ("PATCH", f"{path}/status")]
    assert len(writes) == 1
    assert ("create_sandbox", "a") in runtime.calls


async def test_readiness_is_hinted_while_the_api_does_not_answer_yet(cluster: Any) -> None:
    hints: asyncio.Queue[Hint] = asyncio.Queue()
    listener = HintListener(cluster.tmp, "g", hints.put_nowait)
    listener.start()
    cluster.stack.callback(listener.stop)
    runtime = WarmRuntime()
    await cluster.agent(runtime, hints=HintSender(cluster.tmp))
    cluster.api.gate.clear()
    path = cluster.pod()
    async with asyncio.timeout(30):
        hint = await hints.get()
    assert not cluster.ready(path)
    assert (hint.pod, hint.uid) == ("default/a", "uid-a")
    cluster.api.gate.set()
    await cluster.api.until(lambda: cluster.status(path)["podIP"] == hint.address and cluster.ready(path))
    runtime.finish(runtime.container("uid-a", "main").id, 1)
    async with asyncio.timeout(30):
        assert (await hints.get()).address == ""


async def test_an_announcement_is_told_once_all_probes_have_heard_of_it(
    cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[bool, bool]] = []
    make = pod_worker.pod_status

    def status(*given: Any, **named: Any) -> dict[str, Any]:
        found = make(*given, **named)
        made.append((found["containerStatuses"][0]["started"], found["containerStatuses"][0]["ready"]))
        return found

    monkeypatch.setattr(pod_worker, "pod_status", status)
    await cluster.agent(WarmRuntime())
    probe = {"httpGet": {"port": 1}}
    container = {"name": "main", "image": "i", "readinessProbe": probe, "startupProbe": probe}
    await cluster.until_ready(cluster.pod(containers=[container]))
    assert (True, True) in made and (True, False) not in made


async def test_the_runtime_is_at_work_before_a_status_is_made(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    make = pod_worker.pod_status

    def status(*given: Any, **named: Any) -> dict[str, Any]:
        order.append("status")
        return make(*given, **named)

    class Asked(WarmRuntime):
        async def run_pod(self, sandbox: SandboxSpec, containers: Sequence[ContainerSpec]) -> SandboxInfo | None:
            order.append("asked")
            return await super().run_pod(sandbox, containers)

    monkeypatch.setattr(pod_worker, "pod_status", status)
    await cluster.agent(Asked())
    await cluster.until_ready(cluster.pod())
    assert order[0] == "asked" and "status" in order


async def test_status_writes_are_never_two_in_flight_and_the_latest_wins(cluster: Any) -> None:
    runtime = MuteRuntime()
    await cluster.agent(runtime)
    path = cluster.pod(containers=[{"name": "main", "image": "i", "readinessProbe": {"exec": {"command": ["no"]}}}])
    runtime.exec_results[("no",)] = (1, b"")
    await cluster.until_phase(path, "Running")
    cluster.api.gate.clear()
    container = runtime.container("uid-a", "main").id
    before = len([each for each in cluster.api.requests if each[1] == f"{path}/status"])
    for _ in range(5):
        runtime.announce(container)
    await asyncio.sleep(0)
    cluster.api.gate.set()
    await cluster.until_ready(path)
    assert len([each for each in cluster.api.requests if each[1] == f"{path}/status"]) == before + 1


async def test_crash_restarts_at_once_and_then_backs_off(cluster: Any) -> None:
    runtime = CrashingRuntime()
    await cluster.agent(runtime)
    path = cluster.pod()
    status = await cluster.api.until(
        lambda: (
            cluster.status(path)
            if "waiting" in cluster.state(path) and cluster.state(path)["waiting"]["reason"] == "CrashLoopBackOff"
            else None
        )
    )
    found = status["containerStatuses"][0]
    assert found["restartCount"] == 1
    assert found["lastState"]["terminated"]["exitCode"] == 1
    assert found["lastState"]["terminated"]["reason"] == "Error"
    assert [name for call, name in runtime.calls if call == "start_container"] == [
        "sandbox-1-main-0",
        "sandbox-1-main-1",
    ]
    assert not cluster.ready(path)


async def test_job_like_pod_succeeds_and_its_sandbox_goes(cluster: Any) -> None:
    runtime = FakeRuntime(lambda spec: Behaviour(exit_after=0.0))
    await cluster.agent(runtime)
    path = cluster.pod(restartPolicy="Never")
    status = await cluster.until_phase(path, "Succeeded")
    assert status["containerStatuses"][0]["state"]["terminated"]["reason"] == "Completed"
    ready = next(each for each in status["conditions"] if each["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "PodCompleted")
    await cluster.api.until(lambda: ("remove_sandbox", "sandbox-1") in runtime.calls)


async def test_oom_and_message_from_the_log(cluster: Any) -> None:
    runtime = FakeRuntime(lambda spec: Behaviour(exit_after=0.0, exit_code=137, oom_killed=True, output="one\ntwo"))
    await cluster.agent(runtime)
    path = cluster.pod(
        restartPolicy="Never",
        containers=[{"name": "main", "image": "i", "terminationMessagePolicy": "FallbackToLogsOnError"}],
    )
    status = await cluster.until_phase(path, "Failed")
    ended = status["containerStatuses"][0]["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"], ended["message"]) == ("OOMKilled", 137, "one\ntwo")


async def test_init_containers_run_in_order(cluster: Any) -> None:
    runtime = FakeRuntime(lambda spec: Behaviour(exit_after=0.0 if spec.name.startswith("init") else None))
    await cluster.agent(runtime)
    path = cluster.pod(initContainers=[{"name": "init1", "image": "i"}, {"name": "init2", "image": "i"}])
    status = await cluster.until_ready(path)
    assert [name for call, name in runtime.calls if call == "create_container"] == ["init1", "init2", "main"]
    assert all(each["state"]["terminated"]["exitCode"] == 0 for each in status["initContainerStatuses"])


async def test_failed_init_container_fails_a_pod_that_never_restarts(cluster: Any) -> None:
    runtime = FakeRuntime(lambda spec: Behaviour(exit_after=0.0, exit_code=1))
    await cluster.agent(runtime)
    path = cluster.pod(restartPolicy="Never", initContainers=[{"name": "init", "image": "i"}])
    status = await cluster.until_phase(path, "Failed")
    assert next(each for each in status["conditions"] if each["type"] == "Ready")["status"] == "False"
    assert ("create_container", "main") not in runtime.calls


async def test_image_that_can_not_be_pulled(cluster: Any) -> None:
    runtime = NoImagesRuntime()
    await cluster.agent(runtime)
    path = cluster.pod()
    waiting = await cluster.api.until(
        lambda: cluster.state(path)["waiting"] if cluster.state(path)["waiting"]["reason"] == "ErrImagePull" else None
    )
    assert "no registry answers" in waiting["message"]
    waiting = await cluster.api.until(
        lambda: (
            cluster.state(path)["waiting"] if cluster.state(path)["waiting"]["reason"] == "ImagePullBackOff" else None
        )
    )
    assert waiting["message"].startswith('Back-off pulling image "busybox"')


async def test_pull_policy_never(cluster: Any) -> None:
    runtime = FakeRuntime(images=["here"])
    await cluster.agent(runtime)
    here = cluster.pod("here", containers=[{"name": "main", "image": "here", "imagePullPolicy": "Never"}])
    gone = cluster.pod("gone", containers=[{"name": "main", "image": "gone", "imagePullPolicy": "Never"}])
    await cluster.until_ready(here)
    await cluster.api.until(lambda: cluster.state(gone)["waiting"]["reason"] == "ErrImageNeverPull")
    assert not any(call == "pull_image" for call, _ in runtime.calls)


async def test_missing_secret_is_waited_for_and_found_by_its_event(cluster: Any) -> None:
    runtime = FakeRuntime()
    await cluster.agent(runtime)
    env = [{"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    path = cluster.pod(containers=[{"name": "main", "image": "i", "env": env}])
    waiting = await cluster.api.until(
        lambda: (
            cluster.state(path)["waiting"]
            if cluster.state(path)["waiting"]["reason"] == "CreateContainerConfigError"
            else None
        )
    )
    assert waiting["message"] == 'secret "s" not found'
    secret = {"metadata": {"name": "s", "namespace": "default"}, "data": {"k": base64.b64encode(b"v").decode()}}
    begin = wall()
    cluster.api.put("/api/v1/namespaces/default/secrets/s", secret)
    await cluster.until_ready(path)
    assert wall() - begin < 0.9  # before the timer of the retry
    assert runtime.spec(runtime.container("uid-a", "main").id).env["KEY"] == "v"


async def test_active_deadline(cluster: Any) -> None:
    await cluster.agent(FakeRuntime())
    path = cluster.pod(activeDeadlineSeconds=1)
    status = await cluster.until_phase(path, "Failed")
    assert status["reason"] == "DeadlineExceeded"
    await cluster.api.until(lambda: "terminated" in cluster.state(path))


async def test_deletion_outdates_a_creation_that_never_ends(cluster: Any) -> None:
    runtime = StuckRuntime()
    await cluster.agent(runtime)
    path = cluster.pod()
    await cluster.api.until(lambda: cluster.state(path)["waiting"]["reason"] == "ContainerCreating")
    cluster.api.delete_gracefully(path, 30)
    await cluster.until_gone(path)
    assert not await runtime.list()


async def test_half_made_sandboxes_are_removed_before_the_next_try(cluster: Any) -> None:
    runtime = HalfwayRuntime()
    await cluster.agent(runtime)
    path = cluster.pod()
    waiting = await cluster.api.until(
        lambda: (
            cluster.state(path)["waiting"]
            if cluster.state(path)["waiting"]["reason"] == "CreatePodSandboxError"
            else None
        )
    )
    assert waiting["message"] == "the address could not be set"
    assert not await runtime.list()


class Refusing(FakeRuntime):
    """What its `refuses` names fails."""

    refuses = ""

    async def create_container(self, sandbox_id: str, spec: ContainerSpec) -> str:
        if self.refuses == "create":
            raise RuntimeFailure("the folder is full")
        return await super().create_container(sandbox_id, spec)

    async def start_container(self, container_id: str) -> None:
        if self.refuses == "start":
            raise RuntimeFailure("exec: there is no such command")
        await super().start_container(container_id)


@pytest.mark.parametrize(("refuses", "reason"), [("create", "CreateContainerError"), ("start", "RunContainerError")])
async def test_what_a_runtime_fails_at_is_said_as_the_kubelet_says_it(cluster: Any, refuses: str, reason: str) -> None:
    runtime = Refusing()
    runtime.refuses = refuses
    await cluster.agent(runtime)
    path = cluster.pod()
    waiting = await cluster.api.until(
        lambda: each if (each := cluster.state(path)["waiting"])["reason"] == reason else None
    )
    assert waiting["message"] in ("the folder is full", "exec: there is no such command")


async def test_a_second_deletion_with_less_grace_cuts_the_first_short(cluster: Any) -> None:
    runtime = DeafRuntime()
    await cluster.agent(runtime)
    path = cluster.pod()
    await cluster.until_ready(path)
    cluster.api.delete_gracefully(path, 600)
    await runtime.until_called("stop_container")
    cluster.api.delete_gracefully(path, 1)
    await cluster.until_gone(path)


async def test_object_removed_from_the_api_takes_its_sandbox_along(cluster: Any) -> None:
    runtime = DeafRuntime()
    agent = await cluster.agent(runtime)
    path = cluster.pod()
    await cluster.until_ready(path)
    cluster.api.remove(path)
    await runtime.until_called("remove_sandbox")
    async with asyncio.timeout(30):
        await agent.idle.wait()
    assert not await runtime.list()
    assert not (cluster.tmp / "node/pods/uid-a").exists()


async def test_pre_stop_hook_runs_before_the_stop(cluster: Any) -> None:
    runtime = FakeRuntime()
    await cluster.agent(runtime)
    path = cluster.pod(
        containers=[{"name": "main", "image": "i", "lifecycle": {"preStop": {"exec": {"command": ["bye"]}}}}]
    )
    await cluster.until_ready(path)
    cluster.api.delete_gracefully(path, 30)
    await cluster.until_gone(path)
    calls = [call for call, _ in runtime.calls]
    assert calls.index("exec") < calls.index("stop_container")


async def test_failing_liveness_restarts_the_container(cluster: Any) -> None:
    runtime = FakeRuntime()
    runtime.exec_results[("alive",)] = (0, b"")
    await cluster.agent(runtime)
    probe = {"exec": {"command": ["alive"]}, "periodSeconds": 1, "failureThreshold": 1}
    path = cluster.pod(containers=[{"name": "main", "image": "i", "livenessProbe": probe}])
    await cluster.until_ready(path)
    await runtime.until_called("exec")
    runtime.exec_results[("alive",)] = (1, b"stuck")
    await cluster.api.until(lambda: cluster.status(path)["containerStatuses"][0]["restartCount"] == 1)
    runtime.exec_results[("alive",)] = (0, b"")
    await cluster.until_ready(path)


async def test_a_restarted_agent_finds_its_pods_and_restarts_nothing(cluster: Any) -> None:
    runtime = MuteRuntime()
    probe = {"exec": {"command": ["x"]}, "periodSeconds": 60}
    first = await cluster.agent(runtime)
    path = cluster.pod(containers=[{"name": "main", "image": "i", "readinessProbe": probe}])
    before = await cluster.until_ready(path)
    await first.stop()
    runtime.exec_results[("x",)] = (1, b"")  # a readiness that was reached isn't lost by the restart itself
    cluster.api.objects[path]["status"]["podIP"] = "lost"
    second = await cluster.agent(runtime)
    await cluster.api.until(lambda: cluster.status(path)["podIP"] != "lost")
    assert cluster.ready(path)
    after = cluster.status(path)
    assert after["containerStatuses"] == before["containerStatuses"]
    assert [call for call, _ in runtime.calls].count("start_container") == 1
    await second.stop()


async def test_a_container_is_added_to_a_pod_that_runs(cluster: Any) -> None:
    runtime = FakeRuntime(lambda spec: Behaviour(ready_after=None, exit_after=0.05 if spec.added else None, exit_code=4))  # fmt: skip
    first = await cluster.agent(runtime)
    path = cluster.pod()
    await cluster.until_ready(path)
    document = cluster.api.objects[path]
    added = {"name": "tool", "image": "busybox", "targetContainerName": "main", "stdin": True}
    cluster.api.put(path, {**document, "spec": {**document["spec"], "ephemeralContainers": [added]}})

    def state() -> Any:
        (found,) = cluster.status(path)["ephemeralContainerStatuses"]
        return found["state"]

    await cluster.api.until(lambda: state().get("terminated", {}).get("exitCode") == 4)
    assert cluster.ready(path) and cluster.status(path)["containerStatuses"][0]["restartCount"] == 0
    source = first.log_source("default", "a", "tool", False)
    assert source.ended.is_set() and source.file.parts[-2:] == ("tool", "0.log")
    await first.stop()
    second = await cluster.agent(runtime)
    await cluster.api.until(lambda: second.running_pods)
    assert [call for call, _ in runtime.calls].count("start_container") == 2
    await second.stop()


async def test_a_pod_that_died_while_no_agent_ran_is_restarted(cluster: Any) -> None:
    runtime = FakeRuntime()
    first = await cluster.agent(runtime)
    path = cluster.pod()
    await cluster.until_ready(path)
    await first.stop()
    await runtime.remove_sandbox("sandbox-1")
    await cluster.agent(runtime)
    await cluster.api.until(
        lambda: cluster.ready(path) and cluster.status(path)["containerStatuses"][0]["restartCount"] == 1
    )


async def test_orphans_are_removed_after_the_first_sync(cluster: Any) -> None:
    runtime = FakeRuntime()
    first = await cluster.agent(runtime)
    gone, kept = cluster.pod("gone"), cluster.pod("kept")
    await cluster.until_ready(gone)
    await cluster.until_ready(kept)
    await first.stop()
    del cluster.api.objects[gone]
    await cluster.agent(runtime)
    await runtime.until_called("remove_sandbox")
    assert [each.name for each in await runtime.list()] == ["kept"]


async def test_addresses_are_assigned_where_the_runtime_has_none(cluster: Any) -> None:
    runtime = FakeRuntime(assigns_addresses=False)
    await cluster.agent(runtime, pod_cidr="127.65.0.0/16")
    a, b = cluster.pod("a"), cluster.pod("b")
    first = ip_address((await cluster.until_ready(a))["podIP"])
    assert first in ip_network("127.65.0.0/16")
    assert ip_address((await cluster.until_ready(b))["podIP"]) == first + 1
    cluster.api.delete_gracefully(a, 0)
    await cluster.until_gone(a)
    assert ip_address((await cluster.until_ready(cluster.pod("c")))["podIP"]) == first + 2


class CrowdedRuntime(WarmRuntime):
    """Somebody else has the first two addresses that it is given."""

    def __init__(self) -> None:
        super().__init__(assigns_addresses=False)
        self.tried: list[str] = []

    async def run_pod(self, sandbox: SandboxSpec, containers: Sequence[ContainerSpec]) -> SandboxInfo | None:
        self.tried.append(sandbox.address)
        if len(self.tried) < 3:
            raise AddressInUse(f"can't listen on {sandbox.address}")
        return await super().run_pod(sandbox, containers)


async def test_a_pod_takes_another_address_where_its_own_is_taken(cluster: Any) -> None:
    runtime = CrowdedRuntime()
    await cluster.agent(runtime, pod_cidr="127.65.0.0/16")
    address = (await cluster.until_ready(cluster.pod()))["podIP"]
    assert runtime.tried[-1] == address
    assert len(set(runtime.tried)) == 3


async def test_lost_events_are_made_up_for_by_the_list(cluster: Any) -> None:
    runtime = FakeRuntime()
    await cluster.agent(runtime)
    path = cluster.pod(restartPolicy="Never")
    await cluster.until_ready(path)
    container = runtime._containers[runtime.container("uid-a", "main").id]
    from dataclasses import replace

    from core.node.runtime.base import ContainerState

    container.info = replace(
        container.info, state=ContainerState.EXITED, exit_code=3, finished_at=wall()
    )  # and nobody says so
    runtime.lose_events()
    status = await cluster.until_phase(path, "Failed")
    assert status["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3


async def test_node_is_not_ready_while_the_runtime_is_down(cluster: Any) -> None:
    runtime = DownRuntime()
    runtime.up = True
    agent = await cluster.agent(runtime)
    await cluster.api.until(lambda: "status" in cluster.api.objects[NODE])

    def ready() -> dict[str, str]:
        return next(each for each in cluster.api.objects[NODE]["status"]["conditions"] if each["type"] == "Ready")

    runtime.up = False
    await agent.heartbeat.beat(wall())
    assert ready()["status"] == "False"
    assert "the engine doesn't answer" in ready()["message"]
    runtime.up = True
    await agent.heartbeat.beat(wall())
    assert ready()["status"] == "True"


async def test_node_that_was_deleted_is_registered_again(cluster: Any) -> None:
    agent = await cluster.agent(FakeRuntime())
    await cluster.api.until(lambda: "status" in cluster.api.objects[NODE])
    cluster.api.remove(NODE)
    await agent.heartbeat.beat(wall() + 1000)
    assert cluster.api.objects[NODE]["status"]["conditions"]


async def test_heartbeat_renews_the_lease_and_leaves_the_status_alone(cluster: Any) -> None:
    agent = await cluster.agent(FakeRuntime())
    await cluster.api.until(lambda: "status" in cluster.api.objects[NODE])
    count = cluster.api.requests.count(("PATCH", f"{NODE}/status"))
    now = wall() + 10
    await agent.heartbeat.beat(now)
    lease = cluster.api.objects["/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"]
    assert parse_time(lease["spec"]["renewTime"]) == pytest.approx(now, abs=0.01)
    assert cluster.api.requests.count(("PATCH", f"{NODE}/status")) == count


async def test_status_survives_an_api_that_is_away(cluster: Any) -> None:
    runtime = MuteRuntime()
    await cluster.agent(runtime)
    path = cluster.pod()
    await cluster.until_ready(path)
    cluster.api.down = True
    runtime.finish(runtime.container("uid-a", "main").id, 7)
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.3, setattr, cluster.api, "down", False)
    await cluster.api.until(
        lambda: cluster.status(path)["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 7
    )


async def test_a_status_that_a_crash_of_the_api_took_back_is_posted_again(cluster: Any) -> None:
    await cluster.agent(FakeRuntime())
    path = cluster.pod()
    bound = json.loads(json.dumps(cluster.api.objects[path]))
    await cluster.until_ready(path)
    cluster.api.crash(path, bound)
    assert "podIP" not in cluster.api.objects[path].get("status", {})
    status = await cluster.until_ready(path)
    assert status["podIP"].startswith("10.")
