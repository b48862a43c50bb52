"""Rules of the built-in kinds: defaults, validation, what may change, subresources."""

from __future__ import annotations

import base64

import pytest

from core.errors import Conflict, Invalid, MethodNotAllowed, NotFound

CORE = "/api/v1/namespaces/default"
PODS = f"{CORE}/pods"
SETS = "/apis/apps/v1/namespaces/default/replicasets"


def _set(name="r", **spec):
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "nginx"}]}}
    return {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template, **spec}}


async def test_pod_defaults_are_stored(admin):
    container = {
        "name": "c",
        "image": "nginx",
        "ports": [{"containerPort": 80}],
        "readinessProbe": {"httpGet": {"port": 80}},
        "resources": {"limits": {"cpu": 0.5, "memory": "1536Mi"}},
    }
    pinned = {"name": "d", "image": "registry:5000/x:1.2"}
    volumes = [{"name": "s", "secret": {"secretName": "s"}}, {"name": "e"}]
    made = await admin.post(
        PODS, {"metadata": {"name": "a"}, "spec": {"containers": [container, pinned], "volumes": volumes}}
    )
    spec = made["spec"]
    expected = {
        "restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30, "securityContext": {},
        "schedulerName": "default-scheduler", "enableServiceLinks": True, "serviceAccountName": "default",
    }  # fmt: skip
    assert {key: spec.get(key) for key in expected} == expected
    first, second = spec["containers"]
    assert (first["imagePullPolicy"], second["imagePullPolicy"]) == ("Always", "IfNotPresent")
    assert first["terminationMessagePath"] == "/dev/termination-log"
    assert first["ports"] == [{"containerPort": 80, "protocol": "TCP"}]
    assert first["readinessProbe"] == {
        "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
    }  # fmt: skip
    amounts = {"cpu": "500m", "memory": "1536Mi"}
    assert first["resources"] == {"limits": amounts, "requests": amounts}
    assert spec["volumes"] == [
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 420}},
        {"name": "e", "emptyDir": {}},
    ]
    assert [each["key"] for each in spec["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    assert made["status"] == {"phase": "Pending", "qosClass": "Burstable"}


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({}, 'Pod "a" is invalid: spec.containers: Required value'),
        ({"containers": [{"name": "c"}]}, "spec.containers[0].image: Required value"),
        (
            {"containers": [{"name": "C", "image": "x"}]},
            'spec.containers[0].name: Invalid value: "C": a lowercase RFC 1123 label',
        ),
        ({"containers": [{"name": "c", "image": "x"}] * 2}, 'spec.containers[1].name: Duplicate value: "c"'),
        (
            {"restartPolicy": "Sometimes"},
            'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure"',
        ),
        (
            {"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]},
            "may not specify more than 1 volume type",
        ),
        (
            {"containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 70000}]}]},
            "must be between 1 and 65535, inclusive",
        ),
        (
            {"containers": [{"name": "c", "image": "x", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]},
            'spec.containers[0].volumeMounts[0].name: Not found: "v"',
        ),
        (
            {
                "containers": [
                    {"name": "c", "image": "x", "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}
                ]
            },
            "must be less than or equal to cpu limit of 1",
        ),
        (
            {"containers": [{"name": "c", "image": "x", "livenessProbe": {}}]},
            "spec.containers[0].livenessProbe: Required value",
        ),
    ],
)
async def test_bad_pods_are_refused_with_their_cause(admin, spec, text):
    base = {} if not spec else {"containers": [{"name": "c", "image": "x"}]}
    with pytest.raises(Invalid) as refused:
        await admin.post(PODS, {"metadata": {"name": "a"}, "spec": {**base, **spec}})
    assert text in refused.value.message
    assert refused.value.causes[0]["field"].startswith("spec.")


async def test_what_of_a_pod_may_change(admin, pod):
    await admin.post(PODS, pod("a"))
    patched = await admin.patch(
        f"{PODS}/a", {"spec": {"containers": [{"name": "c", "image": "nginx:2"}]}}, "strategic-merge-patch"
    )
    assert patched["spec"]["containers"][0]["image"] == "nginx:2"
    with pytest.raises(
        Invalid, match=r"spec: Forbidden: pod updates may not change fields other than `spec.containers\[\*\].image`"
    ):
        await admin.patch(f"{PODS}/a", {"spec": {"hostNetwork": True}})
    cleared = await admin.patch(f"{PODS}/a", {"spec": {"tolerations": []}})
    assert cleared["spec"]["tolerations"] == patched["spec"]["tolerations"], "those of sick nodes come back"
    more = [*patched["spec"]["tolerations"], {"key": "x", "operator": "Exists"}]
    assert len((await admin.patch(f"{PODS}/a", {"spec": {"tolerations": more}}))["spec"]["tolerations"]) == 3
    with pytest.raises(Invalid, match="existing toleration can not be modified"):
        await admin.patch(f"{PODS}/a", {"spec": {"tolerations": more[:2]}})


async def test_status_and_spec_keep_apart(admin, pod):
    made = await admin.post(PODS, {**pod("a"), "status": {"phase": "Running"}})
    assert made["status"]["phase"] == "Pending"
    status = await admin.patch(f"{PODS}/a/status", {"status": {"phase": "Running"}, "spec": {"hostNetwork": True}})
    assert status["status"] == {"phase": "Running", "qosClass": "BestEffort"} and "hostNetwork" not in status["spec"]
    main = await admin.patch(f"{PODS}/a", {"metadata": {"labels": {"a": "b"}}, "status": {"phase": "Failed"}})
    assert main["status"]["phase"] == "Running"


async def test_binding(admin, pod):
    await admin.post(PODS, pod("a"))
    binding = {"metadata": {"name": "a"}, "target": {"kind": "Node", "name": "n1"}}
    assert (await admin.post(f"{PODS}/a/binding", binding))["status"] == "Success"
    bound = await admin.get(f"{PODS}/a")
    assert bound["spec"]["nodeName"] == "n1"
    assert [(each["type"], each["status"]) for each in bound["status"]["conditions"]] == [("PodScheduled", "True")]
    with pytest.raises(
        Conflict, match='Operation cannot be fulfilled on pods/binding "a": pod a is already assigned to node "n1"'
    ):
        await admin.post(f"{PODS}/a/binding", binding)
    await admin.delete(f"{PODS}/a")
    await admin.post(PODS, {**pod("b"), "metadata": {"name": "b", "finalizers": ["x/y"]}})
    await admin.delete(f"{PODS}/b")
    with pytest.raises(Conflict, match="is being deleted, cannot be assigned to a host"):
        await admin.post(f"{PODS}/b/binding", binding | {"metadata": {"name": "b"}})


async def test_scheduled_pods_wait_for_their_node(admin, pod):
    await admin.post(PODS, pod("free", terminationGracePeriodSeconds=60))
    await admin.delete(f"{PODS}/free")
    with pytest.raises(NotFound):
        await admin.get(f"{PODS}/free")
    await admin.post(PODS, pod("a", nodeName="n1"))
    marked = (await admin.delete(f"{PODS}/a"))["metadata"]
    assert marked["deletionGracePeriodSeconds"] == 30 and marked["deletionTimestamp"]
    assert (await admin.delete(f"{PODS}/a"))["metadata"] == marked
    shorter = (await admin.delete(f"{PODS}/a", {"gracePeriodSeconds": 5}))["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 5 and shorter["deletionTimestamp"] < marked["deletionTimestamp"]
    longer = (await admin.delete(f"{PODS}/a", {"gracePeriodSeconds": 100}))["metadata"]
    assert longer["deletionGracePeriodSeconds"] == 5
    await admin.delete(f"{PODS}/a", gracePeriodSeconds="0")
    with pytest.raises(NotFound):
        await admin.get(f"{PODS}/a")


async def test_a_pod_that_is_evicted_says_so(admin, pod):
    document = pod("a")
    document["metadata"]["finalizers"] = ["test/hold"]
    await admin.post(PODS, document)
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}}
    assert (await admin.post(f"{PODS}/a/eviction", {**eviction, "deleteOptions": {"dryRun": ["All"]}}))["status"] == "Success"  # fmt: skip
    assert not (await admin.get(f"{PODS}/a"))["status"].get("conditions")
    await admin.post(f"{PODS}/a/eviction", eviction)
    found = await admin.get(f"{PODS}/a")
    (said,) = found["status"]["conditions"]
    assert (said["type"], said["status"], said["reason"]) == ("DisruptionTarget", "True", "EvictionByEvictionAPI")
    assert found["metadata"]["deletionTimestamp"]


async def test_eviction_is_a_deletion(admin, pod):
    await admin.post(PODS, pod("a"))
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}}
    assert (await admin.post(f"{PODS}/a/eviction", eviction))["status"] == "Success"
    with pytest.raises(NotFound):
        await admin.get(f"{PODS}/a")
    with pytest.raises(NotFound):
        await admin.post(f"{PODS}/a/exec", {})
    with pytest.raises(MethodNotAllowed):
        await admin.get(f"{PODS}/a/binding")


async def test_services_get_addresses_of_their_own(admin, api):
    def service(name, **spec):
        return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}

    services = f"{CORE}/services"
    one = await admin.post(services, service("one"))
    spec = one["spec"]
    assert spec["clusterIP"].startswith("127.32.0.") and spec["clusterIPs"] == [spec["clusterIP"]]
    assert (spec["type"], spec["sessionAffinity"], spec["internalTrafficPolicy"]) == ("ClusterIP", "None", "Cluster")
    assert (spec["ipFamilies"], spec["ipFamilyPolicy"]) == (["IPv4"], "SingleStack")
    assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert (await admin.post(services, service("headless", clusterIP="None")))["spec"]["clusterIPs"] == ["None"]
    with pytest.raises(Invalid, match="provided IP is already allocated"):
        await admin.post(services, service("two", clusterIP=spec["clusterIP"]))
    with pytest.raises(Invalid, match="is not in the valid range"):
        await admin.post(services, service("two", clusterIP="10.0.0.1"))
    other = "127.32.0.9" if spec["clusterIP"] != "127.32.0.9" else "127.32.0.10"
    for changed in ({"clusterIP": other, "clusterIPs": [other]}, {"clusterIP": other}, {"clusterIP": "None"}):
        with pytest.raises(Invalid) as refused:
            await admin.patch(f"{services}/one", {"spec": changed})
        why = f'spec.clusterIPs[0]: Invalid value: []string{{"{changed["clusterIP"]}"}}: may not change once set'
        assert refused.value.message == f'Service "one" is invalid: {why}'
    with pytest.raises(Invalid, match=r"spec.clusterIPs\[0\]: .*first value must match `clusterIP`"):
        await admin.patch(f"{services}/one", {"spec": {"clusterIPs": [other]}})
    for cleared in ({"clusterIP": None}, {"clusterIPs": None}, {"clusterIP": "", "clusterIPs": []}):
        assert (await admin.patch(f"{services}/one", {"spec": cleared}))["spec"] == spec
    with pytest.raises(Invalid, match="spec.ports: Required value"):
        await admin.post(services, {"metadata": {"name": "two"}, "spec": {}})
    for number in range(20):  # refused and tried ones leave nothing behind
        with pytest.raises(Invalid):
            await admin.post(services, service(f"bad{number}", sessionAffinity="Sticky"))
        await admin.post(services, service("dry"), dryRun="All")
    taken = {spec["clusterIP"]}
    for number in range(11):  # of 16 addresses 13 are for Services; one is taken, one is left
        taken.add((await admin.post(services, service(f"s{number}")))["spec"]["clusterIP"])
    assert len(taken) == 12
    await admin.post(services, service("last"))
    with pytest.raises(Invalid, match="range is full"):
        await admin.post(services, service("over"))
    await admin.delete(f"{services}/one")
    assert (await admin.post(services, service("again")))["spec"]["clusterIP"] == spec["clusterIP"]


