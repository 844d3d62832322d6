"""The network bugs that Swarm's users suffered most, each with a test named after it that we must pass.

Where the bug took hours or hundreds of reboots to show, a scaled form of it runs here; each test says what it stands for.
"""
import collections
import contextlib
import json
import random
import socket
import threading
import time

import pytest
from conftest import IS_LONG, figure
from common import until
from networks import PYTHON, Asking, answers, ask, ask_udp, in_task, outside, resolve, who


def addresses(p, via, service):
    """{task id: {network: address}} of a service's tasks that run"""
    running = p.running(via, service)
    found = {}
    for task in running:
        [told] = json.loads(p.out(via, "inspect", "--type", "task", task))
        found[task] = {one["Network"]["Spec"]["Name"]: one["Addresses"][0].split("/")[0] for one in told["NetworksAttachments"]}
    return found


def update(p, *args):
    """An update, made again when the swarm wrote to the service between the client's look and its wish, as clients do."""
    def done():
        told = p.error("n1", "service", "update", "--detach", *args)
        assert not told or "update out of sequence" in told, told
        return not told
    until(done, 20, f"update {args}")


def kernel_objects(p, node):
    """Names of the links, mounts (pinned namespaces among them) and tables that a machine has."""
    lines = lambda *command: p.inside(node, *command).stdout.splitlines()  # noqa: E731
    links = {"link " + line.split(": ")[1].split("@")[0] for line in lines("ip", "-o", "link")}
    return links | {"mount " + line for line in lines("findmnt", "-n", "-l", "-o", "TARGET")} | set(lines("nft", "list", "tables"))


def test_b3_ports_answer_after_reboots(make):
    """Stands for 200 reboots of each machine: two of each, the plug pulled, under traffic to the others."""
    p = make(3, managers=3)
    who(p, "n1", "web", 3, "--publish", "8080:8000", "--restart-delay", "1s")
    p.runs("n1", "web", 3)
    for node in p.nodes * 2:
        p.kill(node)
        others = [other for other in p.nodes if other != node]
        until(lambda: p.leader(*others), 30, "a leader")
        p.start(node)
        began = time.monotonic()
        answers(p.address(node), 8080, 30)
        figure(f"{node} booted: its published port answers", time.monotonic() - began, 15)
        until(lambda: p.all_ready(p.any_leader()), 30, "all are back")
        p.runs(p.any_leader(), "web", 3)
    for node in p.nodes:
        assert len({answers(p.address(node), 8080)[0] for _ in range(12)}) == 3


def test_b4_names_tell_the_truth(make):
    """Stands for an hour of changes: a minute's worth of them, then every machine's answers are what the managers know."""
    p = make(3, managers=3)
    p.docker("n1", "network", "create", "--driver", "overlay", "mine")
    p.create("n1", "look", 3, *PYTHON, "--network", "mine", "--mode", "replicated")
    services = [f"s{i}" for i in range(3)]
    for name in services:
        who(p, "n1", name, 2, "--network", "mine", "--restart-delay", "0s")
    p.runs("n1", "look", 3)
    chance = random.Random(4)
    for _ in range(15):
        name = chance.choice(services)
        what = chance.randrange(4)
        if what == 0:
            update(p, "--replicas", str(chance.randrange(4)), name)
        elif what == 1:
            update(p, "--force", name)
        elif what == 2:
            update(p, "--endpoint-mode", chance.choice(["vip", "dnsrr"]), name)
        elif running := p.running("n1", name):
            task, node = chance.choice(list(running.items()))
            for container in p.out(node, "ps", "-q", "--filter", f"label=com.docker.swarm.task.id={task}").split():
                p.docker(node, "kill", container, check=False)
    looking = {}
    for task, node in p.running("n1", "look").items():
        [looking[node]] = p.out(node, "ps", "-q", "--filter", f"label=com.docker.swarm.task.id={task}").split()
    assert len(looking) == 3

    def told(name):
        wanted = int(p.out("n1", "service", "inspect", "--format", "{{.Spec.Mode.Replicated.Replicas}}", name))
        found = sorted(nets["mine"] for nets in addresses(p, "n1", name).values())
        return found if len(found) == wanted else None

    def agree():
        for name in services:
            truth = told(name)
            for node, container in looking.items():
                text = p.docker(node, "exec", container, "nslookup", f"tasks.{name}", check=False).stdout.split("Name:", 1)
                seen = sorted(line.split()[-1] for line in text[-1].splitlines() if line.startswith("Address")) if len(text) == 2 else []
                if seen != truth:
                    return False
        return True
    until(agree, 60, "every machine says what the managers know")


