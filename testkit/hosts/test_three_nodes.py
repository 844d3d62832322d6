"""A swarm of three machines as people use it: join, promote, spread, drain, leave, remove; and what is refused."""
import collections
import re
import time

from conftest import IMAGE, figure
from common import until


def test_three_machines_one_leader_and_six_tasks(make):
    p = make(3)
    p.docker("n1", "swarm", "init", "--advertise-addr", p.address("n1"))
    told = p.out("n1", "swarm", "join-token", "worker").splitlines()
    command = next(line for line in told if "docker swarm join --token" in line).split()
    for node in ("n2", "n3"):
        told = p.out(node, *command[1:-1], "--advertise-addr", p.address(node), command[-1])
        assert told == "This node joined a swarm as a worker."
        assert p.out("n1", "node", "promote", node) == f"Node {node} promoted to a manager in the swarm."
    until(lambda: sorted(rest[-1] for rest in p.node_list("n1").values()) == ["Leader", "Reachable", "Reachable"], 30, "managers")
    until(lambda: p.leader("n3") == "n1", 30, "all agree")

    p.create("n2", "web", 6)
    before = p.runs("n3", "web", 6)
    assert collections.Counter(before.values()) == {"n1": 2, "n2": 2, "n3": 2}

    p.kill("n1")
    began = time.monotonic()
    figure("leader's plug pulled: next write", p.write(["n2", "n3"], "after"), 1.5)
    now = p.runs("n2", "web", 6, but=["n1"])
    figure("leader's plug pulled: its tasks run elsewhere", time.monotonic() - began, 6)
    assert {task for task, node in before.items() if node != "n1"} <= set(now), "nothing else moved"
    assert p.node_list("n2")["n1"] == ["Down", "Unreachable"]

    began = time.monotonic()
    p.start("n1")
    until(lambda: p.node_list("n2").get("n1") == ["Ready", "Reachable"], 30, "n1 is back")
    figure("leader's machine back: Ready and Reachable", time.monotonic() - began, 2)
    until(lambda: p.node_list("n1") == p.node_list("n2"), 30, "it answers itself")
    p.is_in_touch("n1", "n1", "new")
    until(lambda: len(p.containers("n1")) == 1, 30, "what was superseded has ended there")
    assert p.running("n2", "web") == now, "no task moved"


def test_every_manager_takes_writes_and_a_worker_says_where_to_go(make):
    p = make(3, managers=2)
    for node in ("n1", "n2"):
        p.create(node, f"by-{node}", 1)
        assert f"by-{node}" in p.services(node), "a write is read at once"
    assert "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state." in p.error("n3", "service", "ls")
    assert p.json("n3", "info", "--format", "{{json .Swarm}}")["ControlAvailable"] is False


def test_a_node_that_is_drained_has_its_replacement_first_where_the_service_says_so(make):
    p = make(3, managers=1)
    # Ready takes a while, so that the order can be seen.
    ready = ["--health-cmd", "test $(( $(date +%s) - $(cat /tmp/began || date +%s | tee /tmp/began) )) -ge 2", "--health-interval", "200ms",
             "--health-retries", "1000"]
    for name, order in (("first", "start-first"), ("last", "stop-first")):
        p.create("n1", name, 1, "--constraint", "node.hostname!=n1", "--update-order", order, *ready)
    # The other waits for a task of its own on the machine that is left.
    before = p.runs("n1", "first", 1)
    [node] = set(before.values())
    p.runs("n1", "last", 1)
    p.docker("n1", "node", "update", "--availability", "drain", node)

    seen = []

    def moved():
        tasks = p.tasks("n1", "first")
        states = sorted((known, state) for known, (_, state, _) in tasks.items())
        seen.append(sum(state == "Running" for _, state in states))
        return set(p.running("n1", "first")) - set(before) and tasks[next(iter(before))][1] == "Shutdown"
    until(moved, 40, "it has moved")
    assert min(seen) >= 1, seen
    until(lambda: not p.containers(node), 30, "nothing is left on a drained node")
    p.runs("n1", "last", 1, but=[node])
    p.docker("n1", "node", "update", "--availability", "active", node)
    p.is_in_touch("n1", node, "new")


def what_is_there(p, node):
    """What a swarm may leave on a machine: files, containers, networks, links, rules."""
    data = p.folder / node / "data"
    files = {str(path.relative_to(data)) for path in data.rglob("*") if "images" not in path.parts}
    inside = p.inside(node, "sh", "-c", "ip -o link | cut -d: -f2 | cut -d@ -f1; nft list tables; ls /proc/[0-9]*/exe | wc -l").stdout
    return files, p.out(node, "ps", "-aq"), p.out(node, "network", "ls", "--format", "{{.Name}}"), inside


