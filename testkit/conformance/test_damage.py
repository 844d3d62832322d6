"""A full disk and damaged images: Docker's words, nothing half made, and all is well again when the cause is gone.

The disk is a small file system in memory, mounted at the daemon's data root in the mount namespace of the test run.
"""
import contextlib
import gzip
import hashlib
import http.server
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import time
import zlib

import pytest
from conftest import IMAGE, Daemon, running, until

MIB = 1 << 20
FULL = "no space left on device"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Registry(http.server.ThreadingHTTPServer):
    """Serves what it is told, also what is wrong; `answers` is path -> (media type, bytes)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers = {"/v2/": ("application/json", b"{}")}
        # path -> what its answer waits for
        self.stuck = {}
        self.name = f"127.0.0.1:{self.server_port}"

    def put(self, tag, *layers):
        """An image of layers in (compressed) tars; returns its name."""
        def blob(data):
            digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
            self.answers[f"/v2/box/blobs/{digest}"] = ("application/octet-stream", data)
            return {"digest": digest, "size": len(data)}

        def diff_id(layer):
            with contextlib.suppress(OSError, EOFError, zlib.error):
                layer = gzip.decompress(layer)
            return f"sha256:{hashlib.sha256(layer).hexdigest()}"
        described = [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **blob(layer)} for layer in layers]
        config = {"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
                  "rootfs": {"type": "layers", "diff_ids": [diff_id(layer) for layer in layers]}}
        config = {"mediaType": "application/vnd.oci.image.config.v1+json", **blob(json.dumps(config).encode())}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": described}
        self.answers[f"/v2/box/manifests/{tag}"] = (MANIFEST, json.dumps(manifest).encode())
        return f"{self.name}/box:{tag}"

    def blob_of(self, layer):
        return f"/v2/box/blobs/sha256:{hashlib.sha256(layer).hexdigest()}"


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path in self.server.stuck:
            self.server.stuck[self.path].wait(60)
        kind, data = self.server.answers.get(self.path, ("application/json", None))
        self.send_response(404 if data is None else 200)
        data = b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}' if data is None else data
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Docker-Content-Digest", f"sha256:{hashlib.sha256(data).hexdigest()}")
        self.end_headers()
        if self.command == "GET":
            try:
                self.wfile.write(data)
            except OSError:
                # The daemon has had enough.
                self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def serves():
    registry = Registry()
    thread = threading.Thread(target=registry.serve_forever)
    thread.start()
    yield registry
    registry.shutdown()
    registry.server_close()
    thread.join()


def layer(*files):
    """A tar of (name, content) pairs."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return made.getvalue()


class Small(Daemon):
    """A daemon whose data root is a disk of its own."""

    def __init__(self, rootfs, mib):
        super().__init__(tempfile.mkdtemp(prefix="skt", dir="/tmp"))
        self.data = self.base / "data"
        self.data.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "small", self.data], check=True)
        self.start()
        self.docker("import", "--change", 'CMD ["sh"]', str(rootfs), IMAGE)

    def start(self):
        took = super().start()
        self.pid = self.process.pid
        return took

    def lives(self):
        """Whether it is the process that a test started."""
        return self.process.poll() is None and self.process.pid == self.pid

    def leftovers(self):
        left = super().leftovers()
        left["mounts"] = [m for m in left["mounts"] if f" {self.data} tmpfs " not in m]
        return left

    def grow(self, mib):
        subprocess.run(["mount", "-o", f"remount,size={mib}m", self.data], check=True)

    def used(self):
        found = os.statvfs(self.data)
        return (found.f_blocks - found.f_bfree) * found.f_frsize

    def fill(self, leave=0):
        """Takes all room but `leave` bytes; `free` gives it back."""
        with open(self.data / "filler", "ab") as filler:
            with pytest.raises(OSError):
                while True:
                    filler.write(bytes(MIB))
                    filler.flush()
        # tmpfs gives whole pages, and the last write was cut short.
        size = os.path.getsize(self.data / "filler")
        os.truncate(self.data / "filler", max(size - leave, 0))

    def free(self):
        os.remove(self.data / "filler")

    def images(self):
        return self.out("images", "--all", "--quiet", "--no-trunc"), sorted(os.listdir(self.data / "images/tmp"))


@pytest.fixture(scope="module")
def _small(rootfs):
    daemon = Small(rootfs, 32)
    yield daemon
    daemon.clear()
    daemon.call("POST", "/swarm/leave?force=1")
    daemon.end()
    subprocess.run(["umount", daemon.data], check=True)
    left = {k: v for k, v in daemon.leftovers().items() if v}
    assert not left, left
    shutil.rmtree(daemon.base)