async def test_replica_sets_and_their_scale(admin):
    made = await admin.post(SETS, _set())
    assert (made["spec"]["replicas"], made["metadata"]["generation"], made["status"]) == (1, 1, {"replicas": 0})
    assert "labels" not in made["metadata"], "apps/v1 takes no labels from the template"
    template = made["spec"]["template"]["spec"]
    assert (
        template["restartPolicy"] == "Always" and "tolerations" not in template and "enableServiceLinks" not in template
    )
    scale = await admin.get(f"{SETS}/r/scale")
    assert (scale["kind"], scale["spec"], scale["status"]) == (
        "Scale",
        {"replicas": 1},
        {"replicas": 0, "selector": "a=b"},
    )
    scaled = await admin.patch(f"{SETS}/r/scale", {"spec": {"replicas": 0}})
    assert scaled["spec"].get("replicas", 0) == 0
    after = await admin.get(f"{SETS}/r")
    assert after["spec"]["replicas"] == 0 and after["metadata"]["generation"] == 2
    with pytest.raises(Conflict):
        await admin.put(f"{SETS}/r/scale", {**scale, "spec": {"replicas": 3}})
    del scale["metadata"]["resourceVersion"]
    assert (await admin.put(f"{SETS}/r/scale", {**scale, "spec": {"replicas": 3}}))["spec"]["replicas"] == 3
    with pytest.raises(Invalid, match="must be greater than or equal to 0"):
        await admin.patch(f"{SETS}/r/scale", {"spec": {"replicas": -1}})
    await admin.patch(f"{SETS}/r/status", {"status": {"replicas": 2, "observedGeneration": 3}})
    assert (await admin.get(f"{SETS}/r"))["metadata"]["generation"] == 3, "a status is no new generation"
    with pytest.raises(Invalid, match="spec.selector: Invalid value: .*field is immutable"):
        await admin.patch(
            f"{SETS}/r",
            {
                "spec": {
                    "selector": {"matchLabels": {"a": "b", "c": "d"}},
                    "template": {"metadata": {"labels": {"c": "d"}}},
                }
            },
        )
    with pytest.raises(Invalid, match="`selector` does not match template `labels`"):
        await admin.post(SETS, _set("other", selector={"matchLabels": {"z": "z"}}))


