"""Workers whose daemon dies, whose cable is cut, or whose manager goes away."""
import time

from conftest import figure
from common import until


def test_a_daemon_that_is_back_within_two_seconds_keeps_its_tasks(make):
    p = make(3, managers=1)
    p.create("n1", "web", 6)
    before = p.runs("n1", "web", 6)
    mine = p.containers("n3")
    for how in ("kill", "stop"):
        p.skep(how, "--daemon", "n3")
        began = time.monotonic()
        p.start("n3")
        p.is_in_touch("n1", "n3", f"after-{how}")
        figure(f"worker's daemon back after {how}: it works", time.monotonic() - began, 2)
        assert p.running("n1", "web") == before and set(p.tasks("n1", "web")) == set(before)
        assert mine <= p.containers("n3")
    # Longer than a lost session is trusted: its tasks move, and what is superseded stops when it returns.
    p.docker("n1", "service", "rm", "after-kill", "after-stop")
    p.skep("kill", "--daemon", "n3")
    began = time.monotonic()
    until(lambda: p.status("n1", "n3") == "Down", 30, "n3 is down")
    figure("worker's daemon killed: Down", time.monotonic() - began, 2)
    now = p.runs("n1", "web", 6, but=["n3"])
    figure("worker's daemon killed: rescheduled", time.monotonic() - began, 3)
    assert {task for task, node in before.items() if node != "n3"} <= set(now)
    p.start("n3")
    until(lambda: p.status("n1", "n3") == "Ready" and not p.containers("n3"), 30, "one copy only")
    assert p.running("n1", "web") == now


def test_a_cable_that_is_cut_for_three_seconds_moves_nothing(make):
    p = make(3, managers=1)
    p.create("n1", "web", 6)
    before = p.runs("n1", "web", 6)
    mine = p.containers("n3")
    p.skep("cut", "n3")
    cut = time.monotonic()
    until(lambda: time.monotonic() > cut + 3 - 0.1, 30)
    p.skep("heal", "n3")
    p.is_in_touch("n1", "n3", "after")
    figure("cable cut for 3 s: it works", time.monotonic() - cut - 3)
    assert p.running("n1", "web") == before and set(p.tasks("n1", "web")) == set(before)
    assert mine <= p.containers("n3")
    p.docker("n1", "service", "rm", "after")

    p.skep("cut", "n3")
    began = time.monotonic()
    until(lambda: p.status("n1", "n3") == "Down", 30, "n3 is down")
    figure("worker's cable cut: Down", time.monotonic() - began, 5)
    now = p.runs("n1", "web", 6, but=["n3"])
    figure("worker's cable cut: rescheduled", time.monotonic() - began, 6)
    assert mine <= p.containers("n3"), "a machine that is cut off keeps its tasks"
    p.skep("heal", "n3")
    began = time.monotonic()
    until(lambda: p.status("n1", "n3") == "Ready" and not p.containers("n3"), 30, "superseded ones are stopped")
    figure("worker's cable mended: one copy only", time.monotonic() - began)
    assert p.running("n1", "web") == now


def test_a_worker_whose_manager_dies_goes_to_another_and_restarts_nothing(make):
    p = make(4, managers=3)
    p.create("n1", "web", 3, "--constraint", "node.hostname==n4")
    before = p.runs("n1", "web", 3)
    mine = p.containers("n4")
    # One of the three holds its session.
    for victim in ("n1", "n2", "n3"):
        others = [node for node in ("n1", "n2", "n3") if node != victim]
        p.kill(victim)
        began = time.monotonic()
        p.any_leader(*others)
        p.is_in_touch(others[0], "n4", f"without-{victim}")
        figure(f"{victim} killed: the worker works", time.monotonic() - began, 3)
        assert p.running(others[0], "web") == before and set(p.tasks(others[0], "web")) == set(before)
        assert mine <= p.containers("n4")
        p.start(victim)
        until(lambda: p.all_ready(others[0]), 30, "it is back")
    assert p.running("n1", "web") == before


def test_a_worker_goes_on_when_all_managers_are_away(make):
    p = make(2, managers=1)
    p.create("n1", "web", 2, "--constraint", "node.hostname==n2")
    before = p.runs("n1", "web", 2)
    mine = p.containers("n2")
    p.kill("n1")
    # Restarted meanwhile, and one of its tasks dies.
    p.skep("kill", "--daemon", "n2")
    p.start("n2")
    assert p.containers("n2") == mine
    p.start("n1")
    until(lambda: p.all_ready("n1"), 30, "both are back")
    p.is_in_touch("n1", "n2", "after")
    assert p.running("n1", "web") == before and set(p.tasks("n1", "web")) == set(before)
    assert mine <= p.containers("n2")
