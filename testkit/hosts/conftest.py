"""Several machines on this one, made by `skep play`, and the stock docker CLI on each.

SKEP names the binary under test; SKEP_LONG=1 adds what takes minutes. Figures of time are told at the end and judged with
room: a busy machine is no failure. What a test leaves behind fails it.
"""
import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from common import busybox_tar, until  # noqa: E402

SKEP = os.environ.get("SKEP", "skep")
IS_LONG = os.environ.get("SKEP_LONG") == "1"
IMAGE = "test/busybox:1"
# Daemons inherit it. The image is on every machine, and none of them has a way to a registry to ask for a newer one.
os.environ["DOCKER_SERVICE_PREFER_OFFLINE_IMAGE"] = "1"

FIGURES = []


def figure(what, seconds, must=None):
    """Notes how long something took. A busy machine is slow, but not slower than four times and ten seconds beyond what must be."""
    FIGURES.append(f"{seconds:7.2f} s  {what}" + (f" (must {must} s)" if must else ""))
    assert not must or seconds < 4 * must + 10, f"{what}: {seconds:.2f} s"


def pytest_configure():
    def stop(*_):
        raise KeyboardInterrupt
    # So that machines are removed, as they are after Ctrl-C.
    signal.signal(signal.SIGTERM, stop)


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        terminalreporter.section("times")
        terminalreporter.write_line("\n".join(FIGURES))


