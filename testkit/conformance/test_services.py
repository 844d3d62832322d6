"""A swarm of one node with the stock docker CLI."""
import json
import os
import signal
import time
import urllib.request

from conftest import IMAGE, running, task_list, until

HTTPD = ["sh", "-c", "mkdir -p /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w"]


def create(d, name, *args):
    return d.out("service", "create", "--detach", "--no-resolve-image", "--name", name, "--stop-grace-period", "1s", *args)


def test_a_killed_task_is_replaced_with_its_history(swarm):
    d = swarm
    create(d, "keep", "--replicas", "3", "--restart-delay", "100ms", IMAGE, "sleep", "1000")
    first = until(lambda: len(running(d, "keep")) == 3 and running(d, "keep"), 20, "3 run")
    assert sorted(t["Slot"] for t in first) == [1, 2, 3]
    victim = first[0]
    os.kill(victim["Status"]["ContainerStatus"]["PID"], signal.SIGKILL)
    until(lambda: len([t for t in running(d, "keep") if t["ID"] != victim["ID"]]) == 3, 20, "replaced")
    dead = next(t for t in task_list(d, "keep") if t["ID"] == victim["ID"])
    assert dead["Status"]["State"] == "failed" and dead["DesiredState"] == "shutdown"
    assert dead["Status"]["Err"] == "task: non-zero exit (137)" and dead["Status"]["Message"] == "started"
    others = {t["ID"] for t in first[1:]}
    assert others <= {t["ID"] for t in running(d, "keep")}
    assert "task: non-zero exit (137)" in d.out("service", "ps", "--no-trunc", "keep")


def test_ports_are_spread_over_the_tasks(swarm):
    d = swarm
    create(d, "web", "--replicas", "3", "--publish", "18090:80", IMAGE, *HTTPD)
    until(lambda: len(running(d, "web")) == 3, 20, "3 run")
    page = lambda: urllib.request.urlopen("http://127.0.0.1:18090/", timeout=5).read().decode().strip()
    seen = {}

    def ask():
        try:
            seen[page()] = seen.get(page(), 0) + 1
        except OSError:
            return False
        return len(seen) == 3
    until(ask, 20, f"three answer: {seen}")
    assert "*:18090->80/tcp" in d.out("service", "ls")
    taken = d.docker("service", "create", "--detach", "--name", "other", "--publish", "18090:80", IMAGE, check=False)
    assert "port '18090' is already in use by service 'web'" in taken.stderr


def test_an_encrypted_network_takes_tasks_where_the_kernel_encrypts_alone(swarm):
    d = swarm
    d.docker("network", "create", "--driver", "overlay", "--opt", "encrypted", "secret")
    create(d, "hidden", "--network", "secret", IMAGE, "sleep", "1000")
    told = lambda: [t["Status"] for t in task_list(d, "hidden") if t["Status"].get("Err") or t["Status"]["State"] == "running"]
    [status] = until(told, 20, "it runs or says why not")
    if status["State"] != "running":
        assert status["State"] == "pending"
        assert status["Err"] == "no suitable node (no ESP for encrypted networks in the kernel of 1 node)"
    d.docker("service", "rm", "hidden")
    until(lambda: d.docker("network", "rm", "secret", check=False).returncode == 0, 20, "the network is free")


def test_a_changed_target_port_cuts_nobody_off_and_a_removed_one_is_free(swarm):
    d = swarm
    both = "mkdir /a /b; echo 80 >/a/index.html; echo 81 >/b/index.html; httpd -p 80 -h /a; exec httpd -f -p 81 -h /b"
    create(d, "moves", "--replicas", "2", "--publish", "18091:80", "--update-delay", "4s", IMAGE, "sh", "-c", both)
    until(lambda: len(running(d, "moves")) == 2, 20, "2 run")
    page = lambda: urllib.request.urlopen("http://127.0.0.1:18091/", timeout=5).read().decode().strip()
    seen = set()

    def answered(*expect):
        try:
            seen.add(page())
        except OSError:
            return False
        return seen == set(expect)
    until(lambda: answered("80"), 10, "the old port answers")
    d.docker("service", "update", "--detach", "--publish-rm", "80", "--publish-add", "18091:81", "moves")
    until(lambda: answered("80", "81"), 20, "both answer")
    assert {page() for _ in range(4)} == {"80", "81"}, "the old task is still behind the port"
    d.docker("service", "update", "--publish-rm", "81", "moves")
    d.docker("run", "--rm", "-p", "18091:80", IMAGE, "true")


