"""The Function controller: Service, revisions, traffic and status of each Function. It decides in `revisions`, builds in `resources`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from core.api.kinds import POD, REPLICA_SET, SECRET, SERVICE
from core.api.views import ObjectView, Pod, ReplicaSet, Secret, Service
from core.client.events import Recorder, reference
from core.client.informer import Informer, Informers
from core.client.reconciler import Reconciler
from core.client.rest import Client
from core.client.workqueue import WorkQueue
from core.clock import wall
from core.errors import AlreadyExists, ApiError, Conflict, Forbidden, Invalid, NotFound
from faaslite.api import names
from faaslite.api.function import Function, FunctionInvalid, validate
from faaslite.api.versions import version_name
from faaslite.controllers import health, resources, revisions, routes
from faaslite.controllers.builds import Builds, wanted_by
from faaslite.controllers.layers import Decision, remembered, with_layer
from faaslite.controllers.objects import FunctionObject
from faaslite.controllers.status import Verdict, new_status, only_replicas_differ, ready_condition

__all__ = ["FunctionController", "FunctionObject"]

log = logging.getLogger(__name__)

POD_DELAY = 0.02
"""Seconds in which changes of Pods come together to one look, where one became ready that traffic may wait for."""
LATE = 0.1
"""The same where they change only what the status tells: calls that wait for an instance have better use for the processor."""
WORKERS = 16
SAME_TROUBLE = 30.0
"""Seconds within which trouble of the same reason is told of as it was first, so that it costs no write each time."""
REPLICAS_DELAY = 1.0
"""Seconds that a change of `status.replicas` alone may wait: it is for people, and scaling must not wait for its write."""


class FunctionController:
    """`url` is the gateway's address (`http://127.0.0.1:8080`), `inner_url` that for Pods where it is another; `clock` gives seconds since the
    epoch."""

    def __init__(
        self,
        client: Client,
        informers: Informers,
        *,
        url: str = "",
        inner_url: str = "",
        clock: Callable[[], float] = wall,
    ) -> None:
        self._client = client
        self._url = url.rstrip("/")
        self._inner_url = inner_url.rstrip("/") or self._url
        self._clock = clock
        self._functions: Informer[FunctionObject] = informers.watch(names.FUNCTION, FunctionObject)
        self._sets: Informer[ReplicaSet] = informers.watch(REPLICA_SET, ReplicaSet)
        self._services: Informer[Service] = informers.watch(SERVICE, Service)
        self._pods: Informer[Pod] = informers.watch(POD, Pod)
        self._keys: Informer[Secret] = informers.watch(SECRET, Secret, labels=names.LABEL_KEY)
        self._keys.add_index("namespace", lambda each: [each.namespace])
        self._heads: Informer[Secret] = informers.watch(SECRET, Secret, labels=names.LABEL_VERSIONED)
        self._heads.add_index("namespace", lambda each: [each.namespace])
        self._functions.add_index("host", lambda each: routes.hosts(each.spec))
        self._functions.add_index("namespace", lambda each: [each.namespace])
        self._sets.add_index("function", _owner_uid)
        self._pods.add_index("revision", _revision_key)
        self._recorder = Recorder(client, component="function-controller")
        self._builds = Builds(client, self._functions, self._pods, self._recorder, url=self._inner_url, clock=clock)
        self._late: dict[str, float] = {}
        # How often crashed Pods of a Function were replaced in a row, and when last.
        self._crashes: dict[str, tuple[int, float]] = {}
        # The last trouble of instances of a Function, and when it was there.
        self._troubles: dict[str, tuple[health.Trouble, float]] = {}
        # What a spec was read as, by key, with the uid and generation that it is of: Pods change far more often than specs.
        self._read: dict[str, tuple[str, int, Function]] = {}
        self.queue = WorkQueue()
        self._reconciler = Reconciler("function", self.sync, queue=self.queue, workers=WORKERS, late=True)
        self._functions.add_handler(self.on_function)
        self._sets.add_handler(self.on_set)
        self._services.add_handler(self.on_child)
        self._pods.add_handler(self.on_pod)
        self._keys.add_handler(self.on_secret)
        self._heads.add_handler(self.on_secret)

    async def start(self) -> None:
        await asyncio.gather(
            self._functions.wait_synced(),
            self._sets.wait_synced(),
            self._services.wait_synced(),
            self._pods.wait_synced(),
            self._keys.wait_synced(),
            self._heads.wait_synced(),
        )
        await self._reconciler.start()

    async def stop(self) -> None:
        await self._reconciler.stop()
        await self._recorder.stop()

    def on_function(self, old: FunctionObject | None, new: FunctionObject | None) -> None:
        found = new or old
        if found is not None and old is not None and new is not None and _same_wish(old, new):
            self.queue.add_after(found.key, LATE)  # our own write of its status, mostly
        elif found is not None:
            self.queue.add(found.key)
        # Who shares a host with it may have a route now, or not any more.
        shared = {host for each in (old, new) if each is not None for host in routes.hosts(each.spec)}
        if shared and (old is None or new is None or old.spec != new.spec):
            for host in shared:
                for each in self._functions.by_index("host", host):
                    self.queue.add(each.key)

    def on_secret(self, old: Secret | None, new: Secret | None) -> None:
        found = new or old
        if found is not None:
            for each in self._functions.by_index("namespace", found.namespace):
                self.queue.add(each.key)

    def on_child(self, old: ObjectView | None, new: ObjectView | None) -> None:
        for each in (old, new):
            if each is not None:
                controller = each.metadata.controller
                if controller is not None and controller.kind == names.FUNCTION.kind:
                    self.queue.add(f"{each.namespace}/{controller.name}")

    def on_set(self, old: ReplicaSet | None, new: ReplicaSet | None) -> None:
        """Scaling a revision, and its counts, change nothing here but what the status tells."""
        if old is None or new is None or not _same_revision(old, new):
            self.on_child(old, new)
        elif old.status.replicas != new.status.replicas and (controller := new.metadata.controller) is not None:
            key = f"{new.namespace}/{controller.name}"
            self._late.setdefault(key, self._clock())
            self.queue.add_after(key, REPLICAS_DELAY)

    def on_pod(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None and old.status == new.status:
            return
        found = new or old
        function = found.metadata.labels.get(names.LABEL_FUNCTION) if found is not None else None
        if found is None:
            return
        if not function:
            for each in self._builds.waiting_for(found):
                self.queue.add(each)
            return
        key = f"{found.namespace}/{function}"
        known = self._functions.get(key)
        revision = found.metadata.labels.get(names.LABEL_REVISION)
        serves = known is not None and known.status.get("latestReadyRevision") == revision
        troubled = known is not None and self._notice(known, old, new)
        if serves and known is not None and not troubled and _is_ready(known) and not _fails(old) and not _fails(new):
            return  # an instance that comes or goes as it should: its set counts it
        self.queue.add_after(key, LATE if serves or not found.ready else POD_DELAY)

    def _notice(self, found: FunctionObject, old: Pod | None, new: Pod | None) -> bool:
        """Whether an instance that takes calls has trouble that it hadn't before."""
        trouble = health.fresh(old, new, self._clock())
        if trouble is None or trouble.revision not in _serving(found):
            return False
        known, at = self._troubles.get(found.key, (trouble, 0.0))
        if old is not None:
            self._recorder.event(reference(names.FUNCTION, found), "Warning", trouble.reason, trouble.message)
        if known.reason != trouble.reason or known.revision != trouble.revision or self._clock() - at > SAME_TROUBLE:
            known = trouble
        self._troubles[found.key] = (known, self._clock())
        return True

    # One reconcile

    async def sync(self, key: str) -> float | None:
        """Bring one Function (`namespace/name`) to what its spec says; seconds until a late status is due."""
        found = self._functions.get(key)
        if found is None or found.metadata.deletion_timestamp is not None:
            self._late.pop(key, None)
            self._read.pop(key, None)
            self._crashes.pop(key, None)
            self._troubles.pop(key, None)
            return None
        try:
            function = self._validated(found)
        except FunctionInvalid as error:
            await self._write(found, {}, {"Ready": Verdict("False", "InvalidSpec", str(error))})
            return None
        packaged = _packaged(function)
        known = await self._revisions(found)
        build: Decision | None = None
        if packaged.status == "True":
            try:
                await self._ensure_service(found, function)
                if (wanted := wanted_by(found)) is not None:
                    build = await self._builds.ensure(found, function, wanted)
                    function = with_layer(function, build.digest)
                if build is None or build.digest:
                    known = await self._ensure_newest(found, function, known)
            except (_Taken, Forbidden, Invalid) as error:
                reason = "NameTaken" if isinstance(error, _Taken) else error.status_reason
                verdicts = {"Packaged": packaged, "Ready": Verdict("False", reason, error.message)}
                await self._write(found, {}, verdicts)
                if isinstance(error, ApiError):
                    raise
                return None
        return await self._observe(found, function, packaged, known, build)

    def _validated(self, found: FunctionObject) -> Function:
        meta = found.metadata
        uid, generation, function = self._read.get(found.key, ("", 0, None))
        if function is None or uid != meta.uid or generation != meta.generation:
            function = validate({"metadata": {"name": meta.name, "namespace": meta.namespace}, "spec": found.spec})
            self._read[found.key] = (meta.uid, meta.generation, function)
        return function

    async def _revisions(self, found: FunctionObject) -> dict[str, ReplicaSet]:
        """The Function's ReplicaSets by name. Asks the API where the status knows of one that the cache doesn't have yet."""
        sets = self._sets.by_index("function", found.metadata.uid)
        newest = str(found.status.get("latestCreatedRevision") or "")
        if newest and all(each.name != newest for each in sets):
            labels = f"{names.LABEL_FUNCTION}={found.name}"
            live, _ = await self._client.list(REPLICA_SET, found.namespace, labels=labels, as_=ReplicaSet)
            sets = [each for each in live if _owner_uid(each) == [found.metadata.uid]]
        ordered = sorted(sets, key=lambda each: revisions.number_of(each.name))
        return {each.name: each for each in ordered if each.metadata.deletion_timestamp is None}

    async def _ensure_service(self, found: FunctionObject, function: Function) -> None:
        document = resources.service(function, found.metadata.uid)
        current = self._services.get(found.key)
        if current is None:
            try:
                await self._client.create(SERVICE, document, found.namespace)
            except AlreadyExists:
                current = await self._client.get(SERVICE, found.name, found.namespace, as_=Service)
            else:
                return
        controller = current.metadata.controller
        if controller is None or controller.uid != found.metadata.uid:
            if current.metadata.deletion_timestamp is not None or (
                controller is not None and controller.kind == names.FUNCTION.kind
            ):
                # Of a Function of this name that was deleted: the garbage collector is on its way.
                raise Conflict(f"the Service {found.name} of an earlier Function is still there")
            raise _Taken(f"there is a Service {found.name} that belongs to somebody else")
        port = current.spec.ports[0] if current.spec.ports else None
        wanted = document["spec"]
        if current.spec.selector != wanted["selector"] or port is None or port.target_port != names.PORT:
            await self._client.patch(SERVICE, found.name, found.namespace, {"spec": wanted})

    async def _ensure_newest(
        self, found: FunctionObject, function: Function, known: Mapping[str, ReplicaSet]
    ) -> dict[str, ReplicaSet]:
        """A template that isn't the newest revision's is a new revision."""
        template = resources.pod_template(function, self._versions(found.namespace))
        newest = known[max(known, key=revisions.number_of)] if known else None
        if newest is not None and revisions.hash_of(newest) == resources.template_hash(template):
            return dict(known)
        last = revisions.number_of(str(found.status.get("latestCreatedRevision") or ""))
        number = max(last, revisions.number_of(newest.name) if newest is not None else 0) + 1
        name = names.revision_name(found.name, number)
        document = resources.replica_set(function, name, template, found.metadata.uid, gateway=self._inner_url)
        try:
            made = await self._client.create(REPLICA_SET, document, found.namespace, as_=ReplicaSet)
        except AlreadyExists:
            made = await self._client.get(REPLICA_SET, name, found.namespace, as_=ReplicaSet)
            if _owner_uid(made) != [found.metadata.uid]:
                controller = made.metadata.controller
                if controller is not None and controller.kind == names.FUNCTION.kind:
                    raise Conflict(f"the revision {name} of an earlier Function is still there") from None
                raise _Taken(f"there is a ReplicaSet {name} that belongs to somebody else") from None
            if revisions.hash_of(made) != resources.template_hash(template):
                raise Conflict(f"the revision {name} was made meanwhile") from None
        else:
            log.info("%s: created revision %s", found.key, name)
            self._recorder.event(
                reference(names.FUNCTION, found), "Normal", "RevisionCreated", f"Created revision {name}"
            )
        return {**known, name: made}

    def _versions(self, namespace: str) -> dict[str, str]:
        """The current version of each Secret that has versions."""
        found = {}
        for each in self._heads.by_index("namespace", namespace):
            text = each.metadata.annotations.get(names.ANNOTATION_SECRET_VERSION, "")
            if text.isascii() and text.isdigit():
                found[each.name] = version_name(each.name, int(text))
        return found

    async def _observe(
        self, found: FunctionObject, function: Function, packaged: Verdict, known: Mapping[str, ReplicaSet], build: Decision | None,
    ) -> float | None:  # fmt: skip
        """See how the revisions do; move traffic, write policies and status, prune."""
        old = found.status
        newest = max(known, key=revisions.number_of, default="")
        latest_ready = str(old.get("latestReadyRevision") or "")
        pods = self._pods_of(known[newest]) if newest else []
        ready = any(pod.ready and pod.metadata.deletion_timestamp is None for pod in pods)
        fit = ready or resources.initial_replicas(function) == 0
        built = build.verdict if build is not None else None
        if newest and packaged.status == "True" and newest != latest_ready and fit:
            latest_ready = newest
            message = f"Revision {newest} is ready"
            self._recorder.event(reference(names.FUNCTION, found), "Normal", "RevisionReady", message)
        if latest_ready not in known:
            latest_ready = ""
        try:
            traffic = revisions.resolve_traffic(function, known, latest_ready)
            routed = routes_ready = (
                Verdict("True", "Routed") if traffic else Verdict("Unknown", "Deploying", "no revision is ready yet")
            )
        except revisions.RouteError as error:
            traffic = [each for each in old.get("traffic") or () if each.get("revision") in known]
            routed = routes_ready = Verdict("False", "RevisionMissing", str(error))
        taken = self._conflict(found)
        if taken and routes_ready.status != "False":
            routes_ready = Verdict("False", "RouteConflict", taken)
        failure = None if ready or not newest else revisions.diagnose(pods, known[newest])
        serving = [str(each["revision"]) for each in traffic]
        if failure is not None and failure.reason in ("PackageNotFound", "FailedMount"):
            packaged = Verdict("False", failure.reason, failure.message)
        healthy, calm_in = self._healthy(found, serving, known)
        verdicts = {
            **({"Healthy": healthy} if healthy is not None else {}),
            "Packaged": packaged,
            "Built": built,
            "RoutesReady": routes_ready,
            "Ready": ready_condition(packaged, routed, newest, latest_ready, failure, serving, built),
        }
        fields = {
            "url": f"{self._url}/function/{found.name}.{found.namespace}",
            "latestCreatedRevision": newest,
            "latestReadyRevision": latest_ready,
            "replicas": sum(each.status.replicas for each in known.values()),
            "traffic": traffic,
            "revisions": routes.known_revisions(known),
        }
        wanted = wanted_by(found)
        if build is None or wanted is None:
            fields["build"] = None
        else:
            fields["build"] = {"key": wanted.key, "asked": wanted.asked, **({"pod": build.pod} if build.pod else {})}
            if build.digest:
                fields["layers"] = remembered(old, wanted.key, build.digest)
        keys = routes.invocation_keys(function, self._keys.by_index("namespace", found.namespace))
        if keys or old.get("keys"):
            fields["keys"] = keys
        again = _sooner(await self._write(found, fields, verdicts), calm_in)
        again = _sooner(again, await self._replace_crashed(found, [known[each] for each in serving if each in known]))
        again = _sooner(again, await self._builds.tidy(found, wanted))
        live = {*serving, newest}
        await self._write_policies(function, known, live, latest_ready)
        await self._prune(found, known.values(), {*live, latest_ready})
        return again

    def _healthy(
        self, found: FunctionObject, serving: list[str], known: Mapping[str, ReplicaSet]
    ) -> tuple[Verdict | None, float | None]:
        """The condition Healthy (None: as it is), and the seconds after which it is to be looked at again."""
        conditions, now = found.status.get("conditions") or (), self._clock()
        if found.key in self._troubles:
            trouble, last = self._troubles[found.key]
        elif (told := health.remembered(conditions, serving[0] if serving else "")) is not None:
            trouble, last = told, now
        else:
            return None, None
        pods = (pod for each in serving if each in known for pod in self._pods_of(known[each]))
        if any(seen is not None and seen.lasts for seen in map(health.trouble_of, pods)):
            last = now
        self._troubles[found.key] = (trouble, last)
        verdict = health.healthy_condition(conditions, trouble, last, serving, now)
        if verdict is not None and verdict.status == "False":
            return verdict, max(last + health.HEALTHY_AFTER - now, 0.0) + 1.0
        self._troubles.pop(found.key)
        return verdict, None

    async def _replace_crashed(self, found: FunctionObject, serving: Iterable[ReplicaSet]) -> float | None:
        """Replace Pods of good revisions that died repeatedly, so that one bad call doesn't cost a node's long back-off.

        Revisions that were never ready keep that back-off. Returns the seconds until the next Pod may be replaced.
        """
        crashed = revisions.crashed(pod for each in serving for pod in self._pods_of(each))
        if not crashed:
            return None
        now = self._clock()
        count, last = self._crashes.get(found.key, (0, 0.0))
        if now - last > revisions.REPLACE_RESET:
            count = 0
        elif (left := last + revisions.replace_delay(count) - now) > 0:
            return left
        self._crashes[found.key] = (count + 1, now)
        for pod in crashed:
            failure = revisions.diagnose([pod], None)
            why = f": {failure.message}" if failure is not None else ""
            self._recorder.event(
                reference(names.FUNCTION, found), "Warning", failure.reason if failure is not None else "Crashed",
                f"Replaced instance {pod.name}, which died repeatedly{why}",
            )  # fmt: skip
            try:
                await self._client.delete(POD, pod.name, pod.namespace, uid=pod.metadata.uid)
            except NotFound:
                continue
        return None

    def _conflict(self, found: FunctionObject) -> str:
        others = {
            each.key: each for host in routes.hosts(found.spec) for each in self._functions.by_index("host", host)
        }
        rows = [(key, each.metadata.creation_timestamp or "", each.spec) for key, each in others.items()]
        return routes.conflict(found.key, found.metadata.creation_timestamp or "", found.spec, rows)

    def _pods_of(self, revision: ReplicaSet) -> list[Pod]:
        """By uid: Pods of a namesake, from before the Function was deleted and made again, say nothing of this one."""
        uid = revision.metadata.uid
        pods = self._pods.by_index("revision", revision.key)
        return [pod for pod in pods if any(each.uid == uid for each in pod.metadata.owner_references)]

    async def _write(
        self, found: FunctionObject, fields: Mapping[str, Any], verdicts: Mapping[str, Verdict | None]
    ) -> float | None:
        now = self._clock()
        status = new_status(found.status, fields, verdicts, found.metadata.generation, now)
        if status is None:
            self._late.pop(found.key, None)
            return None
        if only_replicas_differ(found.status, status):
            left = self._late.setdefault(found.key, now) + REPLICAS_DELAY - now
            if left > 0:
                return left
        self._late.pop(found.key, None)
        gone = dict.fromkeys(found.status.keys() - status.keys())
        patch = {"metadata": {"uid": found.metadata.uid}, "status": {**status, **gone}}
        try:
            await self._client.patch(names.FUNCTION, found.name, found.namespace, patch, subresource="status")
        except NotFound:
            log.debug("%s is gone, its status needn't be written", found.key)
        return None

    async def _write_policies(
        self, function: Function, known: Mapping[str, ReplicaSet], live: set[str], latest_ready: str
    ) -> None:
        """How each revision is to scale, and that it was ready once: it can be gone back to."""
        for name, each in known.items():
            concurrency, _ = resources.limits_of(each.spec.template)
            policy = resources.scale_policy(function, limit=concurrency, live=name in live)
            wanted = {names.ANNOTATION_SCALE: resources.policy_text(policy)}
            if name == latest_ready:
                wanted[names.ANNOTATION_WAS_READY] = "true"
            if all(each.metadata.annotations.get(key) == value for key, value in wanted.items()):
                continue
            patch = {"metadata": {"uid": each.metadata.uid, "annotations": wanted}}
            try:
                await self._client.patch(REPLICA_SET, name, each.namespace, patch)
            except NotFound:
                continue

    async def _prune(self, found: FunctionObject, known: Iterable[ReplicaSet], keep: set[str]) -> None:
        for each in revisions.to_prune(known, keep):
            log.info("%s: pruning revision %s", found.key, each.name)
            try:
                await self._client.delete(
                    REPLICA_SET, each.name, each.namespace, propagation="Background", uid=each.metadata.uid
                )
            except NotFound:
                continue


