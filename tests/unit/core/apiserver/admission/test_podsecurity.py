"""The Pod Security Standards, a row per control."""

import pytest

from core.apiserver.admission.podsecurity import violations


def pod(context=None, container=None, **spec):
    return {"spec": {"containers": [{"name": "c", "securityContext": context or {}, **(container or {})}], **spec}}


GOOD = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}

BASELINE = {
    "host namespaces (hostNetwork=true, hostPID=true)": pod(hostNetwork=True, hostPID=True),
    'privileged (container "c"': pod({"privileged": True}),
    "non-default capabilities": pod({"capabilities": {"add": ["SYS_ADMIN"]}}),
    "hostPath volumes (volume v)": pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}]),
    "hostPort": pod(container={"ports": [{"containerPort": 80, "hostPort": 80}]}),
    "appArmorProfile": pod({"appArmorProfile": {"type": "Unconfined"}}),
    "seLinuxOptions": pod({"seLinuxOptions": {"type": "spc_t"}}),
    "procMount": pod({"procMount": "Unmasked"}),
    "seccompProfile": pod({"seccompProfile": {"type": "Unconfined"}}),
    "forbidden sysctls (kernel.msgmax)": pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}),
    "hostProcess": pod({"windowsOptions": {"hostProcess": True}}),
}
RESTRICTED = {
    "restricted volume types": pod(GOOD, volumes=[{"name": "v", "nfs": {"server": "s", "path": "/"}}]),
    "allowPrivilegeEscalation != false": pod({**GOOD, "allowPrivilegeEscalation": None}),
    "unrestricted capabilities": pod({**GOOD, "capabilities": {"drop": ["ALL"], "add": ["CHOWN"]}}),
    "runAsNonRoot != true": pod({**GOOD, "runAsNonRoot": False}),
    "runAsUser=0": pod({**GOOD, "runAsUser": 0}),
    "seccompProfile": pod({**GOOD, "seccompProfile": {}}),
}


@pytest.mark.parametrize("why", BASELINE)
def test_baseline_refuses(why):
    found = list(violations(BASELINE[why], "baseline"))
    assert len(found) == 1
    assert found[0].startswith(why)
    assert found[0] in list(violations(BASELINE[why], "restricted"))
    assert not list(violations(BASELINE[why], "privileged"))


@pytest.mark.parametrize("why", RESTRICTED)
def test_restricted_refuses_what_baseline_lets_through(why):
    found = list(violations(RESTRICTED[why], "restricted"))
    assert len(found) == 1
    assert found[0].startswith(why)
    assert not list(violations(RESTRICTED[why], "baseline"))


@pytest.mark.parametrize(
    "good",
    [
        pod(GOOD),
        pod({**GOOD, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}),
        pod(
            {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            securityContext={"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "Localhost"}},
            volumes=[{"name": "v", "secret": {}}, {"name": "w", "csi": {}}],
        ),
    ],
)
def test_good_pods_pass_everything(good):
    assert not list(violations(good, "restricted"))


def test_init_containers_count_and_an_unknown_level_is_the_strictest():
    spoiled = pod(GOOD, initContainers=[{"name": "i", "securityContext": {"privileged": True}}])
    assert 'container "i"' in next(violations(spoiled, "baseline"))
    assert list(violations(pod(), "nonsense")) == list(violations(pod(), "restricted"))
