"""A daemon of its own for the tests, and the clients that talk to it.

SKEP names the binary under test. Everything lives below one temporary folder; names of cgroups, bridge and containers are
derived from it, so that several runs don't meet. What a test leaves behind fails the run at its end.
"""
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
from common import busybox_tar, until  # noqa: E402, F401

SKEP = os.environ.get("SKEP", "skep")
IMAGE = "test/busybox:1"


class Unix(http.client.HTTPConnection):
    def __init__(self, path, timeout=60):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Daemon:
    """One daemon; may be stopped, killed and started again on the same roots."""

    count = 0

    def __init__(self, base, *flags):
        self.base = pathlib.Path(base)
        self.flags = list(flags)
        self.tag = "".join(c for c in self.base.name if c.isalnum())
        self.bridge = f"skt{self.tag[-6:]}"
        self.cgroup = f"/skt-{self.tag}"
        self.socket = str(self.base / "s.sock")
        self.process = None
        Daemon.count += 1
        # Of its own: every manager listens on the same port.
        self.address = f"127.66.0.{Daemon.count}"

    def found_swarm(self):
        self.docker("swarm", "init", "--advertise-addr", self.address, "--listen-addr", self.address)

    def start(self):
        command = [SKEP, "daemon", "-H", f"unix://{self.socket}", "--data-root", str(self.base / "data"),
                   "--exec-root", str(self.base / "exec"), "--pidfile", str(self.base / "pid"),
                   "--bridge", self.bridge, "--cgroup-parent", self.cgroup, "--log-level", "debug", *self.flags]
        began = time.monotonic()
        with open(self.base / "daemon.log", "a") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self.answers, 20, "the daemon answers")
        return time.monotonic() - began

    def answers(self):
        assert self.process.poll() is None, (self.base / "daemon.log").read_text()[-3000:]
        with contextlib.suppress(OSError):
            return self.call("GET", "/_ping")[0] == 200

    def end(self, sign=signal.SIGTERM):
        if self.process:
            self.process.send_signal(sign)
            self.process.wait(30)
            self.process = None

    def call(self, method, path, body=None, raw=None, headers=None):
        """(status, decoded JSON or text)"""
        connection = Unix(self.socket)
        headers = dict(headers or {})
        data = raw if raw is not None else (json.dumps(body) if body is not None else None)
        if data is not None:
            headers.setdefault("Content-Type", "application/json")
        connection.request(method, path, data, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        connection.close()
        with contextlib.suppress(ValueError):
            return answer.status, json.loads(text)
        return answer.status, text

    def _client(self, program, *args, **options):
        environment = dict(os.environ, DOCKER_HOST=f"unix://{self.socket}", DOCKER_CLI_HINTS="0",
                           DOCKER_CONFIG=str(self.base / "cfg"))
        options.setdefault("timeout", 90)
        return subprocess.run([program, *args], env=environment, text=True, capture_output=True, **options)

    def docker(self, *args, check=True, **options):
        done = self._client("docker", *args, **options)
        assert not check or done.returncode == 0, f"docker {args}: {done.stdout}{done.stderr}"
        return done

    def skep(self, *args, check=True, **options):
        done = self._client(SKEP, *args, **options)
        assert not check or done.returncode == 0, f"skep {args}: {done.stdout}{done.stderr}"
        return done

    def out(self, *args, **options):
        return self.docker(*args, **options).stdout.strip()

    def json(self, *args):
        return json.loads(self.out(*args))

    # What lives on the machine because of this daemon.
    def shims(self):
        """pid -> folder of each shim of this daemon"""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if len(words) > 2 and words[1] == b"shim" and str(self.base).encode() in words[2]:
                        found[int(entry.name)] = words[2].decode()
        return found

    def cgroups(self):
        return [str(p) for p in pathlib.Path("/sys/fs/cgroup").glob(f"*{self.cgroup}/*") if p.is_dir()]

    def leftovers(self):
        mounts = [m for m in pathlib.Path("/proc/mounts").read_text().splitlines() if str(self.base) in m]
        return {"shims": self.shims(), "cgroups": self.cgroups(), "mounts": mounts}

    def clear(self):
        """Removes services and containers and waits until the machine shows nothing of them."""
        if self.call("GET", "/info")[1]["Swarm"]["LocalNodeState"] != "inactive":
            for service in self.services():
                self.call("DELETE", f"/services/{service['ID']}")
        # Task containers go with their service.
        until(lambda: not [c for c in self.containers() if "com.docker.swarm.task.id" in c["Labels"]], 60, "no task")
        for container in self.containers():
            self.call("DELETE", f"/containers/{container['Id']}?force=1&v=1")
        # The ingress network stays for as long as the machine is in the swarm.
        left = lambda: {k: [m for m in v if "/netns/" not in m] for k, v in self.leftovers().items()}  # noqa: E731
        until(lambda: not any(left().values()), 20, f"nothing left: {left()}")

    def services(self):
        """All services, once the manager of a daemon that has just started, or whose disk was full, answers."""
        status, found = until(lambda: (lambda got: got if got[0] == 200 else None)(self.call("GET", "/services")), 40, "the manager answers")
        return found

    def containers(self):
        return self.call("GET", "/containers/json?all=1")[1]


@pytest.fixture(scope="session")
def rootfs(tmp_path_factory):
    return busybox_tar(tmp_path_factory.mktemp("image"))


def started(rootfs, *flags):
    base = tempfile.mkdtemp(prefix="skt", dir="/tmp")
    daemon = Daemon(base, *flags)
    daemon.start()
    daemon.docker("import", "--change", 'CMD ["sh"]', str(rootfs), IMAGE)
    return daemon


def finished(daemon):
    if daemon.process is None:
        daemon.start()
    daemon.clear()
    daemon.call("POST", "/swarm/leave?force=1")
    daemon.end()
    left = {k: v for k, v in daemon.leftovers().items() if v}
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True).stdout
    assert not left, left
    assert daemon.bridge not in links and daemon.bridge not in tables, (links, tables)
    shutil.rmtree(daemon.base)


