"""Networks across machines with the stock docker CLI: names, virtual addresses, the routing mesh, and what they survive."""
import collections
import contextlib
import ipaddress
import time

import pytest
from conftest import IMAGE, figure
from common import until
from networks import HERE, PYTHON, VOLUMES, Asking, answers, ask, ask_on, ask_udp, in_task, outside, resolve, who


def test_a_service_is_reached_by_its_name_from_every_machine(make):
    p = make(3, managers=1)
    p.docker("n1", "network", "create", "--driver", "overlay", "mine")
    who(p, "n1", "web", 3, "--network", "mine")
    p.create("n1", "one", 1, *PYTHON, "--network", "mine", "--constraint", "node.hostname==n2")
    tasks = p.runs("n1", "web", 3)
    p.runs("n1", "one", 1)
    assert set(tasks.values()) == {"n1", "n2", "n3"}
    [vip] = p.json("n1", "service", "inspect", "--format", "{{json .Endpoint.VirtualIPs}}", "web")
    vip = vip["Addr"].split("/")[0]
    until(lambda: resolve(p, "n1", "one", "web") == [vip], 10, "the name means the virtual address")
    until(lambda: len(resolve(p, "n1", "one", "tasks.web")) == 3, 10, "three tasks")
    heard = collections.Counter(in_task(p, "n1", "one", "wget", "-qO-", "http://web:8000/").split()[0] for _ in range(30))
    assert len(heard) == 3 and min(heard.values()) == 10, heard
    in_task(p, "n1", "one", "ping", "-c", "1", "-W", "2", "web")
    # Addresses there are the managers' to give: a plain container would have none, or somebody's.
    for flags in ([], ["--ip", resolve(p, "n1", "one", "tasks.web")[0]]):
        assert "network mine not manually attachable" in p.error("n2", "run", "--rm", "--network", "mine", *flags, IMAGE, "true")
    # A service reaches itself.
    assert {in_task(p, "n1", "web", "wget", "-qO-", "http://web:8000/").split()[0] for _ in range(9)} == set(heard)
    # Names follow.
    p.docker("n1", "service", "scale", "--detach", "web=1")
    until(lambda: len(resolve(p, "n1", "one", "tasks.web")) == 1, 20, "one is left")
    p.docker("n1", "service", "rm", "web")
    until(lambda: resolve(p, "n1", "one", "web") == [], 20, "the name is gone")


def test_a_published_port_answers_on_every_machine_and_tasks_see_the_client(make):
    p = make(3, managers=1)
    who(p, "n1", "web", 6, "--publish", "8080:8000", "--publish", "8080:8000/udp")
    tasks = p.runs("n1", "web", 6)
    mine = outside(p)
    for node in p.nodes:
        address = p.address(node)
        answers(address, 8080)
        heard = [ask(address, 8080) for _ in range(300)]
        assert {client for _, client in heard} == {mine}, "the client's own address"
        shares = collections.Counter(name for name, _ in heard)
        assert len(shares) == len(tasks) and max(shares.values()) <= 55 and min(shares.values()) >= 45, shares
        heard = [ask_udp(address, 8080) for _ in range(30)]
        assert {client for _, client in heard} == {mine}
        assert len({name for name, _ in heard}) == 6, heard
    # One client port through two machines at once.
    for source in range(40000, 40010):
        assert ask_udp(p.address("n1"), 8080, source)[1] == mine
        assert ask_udp(p.address("n2"), 8080, source)[1] == mine
    # From the machine itself, by its address and by loopback, and from a container on it.
    for target in (p.address("n1"), "127.0.0.1"):
        heard = ask_on(p, "n1", f"ask('{target}', 8080)")
        assert len({name for name, _ in heard}) == 6, heard
        assert {client for _, client in heard} == {p.address("n1")}, heard
    heard = {p.out("n2", "run", "--rm", *VOLUMES, IMAGE, "wget", "-T", "5", "-qO-", f"http://{p.address('n2')}:8080/").split()[0] for _ in range(6)}
    assert len(heard) == 6, heard