def test_scale_update_rollback(swarm):
    d = swarm
    create(d, "roll", "--replicas", "2", "--update-monitor", "200ms", "--update-parallelism", "1", IMAGE, "sleep", "1000")
    until(lambda: len(running(d, "roll")) == 2, 20, "2 run")
    d.docker("service", "scale", "--detach", "roll=4")
    until(lambda: len(running(d, "roll")) == 4, 20, "4 run")
    before = {t["ID"] for t in running(d, "roll")}
    d.docker("service", "update", "--detach", "--env-add", "A=1", "roll")
    until(lambda: d.json("service", "inspect", "roll")[0].get("UpdateStatus", {}).get("State") == "completed", 40, "updated")
    after = running(d, "roll")
    assert len(after) == 4 and not before & {t["ID"] for t in after}
    assert all(t["Spec"]["ContainerSpec"]["Env"] == ["A=1"] for t in after)
    d.docker("service", "rollback", "--detach", "roll")
    until(lambda: d.json("service", "inspect", "roll")[0]["UpdateStatus"]["State"] == "rollback_completed", 40, "rolled back")
    assert all("Env" not in t["Spec"]["ContainerSpec"] for t in running(d, "roll"))
    d.docker("service", "scale", "--detach", "roll=1")
    until(lambda: len(task_list(d, "roll", **{"desired-state": "running"})) == 1, 20, "scaled down")
    assert running(d, "roll")[0]["Slot"] in (1, 2, 3, 4)


def test_start_first_keeps_the_old_until_the_new_runs(swarm):
    d = swarm
    create(d, "sf", "--update-order", "start-first", "--update-monitor", "100ms", IMAGE, "sleep", "1000")
    old = until(lambda: running(d, "sf"), 20, "runs")[0]
    d.docker("service", "update", "--detach", "--force", "sf")
    until(lambda: d.json("service", "inspect", "sf")[0].get("UpdateStatus", {}).get("State") == "completed", 30, "updated")
    new = running(d, "sf")[0]
    state = lambda: next(t for t in task_list(d, "sf") if t["ID"] == old["ID"])
    gone = until(lambda: (lambda t: t if t["Status"]["State"] == "shutdown" else None)(state()), 10, "the old one stopped")
    assert gone["Status"]["Timestamp"] >= new["Status"]["Timestamp"]


def test_the_attached_client_sees_it_converge(swarm):
    done = swarm.docker("service", "create", "--no-resolve-image", "--name", "att", "--update-monitor", "1s", "--stop-signal", "KILL", IMAGE, "sleep", "1000")
    assert "converged" in done.stdout
    done = swarm.docker("service", "update", "--env-add", "B=2", "att")
    assert "converged" in done.stdout
    done = swarm.skep("service", "scale", "att=2")
    assert "converged" in done.stdout


def test_health_gates_running_and_replaces_the_unhealthy(swarm):
    d = swarm
    create(d, "hc", "--restart-delay", "100ms", "--health-cmd", "test ! -e /tmp/sick", "--health-interval", "200ms", "--health-retries", "2", IMAGE, "sleep", "1000")
    task = until(lambda: running(d, "hc"), 20, "healthy")[0]
    container = task["Status"]["ContainerStatus"]["ContainerID"]
    assert d.json("inspect", container)[0]["State"]["Health"]["Status"] == "healthy"
    d.docker("exec", container, "touch", "/tmp/sick")
    until(lambda: [t for t in running(d, "hc") if t["ID"] != task["ID"]], 30, "replaced")
    dead = next(t for t in task_list(d, "hc") if t["ID"] == task["ID"])
    assert dead["Status"]["Err"].startswith("task: non-zero exit (") and dead["Status"]["Err"].endswith("): dockerexec: unhealthy container")


def test_global_services_and_constraints(swarm):
    d = swarm
    create(d, "glob", "--mode", "global", IMAGE, "sleep", "1000")
    task = until(lambda: running(d, "glob"), 20, "runs")[0]
    assert "Slot" not in task and task["NodeID"] == d.call("GET", "/info")[1]["Swarm"]["NodeID"]
    create(d, "stuck", "--constraint", "node.labels.zone==a", IMAGE, "sleep", "1000")
    stuck = until(lambda: [t for t in task_list(d, "stuck") if t["Status"].get("Err")], 10, "a reason")[0]
    assert stuck["Status"]["State"] == "pending"
    assert stuck["Status"]["Err"] == "no suitable node (scheduling constraints not satisfied on 1 node)"
    node = task["NodeID"]
    d.docker("node", "update", "--label-add", "zone=a", node)
    until(lambda: running(d, "stuck"), 10, "placed after the label came")
    d.docker("node", "update", "--label-rm", "zone", node)