@pytest.fixture(scope="session")
def _shared(rootfs):
    assert shutil.which("docker"), "the stock docker CLI is needed (Debian: docker.io holds one)"
    daemon = started(rootfs)
    yield daemon
    finished(daemon)


@pytest.fixture
def d(_shared):
    """The shared daemon, emptied after each test."""
    yield _shared
    _shared.clear()


@pytest.fixture
def own(rootfs):
    """A daemon of this test's own, to be killed."""
    daemon = started(rootfs)
    yield daemon
    finished(daemon)


@pytest.fixture
def swarm(d):
    """The shared daemon as a swarm of one."""
    if d.call("GET", "/info")[1]["Swarm"]["LocalNodeState"] != "active":
        d.found_swarm()
    return d


@pytest.fixture(scope="session")
def registry(tmp_path_factory):
    """A registry on loopback; yields its host:port."""
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = folder / "config.yml"
    config.write_text(f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {folder}/store\n"
                      f"  delete:\n    enabled: true\nhttp:\n  addr: 127.0.0.1:{port}\n")
    program = "docker-registry" if shutil.which("docker-registry") else "registry"
    process = subprocess.Popen([program, "serve", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ready():
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
    until(ready, 20, "the registry listens")
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


def task_list(daemon, service, **filters):
    """Tasks of a service, newest first."""
    from urllib.parse import quote
    asked = {"service": {service: True}, **{k: {v: True} for k, v in filters.items()}}
    found = daemon.call("GET", "/tasks?filters=" + quote(json.dumps(asked)))[1]
    return sorted(found, key=lambda task: task["CreatedAt"], reverse=True)


def running(daemon, service):
    return [t for t in task_list(daemon, service) if t["Status"]["State"] == "running" and t["DesiredState"] == "running"]
