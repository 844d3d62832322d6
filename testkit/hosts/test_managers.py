"""Managers that die, stall, lose each other, move, fill their disk, or are switched off altogether."""
import os
import signal
import statistics
import time

from conftest import IS_LONG, figure
from common import until

NO_LEADER = "The swarm does not have a leader. It's possible that too few managers are online."


def test_twenty_leaders_die_in_a_row(make):
    p = make(3, managers=3)
    p.create("n1", "web", 6)
    before = p.runs("n1", "web", 6)
    gaps, acknowledged = [], []
    for number in range(20):
        victim = p.any_leader()
        p.skep("kill", "--daemon", victim)
        gaps.append(p.write([node for node in p.nodes if node != victim], f"s{number}"))
        acknowledged.append(f"s{number}")
        p.start(victim)
    figure("leader killed 20 times: next write, median", statistics.median(gaps), 1.5)
    figure("leader killed 20 times: next write, longest", max(gaps), 1.5)
    until(lambda: all(p.all_ready(node) for node in p.nodes), 30, "all are back")
    for node in p.nodes:
        assert set(acknowledged) <= set(p.services(node)), "an acknowledged write is lost"
    # Each daemon was back before its node was given up.
    assert p.runs("n2", "web", 6) == before
    assert set(p.tasks("n2", "web")) == set(before), "no task was replaced"


def test_without_a_quorum_tasks_run_on_and_writes_are_refused(make):
    p = make(3, managers=3)
    p.create("n1", "web", 3)
    before = p.runs("n1", "web", 3)
    mine = p.containers("n1")
    p.kill("n2", "n3")
    began = time.monotonic()

    def write():
        return p.error("n1", "service", "create", "--detach", "--no-resolve-image", "--name", f"x{time.monotonic_ns()}", "--replicas", "0", "x")
    assert NO_LEADER in until(write, 30, "a write is refused")
    figure("quorum lost: write refused", time.monotonic() - began, 2)
    assert p.containers("n1") == mine, "tasks run on"
    p.start("n2")
    began = time.monotonic()
    p.write(["n1"], "after")
    figure("quorum back: next write", time.monotonic() - began, 2)
    p.start("n3")
    p.runs("n1", "web", 3)
    until(lambda: p.all_ready("n1"), 30, "all are back")
    assert p.containers("n1") >= mine
    assert {t for t, n in before.items() if n == "n1"} <= set(p.running("n1", "web"))


def test_force_new_cluster_from_one_survivor(make):
    p = make(3, managers=3)
    p.create("n1", "web", 3)
    p.runs("n1", "web", 3)
    p.kill("n2", "n3")
    mine = p.containers("n1")
    began = time.monotonic()
    p.docker("n1", "swarm", "init", "--force-new-cluster", "--advertise-addr", p.address("n1"))
    assert p.any_leader("n1") == "n1"
    figure("--force-new-cluster: it leads alone", time.monotonic() - began)
    assert "web" in p.services("n1")
    p.runs("n1", "web", 3, but=["n2", "n3"])
    assert mine <= p.containers("n1"), "its own were not restarted"
    # The old ones come back and lead each other, until they can reach the new swarm: they work for that one then.
    p.skep("cut", "n1")
    p.start("n2", "n3")
    until(lambda: p.leader("n2") in ("n2", "n3"), 30, "the swarm of before has a leader")
    p.skep("heal", "n1")
    for node in ("n2", "n3"):
        log = p.folder / node / "data" / "swarm" / "raft"
        until(lambda: "Worker nodes can't be used" in p.error(node, "node", "ls") and not log.exists(), 40, f"{node} is a worker")
        p.is_in_touch("n1", node, f"on-{node}")
    assert p.node_list("n1") == {"n1": ["Ready", "Leader"], "n2": ["Ready"], "n3": ["Ready"]}
    assert mine <= p.containers("n1")
    p.docker("n1", "node", "promote", "n2", "n3")
    until(lambda: list(p.node_list("n3").values()).count(["Ready", "Reachable"]) == 2, 30, "three managers again")
    assert "on-n2" in p.services("n3")


def test_a_leader_that_stalls_moves_no_task_of_another(make):
    p = make(3, managers=3)
    p.create("n1", "web", 6)
    p.runs("n1", "web", 6)
    for seconds in (5, 60) if IS_LONG else (5,):
        leader = p.any_leader()
        others = [node for node in p.nodes if node != leader]
        tasks = p.tasks(leader, "web")
        kept = {task for task, node in p.running(leader, "web").items() if node != leader}
        os.kill(p.daemon_pid(leader), signal.SIGSTOP)
        began = time.monotonic()
        figure(f"leader halted for {seconds} s: next write", p.write(others, f"while-{seconds}"), 3)
        until(lambda: time.monotonic() > began + seconds, seconds + 30)
        os.kill(p.daemon_pid(leader), signal.SIGCONT)
        # The first thing that it says must be the truth.
        first = p.docker(leader, "service", "ls", "--format", "{{.Name}}", check=False)
        assert first.returncode or f"while-{seconds}" in first.stdout.split()
        until(lambda: all(p.all_ready(node) for node in p.nodes), 30, "all are back")
        p.is_in_touch(others[0], leader, f"new-{seconds}")
        # A halt is a silence: what was on the halted machine may have moved.
        now = p.runs(others[0], "web", 6)
        assert kept <= set(now)
        assert {known for known in tasks if known in kept} == kept


