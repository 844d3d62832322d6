"""The daemon itself: TLS, reload, logs, clean stop."""
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time

import pytest
from conftest import IMAGE, SKEP, Daemon, finished, until


def certificates(folder):
    """An authority, and certificates of a server on 127.0.0.1 and of a client."""
    run = lambda *words: subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")
    for name, usage in (("server", "serverAuth"), ("client", "clientAuth")):
        (folder / "ext").write_text(f"subjectAltName=IP:127.0.0.1\nextendedKeyUsage={usage}\n")
        run("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
            "-out", f"{name}.pem", "-days", "2", "-extfile", "ext")


def test_tcp_with_tls_lets_in_who_has_a_certificate(tmp_path):
    certificates(tmp_path)
    daemon = Daemon(tempfile.mkdtemp(prefix="skt", dir="/tmp"), "-H", "tcp://127.0.0.1:23760", "--tlsverify",
                    "--tlscacert", str(tmp_path / "ca.pem"), "--tlscert", str(tmp_path / "server.pem"), "--tlskey", str(tmp_path / "server.key"))
    daemon.start()
    try:
        docker = ["docker", "-H", "tcp://127.0.0.1:23760", "--tlscacert", str(tmp_path / "ca.pem")]
        mine = ["--tlsverify", "--tlscert", str(tmp_path / "client.pem"), "--tlskey", str(tmp_path / "client.key")]
        version = ["version", "--format", "{{.Server.Version}}"]
        assert subprocess.run([*docker, *mine, *version], capture_output=True, text=True).returncode == 0
        stranger = subprocess.run([*docker, "--tls", *version], capture_output=True, text=True)
        assert stranger.returncode != 0 and "certificate required" in stranger.stderr
    finally:
        finished(daemon)


def test_hangup_reads_the_configuration_again(tmp_path):
    config = tmp_path / "daemon.json"
    config.write_text('{"labels": ["a=1"]}')
    daemon = Daemon(tempfile.mkdtemp(prefix="skt", dir="/tmp"), "--config-file", str(config))
    daemon.start()
    try:
        labels = lambda: daemon.call("GET", "/info")[1]["Labels"]
        assert labels() == ["a=1"]
        config.write_text('{"labels": ["a=2"]}')
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: labels() == ["a=2"], 5, "the new label")
        config.write_text("{")
        daemon.process.send_signal(signal.SIGHUP)
        until(lambda: "configuration not reloaded" in (daemon.base / "daemon.log").read_text(), 5, "the refusal")
        assert labels() == ["a=2"]
    finally:
        finished(daemon)


@pytest.mark.parametrize("file, says", [
    ('{"nope": 1}', "the following directives don't match any configuration option: nope"),
    ('{"hosts": ["unix:///x"]}', "the following directives are specified both as a flag and in the configuration file: hosts"),
])
def test_a_wrong_configuration_ends_the_start(tmp_path, file, says):
    config = tmp_path / "daemon.json"
    config.write_text(file)
    done = subprocess.run([SKEP, "daemon", "-H", f"unix://{tmp_path}/s", "--config-file", str(config), "--data-root", str(tmp_path / "d"),
                           "--exec-root", str(tmp_path / "e"), "--pidfile", str(tmp_path / "p")], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and says in done.stderr
    assert not os.path.exists(tmp_path / "s")


def test_logs_in_json_and_a_quick_clean_stop(rootfs):
    daemon = Daemon(tempfile.mkdtemp(prefix="skt", dir="/tmp"), "--log-format", "json")
    daemon.start()
    daemon.docker("import", str(rootfs), IMAGE)
    daemon.docker("run", "-d", "--name", "stays", IMAGE, "sleep", "1000")
    pid = daemon.json("inspect", "stays")[0]["State"]["Pid"]
    stopping = subprocess.Popen(["docker", "stop", "-t", "30", "stays"], env=dict(os.environ, DOCKER_HOST=f"unix://{daemon.socket}"),
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    began = time.monotonic()
    daemon.end()
    assert time.monotonic() - began < 5
    stopping.wait(20)
    assert os.path.exists(f"/proc/{pid}")
    for line in (daemon.base / "daemon.log").read_text().splitlines():
        json.loads(line)
    finished(daemon)


def groups_of(pid):
    """Path of the process in each cgroup tree."""
    return {line.split(":", 2)[2] for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().split()}


def test_what_ends_the_daemons_cgroup_leaves_containers_alone(own):
    d = own
    mounts = [line.split()[1:3] for line in pathlib.Path("/proc/mounts").read_text().splitlines()]
    unit = [pathlib.Path(path) / f"unit{d.tag}" for path, kind in mounts if kind in ("cgroup", "cgroup2")]

    def put(pid):
        for group in unit:
            (group / "cgroup.procs").write_text(str(pid))
    for group in unit:
        group.mkdir()
        for file in ("cpuset.cpus", "cpuset.mems"):
            if (group / file).exists() and (group.parent / "cgroup.clone_children").exists():
                (group / file).write_text((group.parent / file).read_text())
    put(d.process.pid)
    d.docker("run", "-d", "--name", "stays", IMAGE, "sleep", "1000")
    d.docker("exec", "-d", "stays", "sleep", "2000")
    assert len(d.shims()) == 2
    shims = {f"{d.cgroup}/shims"}
    are_moved = lambda: all(groups_of(pid) == shims for pid in d.shims())
    until(are_moved, 5, "the shims are in a cgroup of their own")
    pid = d.json("inspect", "stays")[0]["State"]["Pid"]
    # As systemd does with KillMode=control-group.
    for group in unit:
        for member in (group / "cgroup.procs").read_text().split():
            os.kill(int(member), signal.SIGKILL)
    d.process.wait(10)
    assert os.path.exists(f"/proc/{pid}") and len(d.shims()) == 2
    # A shim that an older daemon left where it was is moved by the next one; and one that just began by a daemon that stops.
    for shim in d.shims():
        put(shim)
    d.start()
    until(are_moved, 5, "the shims are moved again")
    d.docker("run", "-d", "--name", "late", IMAGE, "sleep", "1000")
    d.end()
    assert are_moved() and len(d.shims()) == 3
    d.start()
    assert d.json("inspect", "stays")[0]["State"]["Pid"] == pid
    d.docker("rm", "-f", "stays", "late")
    until(lambda: not d.cgroups(), 5, "no group is left")
    for group in unit:
        group.rmdir()


def test_a_stream_of_events_tells_of_every_swarm_that_comes(own):
    d = own
    environment = dict(os.environ, DOCKER_HOST=f"unix://{d.socket}")
    events = subprocess.Popen(["docker", "events", "--filter", "type=service", "--format", "{{.Action}} {{.Actor.Attributes.name}}"],
                              env=environment, stdout=subprocess.PIPE, text=True)
    try:
        until(lambda: d.call("GET", "/info")[1]["NEventsListener"] == 1, 10, "it listens")
        for name in ("first", "second"):
            d.found_swarm()
            d.docker("service", "create", "--detach", "--no-resolve-image", "--replicas", "0", "--name", name, IMAGE)
            assert events.stdout.readline() == f"create {name}\n"
            d.docker("swarm", "leave", "--force")
    finally:
        events.kill()
        events.wait()
