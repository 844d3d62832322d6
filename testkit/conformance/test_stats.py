"""docker stats and docker diff with the stock CLI."""
import json
import threading
import time

from conftest import IMAGE, Unix, until


def stats(d, name, query="stream=false"):
    status, found = d.call("GET", f"/containers/{name}/stats?{query}")
    assert status == 200, found
    return found


def test_figures_are_those_of_the_container(d):
    name = d.out("run", "-d", "--name", "st1", "--memory", "64m", "--pids-limit", "50", IMAGE, "sh", "-c",
                 "sleep 1000 & while :; do :; done")
    found = stats(d, name)
    assert (found["name"], found["id"]) == ("/st1", name)
    assert found["memory_stats"]["limit"] == 64 << 20 and 0 < found["memory_stats"]["usage"] < 64 << 20
    assert found["pids_stats"] == {"current": 2, "limit": 50}
    used = found["cpu_stats"]["cpu_usage"]["total_usage"] - found["precpu_stats"]["cpu_usage"]["total_usage"]
    whole = found["cpu_stats"]["system_cpu_usage"] - found["precpu_stats"]["system_cpu_usage"]
    cpus = found["cpu_stats"]["online_cpus"]
    # It had a core, or its share of a busy one, for about a second of all cores' time.
    assert 0.05 < used / whole * cpus < 1.2 and 0.5e9 * cpus < whole < 3e9 * cpus, found
    assert found["preread"] < found["read"] and found["num_procs"] == 0 and found["storage_stats"] == {}
    assert set(found["networks"]) == {"eth0"}
    assert isinstance(found["blkio_stats"]["io_service_bytes_recursive"], list)
    shown = d.json("stats", "--no-stream", "--format", "json", "st1")
    assert shown["Name"] == "st1" and shown["PIDs"] == "2" and shown["MemUsage"].endswith("/ 64MiB"), shown
    assert float(shown["CPUPerc"].rstrip("%")) > 5 and float(shown["MemPerc"].rstrip("%")) > 0


def test_skep_shows_the_same_table(d):
    d.out("run", "-d", "--name", "st3", "--memory", "64m", IMAGE, "sleep", "1000")
    shown, expect = (client("stats", "--no-stream").stdout.splitlines() for client in (d.skep, d.docker))
    assert shown[0].split() == expect[0].split() and len(shown) == 2
    ours, theirs = (json.loads(client("stats", "--no-stream", "--format", "json", "st3").stdout) for client in (d.skep, d.docker))
    assert set(ours) == set(theirs) and {**ours, "CPUPerc": ""} == {**theirs, "CPUPerc": ""}
    done = d.skep("stats", "--no-stream", "nosuch", check=False)
    assert done.returncode == 1 and "No such container: nosuch" in done.stderr


def test_networks_are_counted(d):
    name = d.out("run", "-d", IMAGE, "sleep", "1000")
    before = stats(d, name, "stream=false&one-shot=true")["networks"]["eth0"]
    gateway = d.out("inspect", "-f", "{{.NetworkSettings.Gateway}}", name)
    d.out("exec", name, "ping", "-c", "3", "-i", "0.1", "-s", "1000", gateway)
    after = stats(d, name, "stream=false&one-shot=true")["networks"]["eth0"]
    assert after["tx_bytes"] - before["tx_bytes"] >= 3000 and after["rx_bytes"] - before["rx_bytes"] >= 3000
    host = d.out("run", "-d", "--network", "host", IMAGE, "sleep", "1000")
    assert "networks" not in stats(d, host, "stream=false&one-shot=true")


def test_one_shot_comes_at_once(d):
    name = d.out("run", "-d", IMAGE, "sleep", "1000")
    began = time.monotonic()
    found = stats(d, name, "stream=false&one-shot=true")
    assert time.monotonic() - began < 0.9
    assert found["precpu_stats"]["cpu_usage"]["total_usage"] == 0 and found["preread"].startswith("0001-01-01")
    assert d.call("GET", f"/containers/{name}/stats?stream=true&one-shot=true")[0] == 400


def test_what_does_not_run_uses_nothing(d):
    name = d.out("create", "--name", "st2", IMAGE)
    found = stats(d, name)
    assert found["read"].startswith("0001-01-01") and found["memory_stats"] == {} and found["name"] == "/st2"
    shown = d.out("stats", "--no-stream", "--format", "{{.Name}} {{.CPUPerc}} {{.MemUsage}}", "st2")
    assert shown in ("st2 0.00% 0B / 0B", "-- -- -- / --"), shown
    assert d.call("GET", "/containers/nosuch/stats")[0] == 404


def test_a_stream_follows_the_container_to_its_end(d):
    name = d.out("run", "-d", IMAGE, "sleep", "1000")
    connection = Unix(d.socket)
    connection.request("GET", f"/containers/{name}/stats")
    answer = connection.getresponse()
    seen = [json.loads(answer.readline()) for _ in range(3)]
    assert seen[0]["preread"].startswith("0001") and seen[1]["preread"] == seen[0]["read"]
    assert seen[2]["precpu_stats"] == seen[1]["cpu_stats"]
    d.out("kill", name)
    until(lambda: json.loads(answer.readline())["read"].startswith("0001"), 10, "it uses nothing")
    thread = threading.Timer(0.2, lambda: d.out("rm", name))
    thread.start()
    end = time.monotonic() + 10
    while answer.readline():
        assert time.monotonic() < end
    thread.join()
    connection.close()


def diff(d, name):
    return d.out("diff", name).splitlines()


def test_diff_tells_what_was_added_changed_and_deleted(d):
    name = d.out("run", "-d", "-v", "/volume", "--tmpfs", "/scratch", IMAGE, "sh", "-c",
                 "rm /data/seed; mkdir -p /opt/x; echo 1 > /opt/x/y; echo more >> /etc/passwd; echo 1 > /volume/f; "
                 "echo 1 > /scratch/f; rm -r /root; mkdir /root; echo 1 > /dev/f; touch /done; sleep 1000")
    expect = ["A /done", "A /opt", "A /opt/x", "A /opt/x/y", "A /scratch", "A /volume", "C /data", "C /etc",
              "C /etc/passwd", "D /data/seed"]
    until(lambda: "A /done" in diff(d, name), 10, "it has written")
    assert [line for line in sorted(diff(d, name)) if line != "C /root"] == expect
    d.out("kill", name)
    assert [line for line in sorted(diff(d, name)) if line != "C /root"] == expect
    lines = diff(d, name)
    assert lines.index("A /opt") < lines.index("A /opt/x") < lines.index("A /opt/x/y")


def test_a_container_that_changed_nothing_has_no_diff(d):
    created = d.out("create", IMAGE)
    assert diff(d, created) == []
    ran = d.out("run", "-d", IMAGE, "sleep", "1000")
    assert diff(d, ran) == []
    assert d.call("GET", f"/containers/{ran}/changes") == (200, [])
    assert d.call("GET", "/containers/nosuch/changes")[0] == 404
