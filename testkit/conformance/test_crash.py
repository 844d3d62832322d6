"""Kill -9 at any moment: nothing acknowledged is lost, nothing is orphaned, what ran goes on."""
import os
import random
import signal
import subprocess
import time

from conftest import IMAGE, running, task_list, until


def create(d, name, replicas, *args):
    return d.out("service", "create", "--detach", "--no-resolve-image", "--name", name, "--replicas", str(replicas),
                 "--restart-delay", "100ms", "--stop-grace-period", "1s", *args, IMAGE, "sleep", "100000")


def pids(d, service):
    return {t["Status"]["ContainerStatus"]["PID"] for t in running(d, service)}


def test_fifty_tasks_outlive_the_daemon(own):
    d = own
    d.found_swarm()
    create(d, "fifty", 50)
    until(lambda: len(running(d, "fifty")) == 50, 60, "50 run")
    before = pids(d, "fifty")
    for sign in (signal.SIGKILL, signal.SIGTERM):
        d.end(sign)
        assert all(os.path.exists(f"/proc/{pid}") for pid in before)
        d.start()
        until(lambda: len(running(d, "fifty")) == 50, 10, "50 run again")
        assert pids(d, "fifty") == before


def test_what_happened_while_the_daemon_was_away_is_known(own):
    d = own
    d.docker("run", "-d", "--name", "ends", IMAGE, "sh", "-c", "echo before; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo after; exit 42")
    d.docker("run", "-d", "--name", "goes-on", IMAGE, "sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done")
    pid = d.json("inspect", "ends")[0]["State"]["Pid"]
    d.end(signal.SIGKILL)
    open(f"/proc/{pid}/root/tmp/go", "w").close()
    until(lambda: not os.path.exists(f"/proc/{pid}"), 10, "it ended")
    d.start()
    state = until(lambda: (lambda s: s if s["Status"] == "exited" else None)(d.json("inspect", "ends")[0]["State"]), 5, "exited")
    assert state["ExitCode"] == 42
    assert d.out("logs", "ends") == "before\nafter"
    numbers = [int(n) for n in d.out("logs", "goes-on").split()]
    assert numbers == list(range(len(numbers)))
    assert d.out("exec", "goes-on", "echo", "x") == "x"


def test_a_lost_shim_is_a_failed_task(own):
    d = own
    d.found_swarm()
    create(d, "s", 2)
    first = until(lambda: len(running(d, "s")) == 2 and running(d, "s"), 20, "2 run")
    victim = first[0]
    container = victim["Status"]["ContainerStatus"]
    shim = next(pid for pid, folder in d.shims().items() if container["ContainerID"] in folder)
    os.kill(shim, signal.SIGKILL)
    until(lambda: not os.path.exists(f"/proc/{container['PID']}"), 5, "the container went with it")
    until(lambda: len([t for t in running(d, "s") if t["ID"] != victim["ID"]]) == 2, 20, "replaced")
    dead = next(t for t in task_list(d, "s") if t["ID"] == victim["ID"])
    assert dead["Status"]["State"] == "failed" and "shim" in dead["Status"]["Err"]


def test_twenty_kills_at_random_moments_lose_nothing(own):
    d = own
    seed = int(os.environ.get("SKEP_SEED", random.randrange(1 << 32)))
    print("seed", seed)
    rng = random.Random(seed)
    d.found_swarm()
    wanted, volumes, made = {}, set(), 0
    for _ in range(20):
        deadline = time.monotonic() + rng.uniform(0.02, 0.5)
        killer = subprocess.Popen(["sh", "-c", f"sleep {deadline - time.monotonic():.3f}; kill -9 {d.process.pid}"])
        try:
            while True:
                made += 1
                what = rng.randrange(4)
                if what == 0 and wanted:
                    name = rng.choice(sorted(wanted))
                    status, service = d.call("GET", f"/services/{name}")
                    if status == 200:
                        replicas = rng.randrange(4)
                        service["Spec"]["Mode"]["Replicated"]["Replicas"] = replicas
                        # Until it is acknowledged, both are right.
                        wanted[name] = None
                        status, _ = d.call("POST", f"/services/{name}/update?version={service['Version']['Index']}", service["Spec"])
                        if status == 200:
                            wanted[name] = replicas
                elif what == 1:
                    status, _ = d.call("POST", "/volumes/create", {"Name": f"v{made}"})
                    if status == 201:
                        volumes.add(f"v{made}")
                elif what == 2:
                    status, body = d.call("POST", "/containers/create", {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"AutoRemove": True}})
                    if status == 201:
                        d.call("POST", f"/containers/{body['Id']}/start")
                else:
                    name, replicas = f"s{made}", rng.randrange(3)
                    spec = {"Name": name, "TaskTemplate": {"ContainerSpec": {"Image": IMAGE, "Command": ["sleep", "100000"], "StopSignal": "SIGKILL"},
                                                           "RestartPolicy": {"Delay": 100_000_000}},
                            "Mode": {"Replicated": {"Replicas": replicas}}}
                    status, _ = d.call("POST", "/services/create", spec)
                    if status == 201:
                        wanted[name] = replicas
        except (OSError, ValueError, EOFError, Exception) as error:
            if isinstance(error, AssertionError):
                raise
        killer.wait()
        d.process.wait()
        d.process = None
        d.start()
    held = {s["Spec"]["Name"]: s["Spec"]["Mode"]["Replicated"]["Replicas"] for s in d.services()}
    for name, replicas in wanted.items():
        assert name in held, f"seed {seed}: service {name} was acknowledged and is gone"
        assert replicas is None or held[name] == replicas, f"seed {seed}: {name} has {held[name]}, acknowledged {replicas}"
    names = {v["Name"] for v in d.call("GET", "/volumes")[1]["Volumes"] or []}
    assert volumes <= names, f"seed {seed}: {volumes - names} gone"
    total = sum(held.values())
    until(lambda: sum(len(running(d, name)) for name, n in held.items() if n) == total, 60, f"seed {seed}: {total} run")
    live = {c["Id"] for c in d.containers() if c["State"] == "running"}
    until(lambda: len(d.shims()) == total, 20, f"seed {seed}: one shim per task, {total}")
    assert len(live) == total
    assert {os.path.basename(folder) for folder in d.shims().values()} == live