@pytest.fixture
def small(_small):
    """The daemon with the small disk, emptied after each test, which must not have ended it."""
    yield _small
    assert _small.lives()
    (_small.data / "filler").unlink(missing_ok=True)
    _small.grow(32)
    _small.clear()
    assert _small.lives()


def refused_for_room(small, work, *args, **options):
    """Runs docker, which is refused for lack of room and leaves nothing of it."""
    images, used = small.images(), small.used()
    done = small.docker(*args, check=False, **options)
    assert done.returncode == 1 and FULL in done.stderr, (work, done)
    assert small.images() == images, work
    # What the records of the engine grow by is not given back.
    assert small.used() <= used + 128 * 1024, (work, used, small.used())
    return done.stderr


@pytest.mark.parametrize("packed", [False, True], ids=["while_downloading", "while_unpacking"])
def test_a_full_disk_ends_a_pull(small, serves, packed):
    big = layer(("small", b"x"), ("big", bytes(40 * MIB)))
    name = serves.put(f"big-{packed}".lower(), layer(("first", b"1")), gzip.compress(big, 1) if packed else big)
    said = refused_for_room(small, "pull", "pull", name)
    assert packed == ("failed to register layer: " in said), said
    small.grow(128)
    assert "Pull complete" in small.docker("pull", name).stdout
    small.docker("rmi", name)