async def test_secrets_and_config_maps(admin):
    secrets, maps = f"{CORE}/secrets", f"{CORE}/configmaps"
    made = await admin.post(secrets, {"metadata": {"name": "s"}, "stringData": {"k": "v"}})
    assert (made["type"], made["data"]) == (
        "Opaque",
        {"k": base64.b64encode(b"v").decode()},
    ) and "stringData" not in made
    with pytest.raises(Invalid, match="type: Invalid value: .*field is immutable"):
        await admin.patch(f"{secrets}/s", {"type": "other"})
    await admin.patch(f"{secrets}/s", {"immutable": True})
    with pytest.raises(Invalid, match="data: Forbidden: field is immutable when `immutable` is set"):
        await admin.patch(f"{secrets}/s", {"stringData": {"k": "w"}})
    await admin.post(maps, {"metadata": {"name": "c"}, "data": {"k": "v"}, "immutable": True})
    with pytest.raises(Invalid, match="immutable: Forbidden"):
        await admin.patch(f"{maps}/c", {"immutable": False})
    with pytest.raises(Invalid, match=r"data\[a b\]: Invalid value"):
        await admin.post(maps, {"metadata": {"name": "d"}, "data": {"a b": "v"}})


async def test_nodes_leases_events_and_slices(admin):
    nodes = "/api/v1/nodes"
    made = await admin.post(nodes, {"metadata": {"name": "n1"}, "status": {"capacity": {"cpu": 2, "memory": "1024Mi"}}})
    assert made["status"]["allocatable"] == {"cpu": "2", "memory": "1Gi"}
    with pytest.raises(Invalid, match=r"spec.taints\[0\].effect: Unsupported value"):
        await admin.patch(f"{nodes}/n1", {"spec": {"taints": [{"key": "a", "effect": "Never"}]}})
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    await admin.post(leases, {"metadata": {"name": "n1"}, "spec": {"leaseDurationSeconds": 40}})
    with pytest.raises(Invalid, match="metadata.resourceVersion: Invalid value: 0: must be specified for an update"):
        await admin.put(f"{leases}/n1", {"metadata": {"name": "n1"}, "spec": {"leaseDurationSeconds": 50}})
    assert (await admin.patch(f"{leases}/n1", {"spec": {"leaseDurationSeconds": 50}}))["spec"][
        "leaseDurationSeconds"
    ] == 50
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"kind": "Pod", "name": "a", "namespace": "default"},
        "reason": "Killing",
    }
    await admin.post(f"{CORE}/events", event)
    selector = "involvedObject.name=a,involvedObject.namespace=default,involvedObject.kind=Pod,reason=Killing"
    assert len((await admin.get(f"{CORE}/events", fieldSelector=selector))["items"]) == 1
    with pytest.raises(Invalid, match="does not match event.namespace"):
        await admin.post(f"{CORE}/events", {"metadata": {"name": "f"}, "involvedObject": {"namespace": "kube-system"}})
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    endpoint = {"addresses": ["127.64.0.2"]}
    found = await admin.post(
        slices, {"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": [endpoint], "ports": [{"port": 80}]}
    )
    assert found["ports"] == [{"port": 80, "protocol": "TCP", "name": ""}]
    with pytest.raises(Invalid, match="must be a valid IP address"):
        await admin.post(
            slices, {"metadata": {"name": "t"}, "addressType": "IPv4", "endpoints": [{"addresses": ["x"]}]}
        )


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("tls", {"tls.crt": "eA=="}, "data[tls.key]: Required value"),
        ("basic-auth", {"x": "eA=="}, "data[password]: Required value"),
        ("ssh-auth", {}, "data[ssh-privatekey]: Required value"),
        ("dockercfg", {}, "data[.dockercfg]: Required value"),
        ("dockerconfigjson", {".dockerconfigjson": "eA=="}, 'Invalid value: "<secret contents redacted>"'),
    ],
)
async def test_secrets_hold_what_their_type_says(admin, kind, data, said):
    body = {"metadata": {"name": "s"}, "type": f"kubernetes.io/{kind}", "data": data}
    with pytest.raises(Invalid) as refused:
        await admin.post(f"{CORE}/secrets", body)
    assert said in refused.value.message
    assert "eA==" not in refused.value.message


