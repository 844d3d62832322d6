"""What tests of networks share: a service that says who asked, clients on every side, and look-ups in tasks."""
import collections
import contextlib
import pathlib
import socket
import threading
import time
import urllib.request

from common import until

HERE = pathlib.Path(__file__).parent
# Python of this machine, seen from a container that has nothing but busybox.
PYTHON = [word for folder in ("/usr", "/lib", "/lib64") for word in ("--mount", f"type=bind,source={folder},target={folder},readonly")]
# The C library of a static program wants its parts from there to look anything up, an address included.
VOLUMES = [word for folder in ("/usr", "/lib", "/lib64") for word in ("--volume", f"{folder}:{folder}:ro")]
WHO = [*PYTHON, "--mount", f"type=bind,source={HERE},target=/test,readonly"]


def who(p, via, name, replicas, *args, port=8000):
    """A service that says who answers and who asked; its tasks run once they answer."""
    healthy = ["--health-cmd", f"wget -q -O /dev/null http://127.0.0.1:{port}/", "--health-interval", "200ms", "--health-retries", "100"]
    p.create(via, name, replicas, *WHO, *healthy, "--env", "WHO={{.Task.Name}}", *args,
             command=("/usr/bin/python3", "/test/who.py", str(port)))


def ask(address, port, path="/"):
    """Who answered, and whom it saw."""
    host = f"[{address}]" if ":" in address else address
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=5) as answer:
        return answer.read().decode().split()[:2]


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def ask_udp(address, port, source_port=0):
    with socket.socket(family(address), socket.SOCK_DGRAM) as asking:
        asking.settimeout(2)
        asking.bind(("", source_port))
        asking.sendto(b"who", (address, port))
        answer, sender = asking.recvfrom(2048)
        assert sender[:2] == (address, port), "the answer comes from where the question went"
        return answer.decode().split()[:2]


def answers(address, port, seconds=20):
    """Waits until a machine answers at all."""
    def one():
        with contextlib.suppress(OSError):
            return ask(address, port)
    return until(one, seconds, f"{address}:{port} answers")


def outside(p, address=None):
    """This side's own address in the machines' network, of the version of an address there."""
    address = address or p.address("n1")
    with socket.socket(family(address), socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return probe.getsockname()[0]


def ask_on(p, node, what, times=6):
    """What a client on a machine hears: `what` is a call of one of these functions."""
    script = f"from networks import ask, ask_udp\nfor _ in range({times}): print(*{what})"
    done = p.inside(node, "env", f"PYTHONPATH={HERE}:{HERE.parent}", "/usr/bin/python3", "-c", script)
    return [line.split() for line in done.stdout.splitlines()]


def in_task(p, via, service, *command, check=True):
    """Runs a command in a task of a service, wherever it is."""
    [(task, node)] = list(p.running(via, service).items())[:1]
    [container] = p.out(node, "ps", "-q", "--filter", f"label=com.docker.swarm.task.id={task}").split()
    done = p.docker(node, "exec", container, *command, check=False)
    assert not check or done.returncode == 0, f"{service}: {command}: {done.stdout}{done.stderr}"
    return done.stdout


def resolve(p, via, service, name):
    """Addresses that a name has in a task of a service."""
    text = in_task(p, via, service, "nslookup", name, check=False).split("Name:", 1)
    return sorted(line.split()[-1] for line in text[-1].splitlines() if line.startswith("Address")) if len(text) == 2 else []


class Asking:
    """Clients that never stop asking, until the block ends; what failed."""

    def __init__(self, addresses, port, clients=4):
        self.count, self.failed, self.names, self.over = 0, [], collections.Counter(), threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(addresses[i % len(addresses)], port)) for i in range(clients)]

    def run(self, address, port):
        while not self.over.is_set():
            try:
                self.names[ask(address, port)[0]] += 1
                self.count += 1
            except OSError as error:
                self.failed.append(f"{address}: {error!r}")
            time.sleep(0.005)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()
