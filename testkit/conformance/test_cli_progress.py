"""Progress, pages for people and logs of skep's own client, beside the stock one, without a terminal."""
import os
import re
import subprocess

import pytest

from conftest import IMAGE, SKEP, running, until
from test_cli import same, seen
from test_images import pushed

SERVICE = ["service", "create", "--no-resolve-image", "--update-monitor", "1ms", "--rollback-monitor", "1ms",
           "--stop-grace-period", "1s", "--restart-delay", "100ms"]


def steps(done):
    """Exit code and lines, each once: how often the client looked depends on the machine."""
    lines = re.sub("[a-z0-9]{25}", "ID", done.stdout + done.stderr).splitlines()
    kept = [line for at, line in enumerate(lines) if at == 0 or lines[at - 1] != line]
    # How far it was at a look depends on the machine as well.
    return done.returncode, [line for line in kept if not re.search(r"[1-9]\d* out of|: 0 out of|failure$|waiting for new", line)]


def both(d, *args, **options):
    return d.docker(*args, check=False, **options), d.skep(*args, check=False, **options)


def test_a_service_converges_in_the_same_words(swarm):
    for mode in (["--replicas", "2"], ["--mode", "global"]):
        docker, skep = both(swarm, *SERVICE, *mode, IMAGE, "sleep", "1000")
        assert steps(docker) == steps(skep)
        assert skep.returncode == 0 and skep.stdout.startswith(re.match("[a-z0-9]{25}\n", skep.stdout)[0] + "overall progress: ")
        assert re.search(r"overall progress: (\d) out of \1 tasks\nverify: Waiting 1 seconds to verify", skep.stdout)


def test_quiet_prints_the_id_alone(swarm):
    docker, skep = both(swarm, *SERVICE, "--quiet", IMAGE, "sleep", "1000")
    assert steps(docker) == steps(skep) == (0, ["ID"])


def rolled(d, client, name):
    """What a client says through an update that fails, one that is rolled back, and a rollback by hand."""
    d.docker(*SERVICE, "--detach", "--name", name, "--replicas", "2", IMAGE, "sleep", "1000")
    until(lambda: len(running(d, name)) == 2, 20, "2 run")
    said = []
    for args in (["update", "--args", "false", "--update-failure-action", "pause", "--update-monitor", "5s", name], ["rollback", name],
                 ["update", "--args", "false", "--update-failure-action", "rollback", "--update-monitor", "5s", name], ["scale", f"{name}=3", "nope=1"]):
        code, lines = steps(client("service", *args, check=False))
        # The rollback may be over before the client looks again.
        said.append((code, [line.replace(name, "NAME") for line in lines if not re.match("rollback: rollback completed|verify:|[0-9]/[0-9]: ", line)]))
    return said


def test_rollouts_that_fail_read_the_same(swarm):
    docker, skep = rolled(swarm, swarm.docker, "one"), rolled(swarm, swarm.skep, "two")
    assert docker == skep
    assert skep[0] == (1, ["NAME", "service update paused: update paused due to failure or early termination of task ID"])
    assert skep[1] == (0, ["NAME", "rollback: manually requested rollback"])
    assert skep[3] == (1, ["NAME scaled to 3", "nope: Error response from daemon: service nope not found"])


def test_an_image_that_no_registry_has_is_warned_of_the_same(swarm):
    docker, skep = both(swarm, "service", "create", "--detach", "127.0.0.1:1/nosuch", "x")
    assert "could not be accessed on a registry to record" in docker.stderr
    assert docker.stderr == skep.stderr and docker.returncode == skep.returncode == 0
    images = {s["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"] for s in swarm.call("GET", "/services")[1]}
    assert images == {"127.0.0.1:1/nosuch:latest"}


def test_an_image_of_a_registry_is_pinned_the_same(swarm, registry, rootfs, tmp_path):
    name = pushed(registry, rootfs, "pin/box:1", tmp_path)
    both(swarm, "service", "create", "--detach", name, "sleep", "1000")
    specs = [s["Spec"]["TaskTemplate"] for s in swarm.call("GET", "/services")[1]]
    assert len(specs) == 2 and specs[0]["ContainerSpec"]["Image"] == specs[1]["ContainerSpec"]["Image"]
    assert specs[0]["ContainerSpec"]["Image"].startswith(f"{name}@sha256:")
    assert specs[0]["Placement"]["Platforms"] == specs[1]["Placement"]["Platforms"] == [{"Architecture": "amd64", "OS": "linux"}]
    until(lambda: len([t for t in swarm.call("GET", "/tasks")[1] if t["Status"]["State"] == "running"]) == 2, 30, "both run")
    swarm.clear()
    swarm.docker("rmi", "-f", swarm.out("images", "-q", f"{registry}/pin/box"))