def test_a_full_disk_ends_a_load_and_an_import(small, serves, tmp_path):
    big = layer(("big", bytes(40 * MIB)))
    (tmp_path / "import.tar").write_bytes(big)
    name = serves.put("loaded", gzip.compress(big, 1))
    subprocess.run(["skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"docker-archive:{tmp_path}/a.tar:loaded:1"],
                   check=True, capture_output=True)
    refused_for_room(small, "load", "load", "-i", str(tmp_path / "a.tar"))
    refused_for_room(small, "import", "import", str(tmp_path / "import.tar"), "imported:1")
    small.grow(192)
    assert "Loaded image: loaded:1" in small.out("load", "-i", str(tmp_path / "a.tar"))
    small.docker("import", str(tmp_path / "import.tar"), "imported:1")
    small.docker("rmi", "loaded:1", "imported:1")


def test_a_full_disk_refuses_containers_and_volumes(small):
    small.docker("run", "-d", "--name", "goes-on", IMAGE, "sleep", "1000")
    small.docker("create", "--name", "waits", IMAGE, "echo", "done")
    pid = small.json("inspect", "goes-on")[0]["State"]["Pid"]
    small.fill()
    for work in (["volume", "create", "vol"], ["create", "--name", "made", IMAGE], ["run", "--name", "ran", IMAGE, "true"]):
        for _ in range(3):
            done = small.docker(*work, check=False)
            assert done.returncode in (1, 125, 126) and FULL in done.stderr, (work, done)
    assert small.out("volume", "ls", "-q") == ""
    assert set(small.out("ps", "-a", "--format", "{{.Names}}").split()) == {"goes-on", "waits"}
    started = small.docker("start", "waits", check=False)
    assert started.returncode in (0, 1) and (started.returncode == 0 or FULL in started.stderr), started
    small.free()
    small.docker("start", "waits")
    assert until(lambda: small.out("logs", "waits"), 10, "it has run").endswith("done")
    state = small.json("inspect", "goes-on")[0]["State"]
    assert state["Running"] and state["Pid"] == pid
    small.docker("volume", "create", "vol")
    small.docker("run", "--rm", "--name", "made", "-v", "vol:/v", IMAGE, "true")
    small.docker("volume", "rm", "vol")


def test_a_full_disk_loses_no_acknowledged_service(small):
    small.found_swarm()

    def create(name):
        return small.docker("service", "create", "--detach", "--no-resolve-image", "--name", name, "--restart-delay", "100ms",
                            "--stop-grace-period", "1s", IMAGE, "sleep", "100000", check=False)
    assert create("before").returncode == 0
    task = until(lambda: running(small, "before"), 20, "it runs")[0]["Status"]["ContainerStatus"]
    small.fill(leave=300 * 1024)
    acknowledged, refused, replicas = {"before"}, [], {1}
    scale = ["service", "update", "--detach", "--no-resolve-image", "--replicas"]
    for n in range(12):
        done = create(f"s{n}")
        if done.returncode == 0:
            acknowledged.add(f"s{n}")
        else:
            refused.append(f"s{n}")
            # Docker's words for a manager that is down, as it is after its disk refused.
            assert FULL in done.stderr or "has trouble connecting to the cluster" in done.stderr, done
        # A change that was not acknowledged may have been made or not.
        count = n % 3 + 1
        replicas = {count} if small.docker(*scale, str(count), "before", check=False).returncode == 0 else replicas | {count}
    assert refused, "the disk is full"
    print("acknowledged", acknowledged, "refused", refused)
    # Whatever room was left, is left no more: its next write ends the manager, and it stays so until there is room.
    small.fill()

    def shows_it():
        if create("full").returncode == 0:
            acknowledged.add("full")
        told = small.call("GET", "/info")[1]["Swarm"]
        return told["LocalNodeState"] == "error" and FULL in told["Error"]
    until(shows_it, 20, "the manager is down")
    for _ in range(10):
        assert shows_it(), small.call("GET", "/info")[1]["Swarm"]
    assert small.lives()
    assert os.path.exists(f"/proc/{task['PID']}")
    small.free()

    def as_acknowledged():
        held = {s["Spec"]["Name"]: s["Spec"]["Mode"]["Replicated"]["Replicas"] for s in small.services()}
        assert acknowledged <= set(held), (acknowledged, held)
        assert held["before"] in replicas, (held, replicas)
        return held

    def all_run():
        return all(len(running(small, name)) == count for name, count in as_acknowledged().items())
    until(all_run, 30, f"{acknowledged} run, {refused} were refused")
    assert create("after").returncode == 0
    until(lambda: running(small, "after"), 20, "a new one runs")
    assert task in [t["Status"]["ContainerStatus"] for t in running(small, "before")], "it went on"
    # And all of it is on the disk.
    acknowledged.add("after")
    small.end(signal.SIGKILL)
    small.start()
    until(all_run, 30, "all is as before")
    assert task in [t["Status"]["ContainerStatus"] for t in running(small, "before")], "it went on"


GOOD = [("etc/mark", b"good"), ("etc/more", bytes(range(256)) * 64)]


def damaged(kind):
    """(layer that is announced, what is served in its place if that is another, what is said)"""
    good = gzip.compress(layer(*GOOD), mtime=0)
    plain = layer(*GOOD)
    return {
        "wrong digest": (good, good[:-9] + bytes([good[-9] ^ 1]) + good[-8:], "filesystem layer verification failed for digest sha256:"),
        "cut short": (good, good[:-100], "unexpected EOF"),
        "bad gzip": (good[:40] + bytes(40) + good[80:], None, "failed to register layer: "),
        "bad tar": (gzip.compress(plain[:100] + b"\xff" * 412 + plain[512:], mtime=0), None, "failed to register layer: "),
        "tar cut short": (gzip.compress(plain[:700], mtime=0), None, "failed to register layer: "),
    }[kind]


@pytest.mark.parametrize("kind", ["wrong digest", "cut short", "bad gzip", "bad tar", "tar cut short"])
def test_a_damaged_layer_is_refused(small, serves, kind):
    announced, served, said = damaged(kind)
    tag = kind.replace(" ", "-")
    name = serves.put(tag, announced)
    if served is not None:
        serves.answers[serves.blob_of(announced)] = ("application/octet-stream", served)
    images, used = small.images(), small.used()
    done = small.docker("pull", name, check=False)
    assert done.returncode == 1 and said in done.stderr, done
    assert small.images() == images and small.used() <= used + 128 * 1024
    assert small.docker("image", "inspect", name, check=False).returncode == 1
    name = serves.put(tag, gzip.compress(layer(*GOOD), mtime=0))
    small.docker("pull", name)
    small.docker("rmi", name)


def test_a_stop_ends_a_pull_at_once(small, serves):
    small_layer, big = layer(("a", b"1")), layer(("b", b"2"))
    name = serves.put("slow", small_layer, big)
    before = small.images()
    path = serves.blob_of(big)
    serves.stuck[path] = threading.Event()
    environment = dict(os.environ, DOCKER_HOST=f"unix://{small.socket}", DOCKER_CONFIG=str(small.base / "cfg"))
    pull = subprocess.Popen(["docker", "pull", name], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        # The small layer is there, the other one is waited for.
        for line in pull.stdout:
            if "Pull complete" in line or "Download complete" in line:
                break
        began = time.monotonic()
        small.end()
        took = time.monotonic() - began
    finally:
        serves.stuck.pop(path).set()
    assert pull.wait(10) == 1
    assert took < 1, took
    small.start()
    assert small.images() == before
    small.docker("pull", name)
    small.docker("rmi", name)
