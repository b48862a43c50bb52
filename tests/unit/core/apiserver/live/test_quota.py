"""Quotas are exact under concurrent creations, and say what is used; limit ranges give and refuse."""

from __future__ import annotations

import asyncio

import pytest

from core.errors import Forbidden, Invalid

PODS = "/api/v1/namespaces/default/pods"
QUOTAS = "/api/v1/namespaces/default/resourcequotas"
RANGES = "/api/v1/namespaces/default/limitranges"


def pod(name, requests=None, limits=None, **spec):
    resources = {key: value for key, value in (("requests", requests), ("limits", limits)) if value}
    return {
        "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "image": "i", "resources": resources}], **spec},
    }


def quota(name, hard, **spec):
    return {"metadata": {"name": name}, "spec": {"hard": hard, **spec}}


async def outcomes(*calls):
    found = await asyncio.gather(*calls, return_exceptions=True)
    return [each for each in found if not isinstance(each, Exception)], [
        each for each in found if isinstance(each, Exception)
    ]


async def test_64_at_once_against_a_quota_of_10_make_exactly_10(admin):
    await admin.post(QUOTAS, quota("ten", {"pods": "10"}))
    made, refused = await outcomes(*(admin.post(PODS, pod(f"p{number}")) for number in range(64)))
    assert (len(made), len(refused)) == (10, 54)
    assert len((await admin.get(PODS))["items"]) == 10
    assert all(isinstance(each, Forbidden) for each in refused)
    assert "is forbidden: exceeded quota: ten, requested: pods=1, used: pods=10, limited: pods=10" in refused[0].message


async def test_what_goes_makes_room_and_what_has_ended_does_not_count(admin):
    await admin.post(QUOTAS, quota("one", {"pods": "1"}))
    await admin.post(PODS, pod("a"))
    with pytest.raises(Forbidden, match="exceeded quota"):
        await admin.post(PODS, pod("b"))
    await admin.delete(f"{PODS}/a")
    await admin.post(PODS, pod("b"))
    await admin.patch(f"{PODS}/b/status", {"status": {"phase": "Succeeded"}})
    await admin.post(PODS, pod("c"))


async def test_compute_is_summed_and_must_be_said(admin):
    await admin.post(QUOTAS, quota("compute", {"requests.cpu": "1", "limits.memory": "1Gi"}))
    with pytest.raises(
        Forbidden, match="failed quota: compute: must specify limits.memory for: c; requests.cpu for: c"
    ):
        await admin.post(PODS, pod("silent"))
    await admin.post(PODS, pod("a", {"cpu": "600m"}, {"memory": "512Mi"}))
    with pytest.raises(
        Forbidden, match=r"requested: requests.cpu=500m, used: requests.cpu=600m, limited: requests.cpu=1"
    ):
        await admin.post(PODS, pod("b", {"cpu": "500m"}, {"memory": "512Mi"}))
    with pytest.raises(Forbidden, match=r"requested: limits.memory=600Mi, used: limits.memory=512Mi"):
        await admin.post(PODS, pod("b", {"cpu": "100m"}, {"memory": "600Mi"}))
    await admin.post(PODS, pod("b", limits={"cpu": "400m", "memory": "512Mi"}))