def test_b5_a_cut_of_ten_seconds_leaves_no_difference(make):
    """Stands for 10,000 cuts: a machine misses changes, and the managers are out for a while; afterwards all agree."""
    p = make(3, managers=1)
    p.docker("n1", "network", "create", "--driver", "overlay", "mine")
    for node in ("n2", "n3"):
        p.create("n1", f"look-{node}", 1, *PYTHON, "--network", "mine", "--constraint", f"node.hostname=={node}")
    who(p, "n1", "web", 1, "--network", "mine", "--constraint", "node.hostname==n2")
    for name in ("look-n2", "look-n3", "web"):
        p.runs("n1", name, 1)
    until(lambda: resolve(p, "n1", "look-n3", "tasks.web"), 20, "it is known")
    p.skep("cut", "n3")
    p.docker("n1", "service", "scale", "--detach", "web=3")
    p.runs("n1", "web", 3)
    update(p, "--force", "--update-parallelism", "0", "web")
    time_cut = time.monotonic()
    until(lambda: time.monotonic() - time_cut > 3 and len(p.running("n1", "web")) == 3, 40, "new tasks run meanwhile")
    p.skep("heal", "n3")
    began = time.monotonic()
    until(lambda: p.status("n1", "n3") == "Ready", 30, "it is back")
    p.runs("n1", "look-n3", 1)

    def same():
        truth = sorted(nets["mine"] for nets in addresses(p, "n1", "web").values())
        return len(truth) == 3 and all(resolve(p, "n1", f"look-{node}", "tasks.web") == truth for node in ("n2", "n3"))
    until(same, 30, "both say the same")
    figure("a machine cut off: its names are right again", time.monotonic() - began, 5)


def test_b6_a_rolling_update_of_one_replica_loses_no_request(make):
    """Stands for 500 updates at 5,000 requests a second."""
    p = make(2, managers=1)
    who(p, "n1", "web", 1, "--publish", "8080:8000", "--update-order", "start-first", "--update-monitor", "100ms")
    before = p.runs("n1", "web", 1)
    all_addresses = [p.address(node) for node in p.nodes]
    for address in all_addresses:
        answers(address, 8080)
    with Asking(all_addresses, 8080) as asking:
        for _ in range(3):
            update(p, "--force", "web")
            until(lambda: len(p.running("n1", "web")) == 1 and not set(p.running("n1", "web")) & set(before), 60, "a new one")
            before = p.running("n1", "web")
    assert not asking.failed, f"{len(asking.failed)} of {asking.count}: {asking.failed[:5]}"


def test_b7_an_idle_connection_stays_usable(make):
    """Stands for two hours: what would end it are limits of the kernel's connection tracking, which are looked at."""
    p = make(2, managers=1)
    who(p, "n1", "web", 1, "--publish", "8080:8000", "--constraint", "node.hostname==n2")
    p.runs("n1", "web", 1)
    answers(p.address("n1"), 8080)
    with socket.create_connection((p.address("n1"), 8080), timeout=10) as idle:
        # 130 s are more than the kernel keeps a half-closed connection in mind by default.
        time.sleep(130 if IS_LONG else 5)
        idle.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200 OK" in idle.recv(4096)


def test_b8_datagrams_of_one_socket_follow_an_update(make):
    """A client that never closes its socket: the gap while its task is replaced is at most a second."""
    p = make(2, managers=1)
    who(p, "n1", "web", 1, "--publish", "8080:8000/udp", "--update-order", "start-first", "--update-monitor", "100ms")
    p.runs("n1", "web", 1)
    heard, over = [], threading.Event()

    def client():
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.bind(("", 40123))
            asking.settimeout(0.05)
            while not over.is_set():
                asking.sendto(b"who", (p.address("n1"), 8080))
                with contextlib.suppress(OSError):
                    heard.append((time.monotonic(), asking.recv(2048).split()[0]))
                    time.sleep(0.01)
    thread = threading.Thread(target=client)
    thread.start()
    try:
        until(lambda: heard, 20, "an answer")
        for _ in range(2):
            before = set(p.running("n1", "web"))
            update(p, "--force", "web")
            until(lambda: len(p.running("n1", "web")) == 1 and not set(p.running("n1", "web")) & before, 60, "a new one")
            name = next(iter(p.running("n1", "web")))
            until(lambda: name in heard[-1][1].decode(), 20, "the new one answers the old socket")
    finally:
        over.set()
        thread.join()
    gap = max(later[0] - earlier[0] for earlier, later in zip(heard, heard[1:]))
    figure("longest gap of a datagram client during updates", gap, 1)