def test_published_ports_answer_over_ipv6_as_well(make):
    p = make(3, managers=1)
    who(p, "n1", "web", 6, "--publish", "8080:8000", "--publish", "8080:8000/udp")
    p.runs("n1", "web", 6)
    mine = outside(p, p.address6("n1"))
    assert mine.startswith("fd"), mine
    for node in p.nodes:
        address = p.address6(node)
        answers(address, 8080)
        heard = [ask(address, 8080) for _ in range(60)]
        assert {client for _, client in heard} == {mine}, "the client's own address"
        assert set(collections.Counter(name for name, _ in heard).values()) == {10}, heard
        heard = [ask_udp(address, 8080) for _ in range(30)]
        assert {client for _, client in heard} == {mine}
        assert len({name for name, _ in heard}) == 6, heard
    # One client port through two machines at once.
    for source in range(40000, 40010):
        assert ask_udp(p.address6("n1"), 8080, source)[1] == mine
        assert ask_udp(p.address6("n2"), 8080, source)[1] == mine
    # Machines talk to each other over IPv4, as they were told to.
    peers = p.json("n1", "network", "inspect", "--format", "{{json .Peers}}", "ingress")
    assert {peer["IP"] for peer in peers} == {p.address(node) for node in p.nodes}, peers
    # From the machine itself. Its loopback is nobody's address elsewhere: tasks see the node's on the ingress network.
    configs = p.json("n1", "network", "inspect", "--format", "{{json .IPAM.Config}}", "ingress")
    ingress = [ipaddress.ip_network(config["Subnet"]) for config in configs]
    assert [net.version for net in ingress] == [4, 6], ingress
    for call in ("ask", "ask_udp"):
        heard = ask_on(p, "n1", f"{call}('{p.address6('n1')}', 8080)")
        assert len({name for name, _ in heard}) == 6 and {client for _, client in heard} == {p.address6("n1")}, heard
        heard = ask_on(p, "n1", f"{call}('::1', 8080)")
        clients = {client for _, client in heard}
        assert len({name for name, _ in heard}) == 6 and len(clients) == 1, heard
        assert ipaddress.ip_address(*clients) in ingress[1], heard
    # From a container, and while no daemon is there.
    p.docker("n2", "network", "create", "--ipv6", "--subnet", "fd06::/64", "six")
    asking = ["run", "--rm", "--network", "six", *VOLUMES, IMAGE, "wget", "-T", "5", "-qO-", f"http://[{p.address6('n2')}]:8080/"]
    heard = [p.out("n2", *asking).split() for _ in range(6)]
    assert len({name for name, *_ in heard}) == 6, heard
    assert all(ipaddress.ip_address(client) in ingress[1] for _, client, _ in heard), heard
    p.skep("kill", "--daemon", "n1")
    assert len({name for name, _ in ask_on(p, "n1", "ask('::1', 8080)")}) == 6
    assert len({ask(p.address6("n1"), 8080)[0] for _ in range(6)}) == 6
    p.start("n1")


def test_an_ingress_network_of_before_gets_ipv6_when_it_is_made_anew(make):
    p = make(2, managers=1)

    def anew(*flags):
        p.docker("n1", "network", "rm", "ingress", stdin="y\n")
        until(lambda: not p.error("n1", "network", "create", "--driver", "overlay", "--ingress", *flags, "ingress"), 20, "a new one")
        who(p, "n1", "web", 2, "--publish", "8080:8000")
        p.runs("n1", "web", 2)

    anew()
    for node in p.nodes:
        answers(p.address(node), 8080)
        with pytest.raises(ConnectionRefusedError):
            try:
                ask(p.address6(node), 8080)
            except OSError as error:
                raise getattr(error, "reason", error) from None
    p.docker("n1", "service", "rm", "web")
    until(lambda: not any(p.containers(node) for node in p.nodes), 30, "the tasks are gone")
    anew("--ipv6")
    for node in p.nodes:
        assert answers(p.address6(node), 8080)[1] == outside(p, p.address6(node))
        assert answers(p.address(node), 8080)[1] == outside(p)