def test_leaving_and_being_removed_leave_nothing_behind(make):
    p = make(4)
    clean = {node: what_is_there(p, node) for node in p.nodes}
    p.swarm(1)
    p.create("n1", "web", 4, "--publish", "8080:80")
    p.runs("n1", "web", 4)

    assert "is not down and can't be removed" in p.error("n1", "node", "rm", "n2")
    assert p.out("n2", "swarm", "leave") == "Node left the swarm."
    until(lambda: p.status("n1", "n2") == "Down", 30, "n2 is down")
    p.docker("n1", "node", "rm", "n2")
    # One is removed by force while it runs, another while it is off.
    p.docker("n1", "node", "rm", "--force", "n3")
    p.kill("n4")
    until(lambda: p.status("n1", "n4") == "Down", 30, "n4 is down")
    p.docker("n1", "node", "rm", "n4")
    assert set(p.node_list("n1")) == {"n1"}
    p.start("n4")
    for node in ("n2", "n3", "n4"):
        until(lambda: p.local_state(node) == "inactive", 30, f"{node} is in no swarm")
        until(lambda: what_is_there(p, node) == clean[node], 30, f"{node} is as it was: {clean[node]}, {what_is_there(p, node)}")
    p.runs("n1", "web", 4)

    # The last one, and all of them again.
    assert "Removing the last manager erases all current state of the swarm." in p.error("n1", "swarm", "leave")
    p.docker("n1", "swarm", "leave", "--force")
    until(lambda: what_is_there(p, "n1") == clean["n1"], 30, "n1 is as it was")
    p.swarm(2)
    assert set(p.node_list("n2")) == set(p.nodes) and not p.services("n1")


def test_logs_of_a_service_come_from_every_node_and_by_any_manager(make):
    p = make(3, managers=2)
    p.create("n1", "says", 3, command=("sh", "-c", "echo I am $(hostname); sleep 100000"))
    p.runs("n1", "says", 3)

    def nodes_of(lines):
        return sorted(line.split("@")[1].split()[0] for line in lines)
    for node in ("n1", "n2"):
        until(lambda: nodes_of(p.out(node, "service", "logs", "says").splitlines()) == ["n1", "n2", "n3"], 30, f"all three, by {node}")
    for task, node in p.running("n1", "says").items():
        assert nodes_of([p.out("n2", "service", "logs", task)]) == [node]
    p.kill("n3")
    until(lambda: p.status("n1", "n3") == "Down", 30, "n3 is down")
    said = p.docker("n1", "service", "logs", "says", check=False)
    assert {"n1", "n2"} <= set(nodes_of(said.stdout.splitlines())), said
    assert re.search("incomplete log stream.*node [a-z0-9]{25} is not available", said.stderr), said


def test_a_manager_s_join_returns_when_it_manages(make):
    p = make(2)
    p.docker("n1", "swarm", "init", "--advertise-addr", p.address("n1"))
    token = p.out("n1", "swarm", "join-token", "-q", "manager")
    assert p.out("n2", "swarm", "join", "--token", token, f"{p.address('n1')}:2377") == "This node joined a swarm as a manager."
    assert set(p.node_list("n2")) == {"n1", "n2"}


def test_guards_have_docker_s_words(make):
    p = make(2, managers=2)
    assert "You are attempting to leave the swarm on a node that is participating as a manager." in p.error("n2", "swarm", "leave")
    assert re.search("is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal",
                     p.error("n1", "node", "rm", "n2"))
    assert "already part of a swarm" in p.error("n1", "swarm", "init")
    p.docker("n1", "node", "demote", "n2")
    until(lambda: p.node_list("n1")["n2"] == ["Ready"], 30, "n2 is a worker")
    assert "attempting to demote the last manager of the swarm" in p.error("n1", "node", "demote", "n1")
    until(lambda: "Worker nodes can't be used" in p.error("n2", "node", "ls"), 30, "n2 knows")


def test_a_bad_token_a_foreign_one_and_a_rotated_one_are_refused(make):
    p = make(3)
    for node in ("n1", "n3"):
        p.docker(node, "swarm", "init", "--advertise-addr", p.address(node))
    token = p.out("n1", "swarm", "join-token", "-q", "worker")
    foreign = p.out("n3", "swarm", "join-token", "-q", "worker")
    invalid = "A valid join token is necessary to join this cluster"

    def join(token):
        return p.docker("n2", "swarm", "join", "--token", token, "--advertise-addr", p.address("n2"), f"{p.address('n1')}:2377", check=False)
    assert "invalid join token" in join("SWMTKN-1-nonsense").stderr
    assert "remote CA does not match fingerprint. Expected: " in join(foreign).stderr
    assert invalid in join(token[:-1] + ("0" if token[-1] != "0" else "1")).stderr
    p.docker("n1", "swarm", "join-token", "--rotate", "-q", "worker")
    assert invalid in join(token).stderr
    assert p.local_state("n2") == "inactive", "nothing is left of it"
    fresh = p.out("n1", "swarm", "join-token", "-q", "worker")
    assert join(fresh).stdout.strip() == "This node joined a swarm as a worker."
    assert IMAGE.split(":")[0] in p.out("n2", "images")