async def test_an_autoscaler_without_metrics_aims_at_four_fifths_of_the_cpu_in_either_version(admin):
    at = "/apis/autoscaling/{}/namespaces/default/horizontalpodautoscalers"
    spec = {"maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}
    for version in ("v1", "v2"):
        await admin.post(at.format(version), {"metadata": {"name": version}, "spec": spec})
        assert (await admin.get(f"{at.format('v1')}/{version}"))["spec"]["targetCPUUtilizationPercentage"] == 80
        [metric] = (await admin.get(f"{at.format('v2')}/{version}"))["spec"]["metrics"]
        assert metric["resource"] == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}


@pytest.mark.parametrize(
    ("schedule", "why"),
    [
        ("59 23 31 2 *", ""),
        ("0 0 30 feb *", ""),
        ("0 0 1 1 *", ""),
        ("61 * * * *", "failed to parse schedule 61 * * * *: "),
        ("0 0 1 13 *", "failed to parse schedule 0 0 1 13 *: "),
        ("0 0 32 1 *", "failed to parse schedule 0 0 32 1 *: "),
    ],
)
async def test_schedules_are_refused_where_they_cant_be_read_not_where_their_day_never_comes(admin, schedule, why):
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}
    body = {"metadata": {"name": "c"}, "spec": {"schedule": schedule, "jobTemplate": {"spec": {"template": template}}}}
    making = admin.post("/apis/batch/v1/namespaces/default/cronjobs", body)
    if not why:
        assert (await making)["spec"]["schedule"] == schedule
        return
    with pytest.raises(Invalid) as found:
        await making
    assert f'spec.schedule: Invalid value: "{schedule}": {why}' in found.value.message


async def test_a_pod_may_be_replaced_by_its_manifest(admin, pod):
    made = await admin.post(PODS, pod("p"))
    manifest = pod("p")
    manifest["metadata"]["labels"] = {"a": "b"}
    replaced = await admin.put(f"{PODS}/p", manifest)
    assert replaced["spec"] == made["spec"] and replaced["metadata"]["labels"] == {"a": "b"}
    with pytest.raises(Invalid, match="pod updates may not change fields other than"):
        await admin.put(f"{PODS}/p", pod("p", priority=7))
