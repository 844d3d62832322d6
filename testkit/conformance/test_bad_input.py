"""Bad input gets docker's status and words, and nothing is half made."""
import pytest
from conftest import IMAGE


@pytest.mark.parametrize("path, raw, status, says", [
    ("/containers/create", "{", 400, "JSON"),
    ("/containers/create", '{"Image": 5}', 400, "JSON"),
    ("/containers/create", "", 400, ""),
    ("/containers/create?name=%2F..%2Fx", '{"Image": "test/busybox:1"}', 400, "Invalid container name"),
    ("/containers/create", '{"Image": "nosuch:9"}', 404, "No such image: nosuch:9"),
    ("/containers/create", '{"Image": "test/busybox:1", "HostConfig": {"Memory": 1}}', 400, "Minimum memory limit allowed is 6MB"),
    ("/containers/create", '{"Image": "test/busybox:1", "HostConfig": {"Binds": ["a:b:c:d"]}}', 400, "invalid volume specification"),
    ("/containers/create", '{"Image": "test/busybox:1", "HostConfig": {"Binds": ["/a:b"]}}', 400, "mount path must be absolute"),
    ("/containers/nope/start", None, 404, "No such container: nope"),
    ("/containers/nope/exec", '{"Cmd": ["x"]}', 404, "No such container: nope"),
    ("/services/create", '{"Name": "x y", "TaskTemplate": {"ContainerSpec": {"Image": "a"}}}', 400, "name must be valid as a DNS name component"),
    ("/services/create", '{"Name": "x", "TaskTemplate": {"ContainerSpec": {}}}', 400, "image reference must be provided"),
    ("/services/create", "{", 400, "JSON"),
    ("/images/create?fromImage=UPPER", None, 400, "invalid reference format"),
    ("/volumes/create", '{"Name": "../x"}', 400, "volume name"),
    ("/nope", None, 404, "page not found"),
])
def test_requests_are_refused_in_words(swarm, path, raw, status, says):
    d = swarm
    before = d.containers(), d.call("GET", "/services")[1], d.call("GET", "/volumes")[1]["Volumes"]
    got, body = d.call("POST", "/v1.51" + path, raw=raw)
    assert got == status, body
    assert says in body["message"], body
    assert before == (d.containers(), d.call("GET", "/services")[1], d.call("GET", "/volumes")[1]["Volumes"])


@pytest.mark.parametrize("version, says", [("1.99", "is too new"), ("1.10", "is too old")])
def test_versions_out_of_range(d, version, says):
    status, body = d.call("GET", f"/v{version}/containers/json")
    assert status == 400 and says in body["message"]


def test_outside_a_swarm_the_way_in_is_named(own):
    status, body = own.call("GET", "/services")
    assert status == 503 and 'Use "docker swarm init"' in body["message"]


def test_a_start_that_fails_leaves_a_created_container(d):
    made = d.call("POST", "/containers/create", {"Image": IMAGE, "Cmd": ["/nope"]})[1]["Id"]
    status, body = d.call("POST", f"/containers/{made}/start")
    assert status == 400 and "no such file or directory" in body["message"]
    state = d.call("GET", f"/containers/{made}/json")[1]["State"]
    assert state["Status"] == "created" and state["ExitCode"] == 127
    left = d.leftovers()
    # The ingress network stays for as long as the machine is in the swarm.
    assert not left["shims"] and not left["cgroups"] and all("/netns/" in mount for mount in left["mounts"]), left


def test_a_second_daemon_on_the_same_root_is_refused(d):
    import os
    import subprocess
    from conftest import SKEP
    done = subprocess.run([SKEP, "daemon", "-H", f"unix://{d.base}/other.sock", "--data-root", str(d.base / "data"),
                           "--exec-root", str(d.base / "exec2"), "--pidfile", str(d.base / "pid2")], capture_output=True, text=True, timeout=20)
    assert done.returncode == 1 and "is in use by another skep daemon" in done.stderr
    assert not os.path.exists(d.base / "other.sock")