def test_pages_for_people_are_the_same(swarm):
    d = swarm
    d.out(*SERVICE, "--detach", "--name", "plain", "--mode", "global", IMAGE, "sleep", "1000")
    d.out(*SERVICE, "--detach", "--name", "full", "--replicas", "2", "--label", "a=b", "--label", "empty", "--constraint", "node.role==manager",
          "--placement-pref", "spread=node.id", "--replicas-max-per-node", "7", "--update-delay", "90s", "--update-max-failure-ratio", "0.25",
          "--rollback-delay", "1s", "--env", "A=1", "--env", "B=2", "--workdir", "/tmp", "--user", "guest", "--init", "--cap-add", "NET_ADMIN",
          "--cap-drop", "CHOWN", "--sysctl", "net.ipv4.ip_forward=1", "--ulimit", "nofile=10:20", "--mount", "type=volume,source=v,target=/v",
          "--mount", "type=tmpfs,target=/t", "--log-driver", "json-file", "--log-opt", "max-size=1m", "--limit-cpu", "1.5", "--limit-memory", "64m",
          "--limit-pids", "50", "--reserve-cpu", "0.1", "--reserve-memory", "8m", "--publish", "18099:80", "--publish", "18098:81/udp",
          "--health-cmd", "true", "--health-interval", "2s", "--health-retries", "4", IMAGE, "sleep", "1000")
    # A service without tasks has nothing to roll out.
    until(lambda: len(d.out("service", "ps", "--quiet", "full").split()) >= 2, 10, "its tasks")
    d.out("service", "update", "--detach", "--env-add", "C=3", "full")
    # The log and network names of one machine may hold this node's labels.
    d.out("node", "update", "--label-add", "zone=a", d.call("GET", "/info")[1]["Swarm"]["NodeID"])
    until(lambda: d.json("service", "inspect", "full")[0].get("UpdateStatus"), 10, "an update")
    same(d, "service inspect --pretty plain", "service inspect --pretty full", "service inspect --pretty plain full", "node inspect --pretty self",
         "service inspect --pretty nope", "node inspect --pretty nope", "service inspect --pretty --format x plain",
         "container inspect --type x y", "service inspect --size plain")
    d.out("node", "update", "--label-rm", "zone", d.call("GET", "/info")[1]["Swarm"]["NodeID"])


def test_info_and_version_are_laid_out_the_same(swarm):
    def told(text):
        changing = r"^ (Version|API version): .*\n|^  (File Descriptors|System Time|EventsListeners): .*\n|^  ?(Go version|Git commit|Built):.*\n|^Client:.*\n"
        return re.sub(changing, "", text, flags=re.M)
    for command in ("info", "version"):
        docker, skep = both(swarm, command)
        assert told(docker.stdout) == told(skep.stdout) and docker.stderr == skep.stderr
    same(swarm, "version --format '{{.Server.APIVersion}} {{.Server.Version}} {{.Server.Os}}'", "info --format '{{.Name}} {{.NCPU}}'",
         "info --format '{{json .Swarm.NodeID}}'")
    assert [client("info", "--format", "{{", check=False).returncode for client in (swarm.docker, swarm.skep)] == [64, 64]


def test_history_is_told_exactly_or_for_people(d):
    same(d, f"history {IMAGE}", f"history -H=false {IMAGE}", f"history --human=false --no-trunc {IMAGE}", f"history -H=false --format json {IMAGE}",
         f"history --human=false --format 'table {{{{.CreatedSince}}}}\\t{{{{.Size}}}}' {IMAGE}")


WRONG_VALUES = [
    *[f"run {flag} {IMAGE}" for flag in (
        "-m x", "-m 1x", "--memory -1", "--memory=", "--memory-swap x", "--shm-size x", "--cpus x", "--cpus 1.2345678912", "--cpus -1",
        "--ulimit x", "--ulimit nofile=x", "--ulimit foo=1", "--ulimit nofile=2:1", "--ulimit nofile=1:2:3", "--pids-limit x",
        "--health-interval x", "--health-interval 1", "--health-retries -1", "--restart on-failure:x", "--device x:y:z:w", "--mount x",
        "--mount type=volume", "--mount type=volume,foo=bar,target=/x", "-e =", "--env-file /nope", "--label-file /nope", "-l =", "--publish 80:99999",
        "--publish 1.2.3:80:80", "--expose x", "--expose 80-70", "--dns x", "--add-host x", "--add-host x:y", "--sysctl x", "--security-opt x",
        "--security-opt seccomp=/nope", "--pid x", "--uts x", "--cgroupns x", "--userns x", "-a foo", "--detach=x", "-itz", "--env")],
    *[f"service create -d --no-resolve-image {flag} {IMAGE}" for flag in (
        "--limit-cpu x", "--limit-memory x", "--reserve-memory x", "--update-delay x", "--update-monitor x", "--update-parallelism -1",
        "--update-max-failure-ratio x", "--restart-delay x", "--stop-grace-period x", "--mount x", "--publish target=x", "--publish published=80",
        "--publish target=99999", "--env =", "--env-file /nope", "--label =", "--container-label =", "--ulimit x", "--host x", "--dns x",
        "--dns-search 'a b'", "--placement-pref x", "--placement-pref y=z", "--health-interval x", "--replicas x")],
    *[f"service update {flag} every" for flag in (
        "--publish-rm x", "--publish-add x", "--mount-add x", "--env-add =", "--limit-memory x", "--update-delay x", "--args 'a \"b'", "--replicas 2",
        "--rollback --env-add A=1")],
    "run UPPER", "run -m", "volume create --label = x", "service scale a b", "events --format '{{'", "swarm leave",
]