def test_a_leader_s_daemon_is_restarted_in_order_and_its_tasks_stay(make):
    p = make(3, managers=3)
    p.create("n1", "web", 6)
    before = p.runs("n1", "web", 6)
    for number in range(2):
        leader = p.any_leader()
        others = [node for node in p.nodes if node != leader]
        mine = p.containers(leader)
        p.skep("stop", "--daemon", leader)
        figure("leader's daemon stopped in order: next write", p.write(others, f"s{number}"), 1.5)
        # Longer than any silence is borne: it has said that it will be back.
        ended = time.monotonic()
        until(lambda: time.monotonic() > ended + 5, 30)
        assert p.status(others[0], leader) != "Down"
        p.start(leader)
        until(lambda: all(p.all_ready(node) for node in p.nodes), 30, "it is back")
        assert p.containers(leader) == mine
        assert p.runs(others[0], "web", 6) == before and set(p.tasks(others[0], "web")) == set(before)


def test_a_leader_that_is_cut_off_is_replaced(make):
    p = make(3, managers=3)
    leader = p.any_leader()
    others = [node for node in p.nodes if node != leader]
    p.skep("cut", leader)
    figure("leader's cable cut: next write", p.write(others, "after"), 3)
    assert NO_LEADER in p.error(leader, "service", "create", "--detach", "--no-resolve-image", "--name", "stale", "--replicas", "0", "x")
    p.skep("heal", leader)
    until(lambda: "after" in p.services(leader), 30, "it follows again")
    until(lambda: p.all_ready(leader), 30, "all are back")
    assert "stale" not in p.services(others[0])


def test_a_manager_without_room_on_its_disk_steps_aside_and_heals(make):
    p = make(3, managers=3)
    leader = p.any_leader()
    others = [node for node in p.nodes if node != leader]
    p.skep("stop", leader)
    p.own_disk(leader, "64m")
    p.start(leader)
    until(lambda: p.all_ready(leader), 30, "it is back")
    fill = p.folder / leader / "data" / "fill"
    filled = p.inside(leader, "dd", "if=/dev/zero", f"of={fill}", "bs=64k", check=False)
    assert "No space left" in filled.stderr
    for number in range(30):
        p.write(others, f"w{number}")
    p.inside(leader, "rm", str(fill))
    until(lambda: "w29" in p.services(leader), 60, "it heals by itself")
    until(lambda: p.all_ready(others[0]), 30, "all are back")


def test_a_leader_whose_disk_fills_up_makes_way(make):
    p = make(3, managers=3)
    p.skep("stop", "n1")
    p.own_disk("n1", "64m")
    p.start("n1")
    until(lambda: p.all_ready("n1"), 30, "it is back")
    for _ in range(10):
        leader = p.any_leader()
        if leader == "n1":
            break
        p.skep("kill", "--daemon", leader)
        p.write([node for node in p.nodes if node != leader], f"w{time.monotonic_ns()}")
        p.start(leader)
        until(lambda: p.all_ready("n1"), 30, "it is back")
    assert p.any_leader() == "n1"
    fill = p.folder / "n1" / "data" / "fill"
    assert "No space left" in p.inside("n1", "dd", "if=/dev/zero", f"of={fill}", "bs=64k", check=False).stderr
    figure("leader's disk full: 30 writes by the others", sum(p.write(["n2", "n3"], f"full-{number}") for number in range(30)), 6)
    assert p.leader("n2") != "n1"
    p.inside("n1", "rm", str(fill))
    until(lambda: "full-29" in p.services("n1"), 60, "it heals by itself")
    until(lambda: p.all_ready("n2"), 30, "all are back")


def test_machines_that_return_with_another_address_are_found_again(make):
    p = make(4, managers=3)
    p.create("n1", "web", 4)
    p.runs("n1", "web", 4)
    leader = p.any_leader()
    followers = [node for node in ("n1", "n2", "n3") if node != leader]
    for last, node in enumerate([followers[0], "n4", leader], 200):
        via = followers[1]
        p.kill(node)
        p.move(node, last)
        p.start(node)
        until(lambda: p.all_ready(via) and p.out(via, "node", "inspect", "--format", "{{.Status.Addr}}", node) == p.address(node), 30,
              f"{node} is at its new address")
    assert p.json(followers[1], "node", "inspect", leader)[0]["ManagerStatus"]["Addr"] == f"{p.address(leader)}:2377"
    p.write([leader], "new")
    p.runs(leader, "web", 4)


def test_a_whole_swarm_is_switched_off_and_on(make):
    p = make(4, managers=3)
    p.create("n1", "web", 4, "--restart-delay", "100ms")
    before = p.runs("n1", "web", 4)
    for how in ("stop", "kill"):
        p.skep(how, *p.nodes)
        began = time.monotonic()
        p.start(*p.nodes)
        p.write(["n1"], f"after-{how}")
        figure(f"whole swarm off ({how}) and on: next write", time.monotonic() - began, 3)
        until(lambda: p.all_ready("n1"), 30, "all are back")
        after = p.runs("n1", "web", 4)
        assert sorted(after.values()) == sorted(before.values()), "each machine runs what it ran"
        assert len(p.containers("n4")) == 1