def test_b9_a_tiny_subnet_says_so_and_harms_nobody(make):
    p = make(1, managers=1)
    p.docker("n1", "network", "create", "--driver", "overlay", "--subnet", "10.9.0.0/29", "tiny")
    p.docker("n1", "network", "create", "--driver", "overlay", "wide")
    p.create("n1", "many", 8, "--network", "tiny")
    began = time.monotonic()
    until(lambda: "address" in p.out("n1", "service", "ps", "--no-trunc", "--format", "{{.Error}}", "many"), 20, "the reason")
    figure("no address left: the reason is shown", time.monotonic() - began, 2)
    p.create("n1", "other", 2, "--network", "wide")
    p.runs("n1", "other", 2)
    # Nothing is kept by what is gone.
    for _ in range(3):
        p.docker("n1", "service", "scale", "--detach", "many=0")
        until(lambda: not p.running("n1", "many"), 20, "none is left")
        p.docker("n1", "service", "scale", "--detach", "many=4")
        p.runs("n1", "many", 4)


def test_b10_no_address_is_given_twice_by_changing_leaders(make):
    """Stands for a leader lost every five seconds with a thousand services: six of them with thirty tasks."""
    p = make(3, managers=3)
    p.docker("n1", "network", "create", "--driver", "overlay", "mine")
    for number in range(4):
        p.create("n1", f"s{number}", 3, "--network", "mine", "--restart-delay", "0s")
    leader = p.any_leader()
    for number in range(4, 7):
        p.skep("kill", "--daemon", leader)
        others = [node for node in p.nodes if node != leader]
        # Whoever is asked may still take the one that is gone for the leader.
        via = until(lambda: next((node for node in others if p.leader(node) in others), None), 30, "the next leader")
        p.create(via, f"s{number}", 2, "--network", "mine")
        p.start(leader)
        until(lambda: p.all_ready(via), 30, "all are back")
        leader = p.any_leader()
    for number in range(7):
        p.runs(leader, f"s{number}", 3 if number < 4 else 2)
    given = [nets["mine"] for number in range(7) for nets in addresses(p, leader, f"s{number}").values()]
    for number in range(7):
        vips = p.json(leader, "service", "inspect", "--format", "{{json .Endpoint.VirtualIPs}}", f"s{number}")
        given += [vip["Addr"].split("/")[0] for vip in vips]
    twice = [address for address, count in collections.Counter(given).items() if count > 1]
    assert not twice, twice


def test_b11_a_killed_daemon_leaks_nothing(make):
    """Stands for 10,000 kills inside creation and removal: six of them, at moments that differ."""
    p = make(1, managers=1)
    chance = random.Random(11)
    p.docker("n1", "network", "create", "--driver", "overlay", "mine")
    who(p, "n1", "web", 2, "--network", "mine", "--publish", "8080:8000")
    p.runs("n1", "web", 2)
    p.docker("n1", "service", "rm", "web")
    until(lambda: not p.containers("n1") and not p.error("n1", "network", "rm", "mine"), 30, "all is gone")
    before = kernel_objects(p, "n1")
    for _ in range(6):
        p.docker("n1", "network", "create", "--driver", "overlay", "mine")
        who(p, "n1", "web", 3, "--network", "mine", "--publish", "8080:8000")
        until(lambda pause=time.monotonic() + chance.random() * 0.6: time.monotonic() > pause, 5, "a moment")
        p.skep("kill", "--daemon", "n1")
        p.start("n1")
        until(lambda: p.local_state("n1") == "active" and p.leader("n1"), 30, "it serves again")
        p.docker("n1", "service", "rm", "web", check=False)
        until(lambda: not p.out("n1", "ps", "-aq"), 40, "its containers are gone")
        until(lambda: "mine" not in p.out("n1", "network", "ls", "--format", "{{.Name}}").split() or not p.error("n1", "network", "rm", "mine"),
              30, "the network is gone")
    # What was just going when the baseline was taken need not come back.
    until(lambda: kernel_objects(p, "n1") <= before, 20, f"nothing more than before: {kernel_objects(p, 'n1') - before}")