def test_wrong_values_of_flags_are_told_the_same(swarm):
    swarm.out(*SERVICE, "--detach", "--name", "every", "--mode", "global", IMAGE, "sleep", "1000")
    same(swarm, *WRONG_VALUES)


def test_a_range_of_ports_is_published_the_same(swarm):
    for client in (swarm.docker, swarm.skep):
        client("service", "create", "--detach", "--no-resolve-image", "--name", "ports", "--publish", "18100-18101:80", IMAGE, "sleep", "1000")
        ports = swarm.json("service", "inspect", "ports")[0]["Spec"]["EndpointSpec"]["Ports"]
        assert [(port["PublishedPort"], port["TargetPort"]) for port in ports] == [(18100, 80), (18101, 80)]
        client("service", "rm", "ports")


def test_pull_and_load_read_the_same_in_a_pipe(d, registry, rootfs, tmp_path):
    name = pushed(registry, rootfs, "say/box", tmp_path)

    def pulled(client, *flags):
        done = client("pull", *flags, name)
        d.docker("rmi", "-f", name)
        return done.returncode, done.stdout, done.stderr
    for flags in ([], ["--quiet"]):
        assert pulled(d.docker, *flags) == pulled(d.skep, *flags)
    d.docker("pull", name)
    same(d, f"pull {name}", f"pull -q {name}", f"pull {registry}/no/such:1", "pull UPPER", "pull a:b:c", "run --pull never nosuch:1")
    archive = tmp_path / "saved.tar"
    subprocess.run(["skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"docker-archive:{archive}:saved:1"], check=True, capture_output=True)
    d.docker("rmi", "-f", name)
    loaded = []
    for client in (d.docker, d.skep):
        for flags in ([], ["-q"]):
            loaded.append(seen(client("load", *flags, "-i", str(archive))))
            d.docker("rmi", "-f", "saved:1")
    assert loaded[:2] == loaded[2:]
    # What is pulled on the way to something else is no data.
    shown = []
    for client in (d.docker, d.skep):
        done = client("run", "--rm", name, "true")
        shown.append((done.stdout, done.stderr))
        d.docker("rmi", "-f", name)
    assert shown[0] == shown[1] and shown[1][0] == "" and "Pull complete" in shown[1][1]


def test_processes_stand_in_dockers_columns(d):
    d.out("run", "-d", "--name", "one", IMAGE, "sleep", "1000")
    # Columns exactly, so that scripts that cut at them work.
    for words in (["top", "one"], ["top", "one", "aux"]):
        docker, skep = both(d, *words)
        assert re.sub(r"\d+[:.]\d+|\d{3,}", "N", docker.stdout) == re.sub(r"\d+[:.]\d+|\d{3,}", "N", skep.stdout)


def test_service_logs_name_each_line_the_same(swarm):
    d = swarm
    script = "echo one; echo two >&2; sleep 1000"
    d.out(*SERVICE, "--detach", "--name", "many", "--replicas", "11", IMAGE, "sh", "-c", script)
    d.out(*SERVICE, "--detach", "--name", "every", "--mode", "global", "--log-opt", "env=A", "--env", "A=1", IMAGE, "sh", "-c", script)
    until(lambda: len(running(d, "many")) == 11 and running(d, "every"), 30, "all run")
    until(lambda: len(d.docker("service", "logs", "many").stdout.splitlines()) == 11, 20, "all wrote")
    for flags in ([], ["-t"], ["--details"], ["--no-trunc"], ["--no-task-ids"], ["--no-resolve"], ["--raw"], ["-n", "1"]):
        for name in ("many", "every"):
            # Tasks come in any order, from both.
            docker, skep = ((sorted(done.stdout.splitlines()), sorted(done.stderr.splitlines())) for done in both(d, "service", "logs", *flags, name))
            assert docker == skep, (flags, name)
    task = running(d, "every")[0]["ID"]
    same(d, f"service logs {task}", "service logs nope")


def test_tasks_that_start_while_logs_are_followed_have_their_full_name(swarm):
    d = swarm
    d.out(*SERVICE, "--detach", "--name", "grows", "--replicas", "1", IMAGE, "sh", "-c", "echo up; sleep 1000")
    environment = dict(os.environ, DOCKER_HOST=f"unix://{d.socket}")
    client = subprocess.Popen([SKEP, "service", "logs", "-f", "grows"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert re.fullmatch(r"grows\.1\.[a-z0-9]{12}@\S+    \| up\n", client.stdout.readline())
        d.docker("service", "scale", "--detach", "grows=2")
        assert re.fullmatch(r"grows\.2\.[a-z0-9]{12}@\S+    \| up\n", client.stdout.readline())
    finally:
        client.kill()
        client.wait()


@pytest.mark.parametrize("role", ["worker", "manager"])
def test_join_tokens_are_shown_the_same(swarm, role):
    same(swarm, f"swarm join-token -q {role}", f"swarm join-token {role}", "swarm join-token x")