async def test_objects_are_counted_by_kind_and_group(admin):
    await admin.post(
        QUOTAS, quota("objects", {"configmaps": "1", "count/deployments.apps": "0", "services.nodeports": "1"})
    )
    maps, services = "/api/v1/namespaces/default/configmaps", "/api/v1/namespaces/default/services"
    await admin.post(maps, {"metadata": {"name": "a"}})
    with pytest.raises(Forbidden, match="exceeded quota: objects, requested: configmaps=1"):
        await admin.post(maps, {"metadata": {"name": "b"}})
    labels = {"app": "x"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    deployment = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": labels}, "template": template}}
    with pytest.raises(Forbidden, match=r'deployments.apps "d" is forbidden: exceeded quota'):
        await admin.post("/apis/apps/v1/namespaces/default/deployments", deployment)
    with pytest.raises(Forbidden, match="services.nodeports=2"):
        ports = [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]
        await admin.post(services, {"metadata": {"name": "n"}, "spec": {"type": "NodePort", "ports": ports}})


async def test_scopes_select_pods(admin):
    await admin.post(QUOTAS, quota("effort", {"pods": "0"}, scopes=["BestEffort"]))
    with pytest.raises(Forbidden, match="exceeded quota: effort"):
        await admin.post(PODS, pod("a"))
    await admin.post(PODS, pod("a", {"cpu": "1"}))
    await admin.post(QUOTAS, quota("jobs", {"pods": "0"}, scopes=["Terminating"]))
    with pytest.raises(Forbidden, match="exceeded quota: jobs"):
        await admin.post(PODS, pod("b", {"cpu": "1"}, activeDeadlineSeconds=5))


async def test_a_dry_run_is_checked_and_uses_nothing(admin):
    await admin.post(QUOTAS, quota("one", {"pods": "1"}))
    await admin.post(PODS, pod("a"), dryRun="All")
    await admin.post(PODS, pod("a"))
    with pytest.raises(Forbidden):
        await admin.post(PODS, pod("b"), dryRun="All")


async def test_limit_ranges_give_defaults_that_quotas_count(admin):
    item = {"type": "Container", "default": {"memory": "100Mi", "cpu": "1"}, "defaultRequest": {"cpu": "100m"}}
    await admin.post(RANGES, {"metadata": {"name": "r"}, "spec": {"limits": [item]}})
    await admin.post(QUOTAS, quota("memory", {"limits.memory": "150Mi"}))
    made = await admin.post(PODS, pod("a"))
    resources = made["spec"]["containers"][0]["resources"]
    assert resources == {"limits": {"memory": "100Mi", "cpu": "1"}, "requests": {"cpu": "100m", "memory": "100Mi"}}
    with pytest.raises(Forbidden, match="exceeded quota: memory"):
        await admin.post(PODS, pod("b"))
    own = await admin.post(PODS, pod("b", limits={"cpu": "200m", "memory": "50Mi"}))
    assert own["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "200m", "memory": "50Mi"}


@pytest.mark.parametrize(
    ("item", "made", "message"),
    [
        ({"type": "Container", "max": {"memory": "1Gi"}}, pod("a", limits={"memory": "2Gi"}), "maximum memory usage per Container is 1Gi, but limit is 2147483648"),
        ({"type": "Pod", "max": {"memory": "1Gi"}}, pod("a"), "No limit is specified"),
        ({"type": "Container", "min": {"cpu": "100m"}}, pod("a", {"cpu": "50m"}), "minimum cpu usage per Container is 100m, but request is 0.05"),
        ({"type": "Pod", "min": {"cpu": "100m"}}, pod("a"), "No request is specified"),
        ({"type": "Pod", "max": {"cpu": "1"}}, pod("a", limits={"cpu": "1100m"}), "maximum cpu usage per Pod is 1, but limit is 1.1"),
        ({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}, pod("a", {"cpu": "1"}, {"cpu": "3"}), "but provided ratio is 3.000000"),
    ],
)  # fmt: skip
async def test_limit_ranges_refuse(admin, item, made, message):
    await admin.post(RANGES, {"metadata": {"name": "r"}, "spec": {"limits": [item]}})
    with pytest.raises(Forbidden, match=message):
        await admin.post(PODS, made)
    assert (await admin.get(PODS))["items"] == []


async def test_a_namespace_enforces_its_level_of_pod_security(admin):
    await admin.post(
        "/api/v1/namespaces",
        {"metadata": {"name": "safe", "labels": {"pod-security.kubernetes.io/enforce": "baseline"}}},
    )
    pods = "/api/v1/namespaces/safe/pods"
    await admin.post(pods, pod("plain"))
    with pytest.raises(Forbidden, match='violates PodSecurity "baseline:latest": host namespaces'):
        await admin.post(pods, pod("host", hostNetwork=True))
    await admin.post(PODS, pod("host", hostNetwork=True))
    looking = {"name": "look", "image": "busybox", "securityContext": {"privileged": True}}
    added = {"spec": {"ephemeralContainers": [looking]}}
    with pytest.raises(Forbidden, match='violates PodSecurity "baseline:latest": privileged \\(container "look"'):
        await admin.patch(f"{pods}/plain/ephemeralcontainers", added, "strategic-merge-patch")
    await admin.patch(f"{PODS}/host/ephemeralcontainers", added, "strategic-merge-patch")
    await admin.patch(
        "/api/v1/namespaces/safe", {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "restricted"}}}
    )
    with pytest.raises(Forbidden, match="runAsNonRoot != true"):
        await admin.post(pods, pod("plainer"))


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"hard": {"foo": "1"}}, r'spec.hard\[foo\]: Invalid value: "foo": must be a standard resource for quota'),
        ({"hard": {"pods": "1.5"}}, r'spec.hard\[pods\]: Invalid value: "1500m": must be an integer'),
        (
            {"hard": {"services": "1"}, "scopes": ["Terminating"]},
            "spec.scopes: .* unsupported scope applied to resource",
        ),
        ({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}, "spec.scopes: .* unsupported scope applied to resource"),
        (
            {
                "hard": {"secrets": "1"},
                "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]},
            },
            "spec.scopeSelector.matchExpressions.scopeName: .* unsupported scope applied to resource",
        ),
    ],
)
async def test_quotas_of_what_there_is_nothing_of_are_refused(admin, spec, why):
    quotas = "/api/v1/namespaces/default/resourcequotas"
    with pytest.raises(Invalid, match=why):
        await admin.post(quotas, {"metadata": {"name": "bad"}, "spec": spec})
    hard = {
        "pods": "1",
        "requests.cpu": "1",
        "count/jobs.batch": "2",
        "requests.example.com/gpu": "1",
        "hugepages-2Mi": "0",
    }
    await admin.post(quotas, {"metadata": {"name": "good"}, "spec": {"hard": hard, "scopes": ["NotBestEffort"]}})


async def test_an_update_may_use_what_is_left_of_a_quota_and_no_more(admin):
    base = "/api/v1/namespaces/default"
    hard = {"services.nodeports": "1", "requests.storage": "2Gi"}
    await admin.post(f"{base}/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": hard}})
    for name in ("a", "b"):
        await admin.post(f"{base}/services", {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})
    await admin.patch(f"{base}/services/a", {"spec": {"type": "NodePort"}})
    await admin.patch(f"{base}/services/a", {"metadata": {"labels": {"x": "y"}}})
    why = 'services "b" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited'
    with pytest.raises(Forbidden, match=why):
        await admin.patch(f"{base}/services/b", {"spec": {"type": "NodePort"}})
    await admin.patch(f"{base}/services/a", {"spec": {"type": "ClusterIP"}})
    await admin.patch(f"{base}/services/b", {"spec": {"type": "NodePort"}})