def test_a_machine_without_a_task_serves_the_port_too(make):
    p = make(3, managers=1)
    who(p, "n1", "web", 1, "--publish", "8080:8000", "--constraint", "node.hostname==n3")
    p.runs("n1", "web", 1)
    for node in p.nodes:
        assert answers(p.address(node), 8080)[1] == outside(p)
    p.docker("n1", "service", "rm", "web")
    for node in p.nodes:
        def refused(address=p.address(node)):
            try:
                ask(address, 8080)
            except OSError:
                return True
        until(refused, 10, "nobody answers any more")


def test_a_rolling_update_loses_no_request(make):
    p = make(3, managers=1)
    who(p, "n1", "web", 3, "--publish", "8080:8000", "--update-order", "start-first", "--update-monitor", "100ms")
    before = p.runs("n1", "web", 3)
    addresses = [p.address(node) for node in p.nodes]
    for address in addresses:
        answers(address, 8080)
    with Asking(addresses, 8080) as asking:
        for _ in range(2):
            # Made again when the swarm wrote to the service between the client's look and its wish.
            until(lambda: not p.error("n1", "service", "update", "--detach", "--force", "web"), 20, "an update")
            until(lambda: not set(p.running("n1", "web")) & set(before) and len(p.running("n1", "web")) == 3, 60, "all are new")
            before = p.running("n1", "web")
    assert not asking.failed, f"{len(asking.failed)} of {asking.count}: {asking.failed[:5]}"
    assert asking.count > 100, asking.count


def test_daemons_that_restart_stop_neither_names_nor_ports(make):
    p = make(3, managers=3)
    p.docker("n1", "network", "create", "--driver", "overlay", "mine")
    who(p, "n1", "web", 3, "--network", "mine", "--publish", "8080:8000")
    p.create("n1", "one", 1, *PYTHON, "--network", "mine")
    before = p.runs("n1", "web", 3)
    [inside] = p.runs("n1", "one", 1).values()
    addresses = [p.address(node) for node in p.nodes]
    for address in addresses:
        answers(address, 8080)
    until(lambda: resolve(p, "n1", "one", "web"), 10, "the name")
    # Asked in the container itself: while its daemon is away there is nobody to ask it by.
    pid = p.out(inside, "inspect", "--format", "{{.State.Pid}}", p.out(inside, "ps", "-q", "--filter", "name=one."))
    script = "import urllib.request as u\nfor _ in range(6): print(u.urlopen('http://web:8000/', timeout=5).read().decode().split()[0])"
    ask_inside = ["nsenter", "-t", pid, "-m", "-n", "--", "/usr/bin/python3", "-c", script]
    with Asking(addresses, 8080) as asking:
        for node in p.nodes:
            p.skep("kill", "--daemon", node)
            heard = set(p.inside(inside, *ask_inside).stdout.split())
            assert len(heard) == 3, heard
            p.start(node)
            until(lambda: p.all_ready(p.any_leader()), 30, "all are back")
    assert p.running("n1", "web") == before, "no task moved"
    assert not asking.failed, f"{len(asking.failed)} of {asking.count}: {asking.failed[:5]}"


