"""`skep play` itself: how fast it is, what each verb does, and that it leaves nothing behind."""
import contextlib
import os
import signal
import subprocess
import time
import urllib.request

from conftest import SKEP, Play, figure
from common import until


def test_three_machines_are_one_swarm_within_seconds(make):
    began = time.monotonic()
    p = make(3, "--managers", "3")
    figure("skep play --nodes 3, and the image on each", time.monotonic() - began, 3)
    assert "Ready after" in p.made.stdout and f"unix://{p.folder}/n1/docker.sock" in p.made.stdout
    assert sorted(rest[-1] for rest in p.node_list("n2").values()) == ["Leader", "Reachable", "Reachable"]

    rows = [line.split() for line in p.skep("ls").stdout.splitlines()]
    assert rows[0] == ["NODE", "ADDRESS", "MACHINE", "CABLE", "SWARM", "SOCKET"]
    assert rows[2] == ["n2", p.address("n2"), "on", "plugged", "manager", f"unix://{p.folder}/n2/docker.sock"]
    assert p.skep("exec", "n2", "docker", "info", "--format", "{{.Name}}").stdout == "n2\n"
    assert p.skep("exec", "n2", "sh", "-c", "exit 7", check=False).returncode == 7
    assert p.skep("exec", "n3", "busybox", "ping", "-c1", p.address("n1")).returncode == 0

    # Published ports answer out here.
    p.create("n1", "web", 1, "--constraint", "node.hostname==n3", "--publish", "mode=host,target=80,published=8080",
             command=["httpd", "-f", "-p", "80", "-h", "/etc"])
    p.runs("n1", "web", 1)
    url = f"http://{p.address('n3')}:8080/passwd"
    assert until(lambda: fetch(url), 30, url).startswith("root:")


def fetch(url):
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return answer.read().decode()


def test_switches_and_cables(make):
    p = make(3, managers=1)
    p.create("n1", "web", 3)
    p.runs("n1", "web", 3)

    def state(node):
        return next(line.split()[2:5] for line in p.skep("ls").stdout.splitlines() if line.split()[0] == node)
    mine = p.containers("n2")
    for how in ("stop", "kill"):
        p.skep(how, "--daemon", "n2")
        assert p.error("n2", "ps"), "its daemon is gone when the command returns"
        assert state("n2") == ["on", "plugged", "no"]
        p.skep("start", "n2")
        assert p.containers("n2") == mine, "containers went on"
    shims = [pid for pid, line in p.leftovers().items() if "/n2/" in line and " shim " in line.replace("\0", " ")]
    assert len(shims) == 1
    p.skep("kill", "n2")
    assert not [line for line in p.leftovers().values() if "/n2/" in line], "everything on it ended"
    assert state("n2") == ["off", "-", "-"]
    assert "machine n2 is off; switch it on with" in p.skep("exec", "n2", "true", check=False).stderr
    p.skep("start", "n2")
    until(lambda: p.status("n1", "n2") == "Ready", 30, "n2 is ready")
    p.skep("stop", "n2", "n3")
    assert state("n2") == state("n3") == ["off", "-", "-"]
    p.skep("start", "n2", "n3")
    until(lambda: p.all_ready("n1"), 30, "all are ready")

    def reaches(a, b):
        return p.skep("exec", a, "busybox", "ping", "-c1", "-W1", p.address(b), check=False).returncode == 0
    p.skep("cut", "n3")
    assert state("n3")[:2] == ["on", "cut"] and not reaches("n3", "n1")
    p.skep("heal", "n3")
    assert state("n3")[:2] == ["on", "plugged"]
    until(lambda: reaches("n3", "n1"), 20, "the cable is mended")
    for way in ("--in", "--out"):
        p.skep("cut", way, "n3")
        assert not reaches("n3", "n1")
        p.skep("heal", "n3")
        until(lambda: reaches("n3", "n1"), 20, "the cable is mended")


def test_what_does_not_fit_is_refused(make):
    p = make(1)
    assert "no machine `n9`; there are n1" in p.skep("kill", "n9", check=False).stderr
    again = subprocess.run([SKEP, "play", "--name", p.name, "--nodes", "1"], capture_output=True, text=True)
    assert f"a play `{p.name}` is there already" in again.stderr and again.returncode == 1
    mixed = subprocess.run([SKEP, "play", "--name", p.name, "--nodes", "3", "ls"], capture_output=True, text=True)
    assert "cannot be used with a command" in mixed.stderr and mixed.returncode == 1
    either = subprocess.run([SKEP, "play", "--name", p.name, "ls"], capture_output=True, text=True)
    assert either.stdout == p.skep("ls").stdout
    none = subprocess.run([SKEP, "play", "ls", "--name", "nobody-has-this"], capture_output=True, text=True)
    assert "there is no play `nobody-has-this`" in none.stderr


def test_a_start_that_is_interrupted_can_be_removed(rootfs):
    for number, marker in enumerate(("play.json", "n1/machine.pid", "n2/docker.sock", "n3/docker.sock")):
        p = Play(f"t{os.getpid()}-i{number}", 3)
        process = subprocess.Popen([SKEP, "play", "--name", p.name, "--nodes", "3"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until((p.folder / marker).exists, 20, marker)
            process.send_signal(signal.SIGINT)
            process.wait(20)
        finally:
            p.remove()
        assert not p.leftovers(), p.leftovers()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout
    assert "skp" not in links, links