def test_a_missing_image_and_a_missing_command_are_told(swarm):
    d = swarm
    create(d, "noimg", "--restart-condition", "none", "nosuch/image:1", "x")
    bad = until(lambda: [t for t in task_list(d, "noimg") if t["Status"]["State"] == "rejected"], 30, "rejected")[0]
    assert "nosuch/image:1" in bad["Status"]["Err"]
    create(d, "nocmd", "--restart-condition", "none", IMAGE, "nope")
    bad = until(lambda: [t for t in task_list(d, "nocmd") if t["Status"]["State"] == "failed"], 30, "failed")[0]
    assert 'exec: "nope": executable file not found in $PATH' in bad["Status"]["Err"]


def test_restart_condition_and_attempts(swarm):
    d = swarm
    create(d, "once", "--restart-condition", "none", IMAGE, "true")
    until(lambda: [t for t in task_list(d, "once") if t["Status"]["State"] == "complete"], 20, "complete")
    create(d, "twice", "--restart-max-attempts", "2", "--restart-delay", "50ms", IMAGE, "false")
    until(lambda: len([t for t in task_list(d, "twice") if t["Status"]["State"] == "failed"]) == 3, 20, "three failures")
    time.sleep(0.5)
    assert len(task_list(d, "twice")) == 3
    assert len(task_list(d, "once")) == 1


def test_service_logs_are_merged(swarm):
    d = swarm
    create(d, "lg", "--replicas", "2", IMAGE, "sh", "-c", "echo hello; sleep 1000")
    until(lambda: len(running(d, "lg")) == 2, 20, "2 run")
    lines = until(lambda: (lambda out: out if len(out) == 2 else None)(d.out("service", "logs", "lg").splitlines()), 10, "two lines")
    assert all(line.endswith("| hello") and line.startswith("lg.") for line in lines)
    assert sorted(d.skep("service", "logs", "lg").stdout.splitlines()) == sorted(lines)
    assert d.skep("service", "logs", "--raw", "lg").stdout == "hello\nhello\n"


def test_names_and_versions_are_guarded(swarm):
    d = swarm
    create(d, "dup", IMAGE, "sleep", "1000")
    again = d.docker("service", "create", "--detach", "--name", "dup", IMAGE, check=False)
    assert "name conflicts with an existing object" in again.stderr
    service = d.json("service", "inspect", "dup")[0]
    status, body = d.call("POST", f"/services/{service['ID']}/update?version=1", service["Spec"])
    assert status == 500 and "update out of sequence" in body["message"]
    assert d.docker("service", "inspect", "nope", check=False).returncode == 1


def test_the_swarm_describes_itself(swarm):
    d = swarm
    info = d.call("GET", "/info")[1]["Swarm"]
    assert info["ControlAvailable"] and info["LocalNodeState"] == "active" and info["Nodes"] == 1
    listed = d.out("node", "ls")
    assert "Ready" in listed and "Active" in listed and "Leader" in listed
    described = d.call("GET", "/swarm")[1]
    assert described["JoinTokens"]["Worker"].startswith("SWMTKN-1-") and described["Spec"]["Name"] == "default"
    assert "BEGIN CERTIFICATE" in described["TLSInfo"]["TrustRoot"]
    assert "already part of a swarm" in d.docker("swarm", "init", check=False).stderr
    assert json.loads(d.out("node", "inspect", "self"))[0]["Description"]["Resources"]["NanoCPUs"] > 0


def of_tasks(d):
    return [c for c in d.containers() if "com.docker.swarm.task.id" in c["Labels"]]


def test_leaving_takes_containers_and_held_ports_away(own):
    d = own
    for is_damaged in (False, True):
        d.found_swarm()
        create(d, "web", "--replicas", "2", IMAGE, "sleep", "1000")
        # Its port is held though it never has a container.
        create(d, "waits", "--publish", "18097:80", "no-such-image:1")
        until(lambda: len(running(d, "web")) == 2, 20, "2 run")
        until(lambda: d.docker("run", "--rm", "-p", "18097:80", IMAGE, "true", check=False).returncode, 10, "held")
        if is_damaged:
            d.end()
            (d.base / "data/swarm/state.json").write_text("{")
            d.start()
            assert d.call("GET", "/info")[1]["Swarm"]["LocalNodeState"] == "error"
        # What is being made just now goes as well.
        elif d.docker("service", "scale", "--detach", "web=30"):
            until(lambda: len(of_tasks(d)) > 5, 20, "containers appear")
        d.docker("swarm", "leave", "--force")
        assert not of_tasks(d)
        d.docker("run", "--rm", "-p", "18097:80", IMAGE, "true")
        assert not of_tasks(d)