def test_networks_keep_apart_and_a_container_can_be_on_two(make):
    p = make(2, managers=1)
    for name in ("red", "blue"):
        p.docker("n1", "network", "create", "--driver", "overlay", name)
    who(p, "n1", "on-red", 1, "--network", "red", "--constraint", "node.hostname==n1")
    who(p, "n1", "on-blue", 1, "--network", "blue", "--constraint", "node.hostname==n2")
    p.create("n1", "both", 1, *PYTHON, "--network", "red", "--network", "blue", "--constraint", "node.hostname==n2")
    p.create("n1", "alone", 1, *PYTHON, "--network", "red", "--constraint", "node.hostname==n2")
    for service in ("on-red", "on-blue", "both", "alone"):
        p.runs("n1", service, 1)
    until(lambda: resolve(p, "n1", "both", "on-red") and resolve(p, "n1", "both", "on-blue"), 10, "both names")
    for service in ("on-red", "on-blue"):
        assert service in in_task(p, "n1", "both", "wget", "-T", "5", "-qO-", f"http://{service}:8000/")
    assert resolve(p, "n1", "alone", "on-blue") == []
    [blue] = resolve(p, "n1", "both", "tasks.on-blue")
    assert in_task(p, "n1", "alone", "timeout", "2", "wget", "-qO-", f"http://{blue}:8000/", check=False) == ""


def test_plain_containers_are_on_networks_that_let_them_in(make):
    p = make(2, managers=1)
    p.docker("n1", "network", "create", "--driver", "overlay", "--attachable", "open")
    who(p, "n1", "web", 1, "--network", "open", "--constraint", "node.hostname==n1")
    p.runs("n1", "web", 1)

    def kept(name):
        return p.json("n1", "network", "inspect", "--format", "{{json .Peers}}", name)

    def places(name):
        return p.out("n2", "inspect", "--format", "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", name).split()
    # The worker has nothing of the network before, and asks a manager for it.
    p.docker("n2", "run", "--detach", "--name", "db", "--network", "open", "--network-alias", "data", *VOLUMES,
             "--volume", f"{HERE}:/test:ro", IMAGE, "/usr/bin/python3", "/test/who.py", "8000")
    [first] = places("db")
    for name in ("db", "data"):
        until(lambda: resolve(p, "n1", "web", name) == [first], 10, f"{name} is found")
        assert in_task(p, "n1", "web", "wget", "-T", "5", "-qO-", f"http://{name}:8000/")
    assert "web." in p.out("n2", "exec", "db", "wget", "-T", "5", "-qO-", "http://web:8000/")
    assert p.out("n1", "node", "ps", "--format", "{{.Name}}", "n2") == "", "it is no task that anybody sees"
    # An address of one's own, and one that somebody has.
    p.docker("n1", "run", "--detach", "--name", "own", "--network", "open", "--ip", "10.0.1.200", IMAGE, "sleep", "1000")
    assert p.out("n1", "inspect", "--format", "{{.NetworkSettings.Networks.open.IPAddress}}", "own") == "10.0.1.200"
    refused = p.error("n2", "run", "--rm", "--network", "open", "--ip", "10.0.1.200", IMAGE, "true")
    assert "address 10.0.1.200 of network open cannot be given: it is in use" in refused
    # A daemon that is killed changes nothing; a container that is started again is found again.
    p.skep("kill", "--daemon", "n2")
    p.start("n2")
    until(lambda: p.all_ready("n1"), 30, "it is back")
    assert places("db") == [first] and resolve(p, "n1", "web", "db") == [first]
    p.docker("n2", "restart", "--time", "0", "db")
    until(lambda: resolve(p, "n1", "web", "db") == places("db") != [], 10, "the name follows")
    # A machine whose plug was pulled starts what is to restart, when it has found a manager.
    p.docker("n2", "run", "--detach", "--name", "again", "--restart", "always", "--network", "open", IMAGE, "sleep", "1000")
    p.kill("n2")
    p.start("n2")
    until(lambda: p.out("n2", "inspect", "--format", "{{.State.Running}}", "again", check=False) == "true", 30, "it runs again")
    until(lambda: resolve(p, "n1", "web", "again") == places("again") != [], 10, "and is found")
    p.docker("n2", "start", "db")
    # Connected and disconnected while it runs.
    p.docker("n2", "run", "--detach", "--name", "late", IMAGE, "sleep", "1000")
    p.docker("n2", "network", "connect", "open", "late")
    until(lambda: len(resolve(p, "n1", "web", "late")) == 1, 10, "it is found")
    p.docker("n2", "network", "disconnect", "open", "late")
    until(lambda: resolve(p, "n1", "web", "late") == [], 10, "it is gone")
    # What nobody needs any more goes, on the worker as well.
    p.docker("n2", "rm", "--force", "db", "late", "again")
    until(lambda: [peer["Name"] for peer in kept("open")] == ["n1"], 10, "the worker has left the network")
    until(lambda: not p.out("n2", "network", "ls", "--quiet", "--filter", "name=^open$"), 10, "and knows it no more")
    p.docker("n1", "service", "rm", "web")
    assert "is in use by task" in p.error("n1", "network", "rm", "open")
    p.docker("n1", "rm", "--force", "own")
    until(lambda: not p.error("n1", "network", "rm", "open"), 20, "nobody uses it")