@pytest.hookimpl(tryfirst=True, hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """After a failure, what the daemons logged is part of the report."""
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for play in getattr(item, "plays", []):
            for node in play.nodes:
                with contextlib.suppress(OSError):
                    lines = (play.folder / node / "daemon.log").read_text().splitlines()
                    report.sections.append((f"daemon of {node}", "\n".join(lines[-40:])))


class Play:
    """One play; machines are n1, n2, …"""

    def __init__(self, name, nodes):
        self.name, self.folder = name, pathlib.Path("/var/lib/skep-play") / name
        self.nodes = [f"n{i + 1}" for i in range(nodes)]
        self.disks = []

    def skep(self, verb, *args, check=True, timeout=120):
        done = subprocess.run([SKEP, "play", verb, "--name", self.name, *args], text=True, capture_output=True, timeout=timeout)
        assert not check or done.returncode == 0, f"play {verb} {args}: {done.stdout}{done.stderr}"
        return done

    def docker(self, node, *args, check=True, timeout=60, stdin=None):
        """The stock CLI against the daemon of a machine."""
        environment = dict(os.environ, DOCKER_HOST=f"unix://{self.folder / node}/docker.sock", DOCKER_CLI_HINTS="0",
                           DOCKER_CONFIG=str(self.folder / "cfg"))
        done = subprocess.run(["docker", *args], env=environment, text=True, capture_output=True, timeout=timeout, input=stdin)
        assert not check or done.returncode == 0, f"{node}: docker {args}: {done.stdout}{done.stderr}"
        return done

    def out(self, node, *args, **options):
        return self.docker(node, *args, **options).stdout.strip()

    def error(self, node, *args, **options):
        done = self.docker(node, *args, check=False, **options)
        return done.stderr.strip() if done.returncode else ""

    def json(self, node, *args):
        return json.loads(self.out(node, *args))

    # Machines.

    def kill(self, *nodes):
        self.skep("kill", *nodes)

    def start(self, *nodes):
        self.skep("start", *nodes)

    def address(self, node):
        return json.loads((self.folder / node / "machine.json").read_text())["address"].split("/")[0]

    def address6(self, node):
        return json.loads((self.folder / node / "machine.json").read_text())["address6"].split("/")[0]

    def move(self, node, last):
        """Gives a machine that is off another address in the same network."""
        path = self.folder / node / "machine.json"
        spec = json.loads(path.read_text())
        ip, length = spec["address"].split("/")
        spec["address"] = f"{ip.rsplit('.', 1)[0]}.{last}/{length}"
        path.write_text(json.dumps(spec))

    def own_disk(self, node, size):
        """Puts the data root of a machine that is off on a small disk of its own."""
        data = self.folder / node / "data"
        kept = data.with_name("kept")
        data.rename(kept)
        data.mkdir()
        self.disks.append(data)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(data)], check=True)
        subprocess.run(["cp", "-a", f"{kept}/.", str(data)], check=True)

    def inside(self, node, *command, **options):
        return self.skep("exec", node, *command, **options)

    def daemon_pid(self, node):
        """Pid of a machine's daemon, as seen from here."""
        data = str(self.folder / node / "data").encode()
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if words[1:2] == [b"daemon"] and data in words:
                    return int(entry.name)
        return None

    def load(self, rootfs):
        for node in self.nodes:
            self.docker(node, "import", "--change", 'CMD ["sh"]', str(rootfs), IMAGE)

    def containers(self, node):
        """Full ids of what runs on a machine."""
        return set(self.out(node, "ps", "-q", "--no-trunc").split())

    # The swarm, as one of its managers sees it.

    def swarm(self, managers):
        """Makes the machines a swarm by hand, as a user does."""
        first, *others = self.nodes
        self.docker(first, "swarm", "init", "--advertise-addr", self.address(first))
        for number, node in enumerate(others, 2):
            self.join(node, "manager" if number <= managers else "worker")
        until(lambda: list(self.node_list(first).values()).count(["Ready", "Reachable"]) == managers - 1, 30, "all managers are reachable")

    def join(self, node, role, via="n1"):
        token = self.out(via, "swarm", "join-token", "-q", role)
        self.docker(node, "swarm", "join", "--token", token, "--advertise-addr", self.address(node), f"{self.address(via)}:2377")

    def local_state(self, node):
        return self.out(node, "info", "--format", "{{.Swarm.LocalNodeState}}")

    def node_list(self, via):
        """{host name: [status, part as a manager]}; a worker has no part."""
        rows = self.out(via, "node", "ls", "--format", "{{.Hostname}} {{.Status}} {{.ManagerStatus}}", check=False).splitlines()
        return {row.split()[0]: row.split()[1:] for row in rows}

    def status(self, via, node):
        return self.node_list(via).get(node, [""])[0]

    def all_ready(self, via):
        found = self.node_list(via)
        return len(found) == len(self.nodes) and all(rest[0] == "Ready" for rest in found.values()) and "Unreachable" not in str(found)

    def leader(self, *candidates):
        for node in candidates or self.nodes:
            for name, rest in self.node_list(node).items():
                if rest[-1:] == ["Leader"]:
                    return name
        return None

    def any_leader(self, *candidates):
        return until(lambda: self.leader(*candidates), 30, "a leader")

    def services(self, via):
        return self.out(via, "service", "ls", "--format", "{{.Name}}", check=False).split()

    def tasks(self, via, service):
        """{task id: (node, state, desired state)} of all tasks that are still known"""
        text = self.out(via, "service", "ps", "--no-trunc", "--format", "{{.ID}} {{.Node}} {{.DesiredState}} {{.CurrentState}}",
                        service, check=False)
        rows = [line.split() for line in text.splitlines()]
        return {row[0]: (row[1], row[3], row[2]) for row in rows if len(row) >= 4}

    def running(self, via, service):
        """{task id: node} of what runs and is wanted"""
        return {t: n for t, (n, state, wanted) in self.tasks(via, service).items() if state == "Running" and wanted == "Running"}

    def runs(self, via, service, count, but=(), seconds=40):
        """Waits until `count` tasks run, none of them on the machines of `but`; {task id: node}"""
        def found():
            running = self.running(via, service)
            return running if len(running) == count and not set(running.values()) & set(but) else None
        return until(found, seconds, f"{count} of {service} run, none on {but}: {self.tasks(via, service)}")

    def create(self, via, name, replicas, *args, command=("sleep", "100000")):
        return self.out(via, "service", "create", "--detach", "--no-resolve-image", "--name", name, "--replicas", str(replicas),
                        "--stop-grace-period", "1s", *args, IMAGE, *command)

    def write(self, nodes, name, seconds=30):
        """Creates a service of no replicas on the first of `nodes` that takes it; seconds it took."""
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            for node in nodes:
                done = self.docker(node, "service", "create", "--detach", "--no-resolve-image", "--name", name, "--replicas", "0",
                                   IMAGE, check=False)
                # What was cut short by the leader's end may have been written all the same.
                if done.returncode == 0 or name in self.services(node):
                    return time.monotonic() - began
        raise AssertionError(f"no write within {seconds} s: {done.stderr}")

    def is_in_touch(self, via, node, name):
        """Waits until a machine has started a task that was created just now."""
        self.create(via, name, 1, "--constraint", f"node.hostname=={node}")
        self.runs(via, name, 1)

    # The end.

    def leftovers(self):
        """What the machine still shows of this play."""
        found = {}
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.folder).encode() + b"/" in (entry / "cmdline").read_bytes():
                    found[entry.name] = (entry / "cmdline").read_text()
        groups = pathlib.Path("/sys/fs/cgroup")
        found.update({str(group): "" for pattern in ("", "*/") for group in groups.glob(f"{pattern}skep-play-{self.name}*")})
        found.update({line: "" for line in pathlib.Path("/proc/mounts").read_text().splitlines() if str(self.folder) in line})
        if self.folder.exists():
            found[str(self.folder)] = ""
        return found

    def remove(self):
        for node in self.nodes:
            # What a test halted has to go on before it can end.
            if pid := self.daemon_pid(node):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGCONT)
            if (self.folder / node / "machine.json").exists():
                self.kill(node)
        for disk in self.disks:
            subprocess.run(["umount", str(disk)], check=True)
        if self.folder.exists():
            self.skep("rm")


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory):
    assert shutil.which("docker"), "the stock docker CLI is needed (Debian: docker.io holds one)"
    return busybox_tar(tmp_path_factory.mktemp("image"))


@pytest.fixture
def make(request, rootfs):
    """Makes plays that are removed after the test."""
    made = request.node.plays = []

    def play(nodes, *flags, managers=None):
        new = Play(f"t{os.getpid()}-{len(made)}", nodes)
        made.append(new)
        new.made = subprocess.run([SKEP, "play", "--name", new.name, "--nodes", str(nodes), *(flags or ["--no-swarm"])],
                                  text=True, capture_output=True, timeout=120)
        assert new.made.returncode == 0, new.made.stderr
        new.load(rootfs)
        if managers:
            new.swarm(managers)
        return new
    yield play
    # An impatient second Ctrl-C must not keep machines alive.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for one in made:
            one.remove()
        for one in made:
            assert not one.leftovers(), one.leftovers()
        seen = subprocess.run("ip -o link; nft list tables", shell=True, capture_output=True, text=True).stdout
        assert "skp" not in seen, seen
    finally:
        signal.signal(signal.SIGINT, before)