def _sooner(one: float | None, other: float | None) -> float | None:
    return one if other is None else other if one is None else min(one, other)


class _Taken(Exception):
    """A name that we need belongs to somebody else."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def _packaged(function: Function) -> Verdict:
    spec = function.spec
    if spec.runtime == "image":
        return Verdict("True", "Image", f"the image {spec.image} is the package")
    if spec.package is None:
        return Verdict(
            "False", "PackageMissing", "spec.package.digest is not set: upload a package, or run faas deploy"
        )
    return Verdict("True", "PackageSet", spec.package.digest)


def _serving(found: FunctionObject) -> set[str]:
    """The revisions that take calls."""
    return {str(each.get("revision")) for each in found.status.get("traffic") or ()}


def _is_ready(found: FunctionObject) -> bool:
    """Whether its status says so."""
    return any(
        each.get("type") == "Ready" and each.get("status") == "True" for each in found.status.get("conditions") or ()
    )


def _fails(pod: Pod | None) -> bool:
    return pod is not None and revisions.diagnose([pod], None) is not None


def _same_wish(old: FunctionObject, new: FunctionObject) -> bool:
    """Whether a change left alone all but the status."""
    was, now = old.metadata, new.metadata
    return (was.uid, was.generation, was.deletion_timestamp, was.labels, was.annotations) == (
        now.uid, now.generation, now.deletion_timestamp, now.labels, now.annotations,
    )  # fmt: skip


def _same_revision(old: ReplicaSet, new: ReplicaSet) -> bool:
    """Whether a change left alone all but `replicas` and the counts."""
    return (
        old.metadata.labels == new.metadata.labels
        and old.metadata.annotations == new.metadata.annotations
        and old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        and old.metadata.owner_references == new.metadata.owner_references
        and old.status.conditions == new.status.conditions
        and (old.metadata.generation == new.metadata.generation or old.spec.template == new.spec.template)
    )


def _owner_uid(found: ReplicaSet) -> list[str]:
    controller = found.metadata.controller
    return [controller.uid] if controller is not None and controller.kind == names.FUNCTION.kind else []


def _revision_key(pod: Pod) -> list[str]:
    revision = pod.metadata.labels.get(names.LABEL_REVISION)
    return [f"{pod.namespace}/{revision}"] if revision else []