def test_flushed_rules_and_deleted_links_come_back(make):
    p = make(2, managers=1)
    p.docker("n1", "network", "create", "--driver", "overlay", "mine")
    who(p, "n1", "web", 2, "--network", "mine", "--publish", "8080:8000")
    p.create("n1", "one", 1, *PYTHON, "--network", "mine", "--constraint", "node.hostname==n2")
    p.runs("n1", "web", 2)
    p.runs("n1", "one", 1)
    answers(p.address("n2"), 8080)
    for what in ("nft flush ruleset", "ip link delete skep0"):
        p.inside("n2", *what.split())
        began = time.monotonic()

        def both():
            with contextlib.suppress(OSError):
                return len({ask(p.address("n2"), 8080)[0] for _ in range(4)}) == 2
        until(both, 20, f"traffic after {what}")
        figure(f"{what}: traffic is back", time.monotonic() - began, 2)


def test_a_database_moves_when_its_machine_is_lost_and_is_found_again(make):
    p = make(3, managers=3)
    p.docker("n1", "network", "create", "--driver", "overlay", "mine")
    who(p, "n1", "db", 1, "--network", "mine", "--constraint", "node.hostname!=n1")
    p.create("n1", "app", 1, *PYTHON, "--network", "mine", "--constraint", "node.hostname==n1")
    [home] = p.runs("n1", "db", 1).values()
    p.runs("n1", "app", 1)
    until(lambda: "db." in in_task(p, "n1", "app", "wget", "-T", "2", "-qO-", "http://db:8000/", check=False), 10, "the database")
    p.kill(home)
    began = time.monotonic()
    p.runs("n1", "db", 1, but=[home])
    until(lambda: "db." in in_task(p, "n1", "app", "wget", "-T", "2", "-qO-", "http://db:8000/", check=False), 20, "it is found")
    figure("a database's machine lost: found by its name again", time.monotonic() - began, 8)


@pytest.mark.parametrize("rounds", [20])
def test_nothing_leaks_over_rounds(make, rounds):
    """Twenty rounds stand for a thousand; what is counted is the same after each."""
    p = make(2, managers=1)

    def kept(node):
        links = len(p.inside(node, "ip", "-o", "link").stdout.splitlines())
        return links, len(p.inside(node, "findmnt", "-n", "-t", "nsfs").stdout.splitlines())
    baseline = None
    for number in range(rounds):
        p.docker("n1", "network", "create", "--driver", "overlay", "mine")
        p.create("n1", "web", 2, "--network", "mine")
        p.runs("n1", "web", 2)
        p.docker("n1", "service", "rm", "web")
        until(lambda: not any(p.containers(node) for node in p.nodes), 30, "the tasks are gone")
        until(lambda: not p.error("n1", "network", "rm", "mine"), 30, "the network goes")
        # What the first round made for all that follow stays.
        baseline = baseline or {node: kept(node) for node in p.nodes}
    until(lambda: {node: kept(node) for node in p.nodes} == baseline, 20, f"as after the first round: {baseline}")