@pytest.mark.parametrize("mtu", [1280, 1400])
def test_b17_large_answers_pass_whatever_the_mtu(make, mtu):
    """A megabyte through the mesh and through the overlay while one machine has a smaller MTU than the others."""
    p = make(2, managers=1)
    p.inside("n2", "ip", "link", "set", "eth0", "mtu", str(mtu))
    # The daemon takes notice by itself.
    p.docker("n1", "network", "create", "--driver", "overlay", "mine")
    p.create("n1", "big", 1, "--network", "mine", "--publish", "8080:80", "--constraint", "node.hostname==n2",
             command=("sh", "-c", "mkdir -p /www && dd if=/dev/zero of=/www/big bs=1M count=1 && exec httpd -f -p 80 -h /www"))
    p.create("n1", "look", 1, *PYTHON, "--network", "mine", "--constraint", "node.hostname==n1")
    p.runs("n1", "big", 1)
    p.runs("n1", "look", 1)

    def through_the_mesh():
        with contextlib.suppress(OSError):
            import urllib.request
            with urllib.request.urlopen(f"http://{p.address('n1')}:8080/big", timeout=5) as answer:
                return len(answer.read()) == 1 << 20
    until(through_the_mesh, 20, "a megabyte through the mesh")
    until(lambda: in_task(p, "n1", "look", "sh", "-c", "wget -T 5 -qO- http://big/big | wc -c", check=False).strip() == str(1 << 20),
          20, "a megabyte through the overlay")


def test_b19_rules_come_back_however_they_are_flushed(make):
    p = make(1, managers=1)
    who(p, "n1", "web", 2, "--publish", "8080:8000")
    p.runs("n1", "web", 2)
    answers(p.address("n1"), 8080)
    p.inside("n1", "nft", "add", "table", "inet", "users")
    for _ in range(5):
        p.inside("n1", "nft", "flush", "ruleset")
        p.inside("n1", "nft", "add", "table", "inet", "users")
        began = time.monotonic()
        answers(p.address("n1"), 8080)
        figure("rules flushed: the port answers", time.monotonic() - began, 2)
    assert "users" in p.inside("n1", "nft", "list", "tables").stdout, "the user's own rules are left alone"


def test_b22_subnets_of_the_machines_are_left_alone(make):
    """Stands for the resolver or route of a machine that the default pool of 10.0.0.0/8 would hide."""
    p = make(2)
    p.inside("n2", "ip", "route", "add", "10.0.1.0/24", "via", p.address("n1"))
    p.swarm(1)
    p.docker("n1", "network", "create", "--driver", "overlay", "mine")
    p.create("n1", "look", 2, *PYTHON, "--network", "mine")
    p.runs("n1", "look", 2)
    [config] = p.json("n1", "network", "inspect", "--format", "{{json .IPAM.Config}}", "mine")
    assert config["Subnet"] != "10.0.1.0/24", config
    told = p.error("n1", "network", "create", "--driver", "overlay", "--subnet", "10.0.1.0/24", "theirs")
    assert "overlap" in told.lower(), told


def test_b26_a_port_of_another_program_is_refused_with_its_name(make):
    p = make(1, managers=1)
    with_port = "import socket, time; s = socket.socket(); s.bind(('', 2222)); s.listen(); print('up', flush=True); time.sleep(1000)"
    import subprocess
    import os
    from conftest import SKEP
    other = subprocess.Popen([SKEP, "play", "exec", "--name", p.name, "n1", "/usr/bin/python3", "-c", with_port], stdout=subprocess.PIPE,
                             env=dict(os.environ))
    try:
        assert other.stdout.readline() == b"up\n"
        told = p.error("n1", "service", "create", "--detach", "--no-resolve-image", "--name", "ssh", "--publish", "2222:22", "test/busybox:1")
        assert "port '2222' is already in use by process 'python3'" in told, told
        assert "ssh" not in p.services("n1")
    finally:
        other.terminate()
        other.wait()
