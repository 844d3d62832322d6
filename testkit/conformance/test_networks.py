"""Networks of one machine with the stock docker CLI."""
import json
import signal
import subprocess
import time

import pytest
from conftest import IMAGE, until

OF_SWARM = {"ingress", "docker_gwbridge"}
NO_NET = "user specified IP address is supported only when connecting to networks with user configured subnets"


@pytest.fixture
def n(d):
    """The shared daemon, without networks afterwards."""
    yield d
    d.clear()
    d.docker("network", "prune", "-f")
    # The machine may be in a swarm.
    left = set(d.out("network", "ls", "--format", "{{.Name}}").split())
    assert left - OF_SWARM == {"bridge", "host", "none"}


def sleeper(d, name, *flags):
    d.docker("run", "-d", "--name", name, *flags, IMAGE, "sleep", "1000")
    return name


def inside(d, container, command, check=True):
    return d.docker("exec", container, "sh", "-c", command, check=check)


def refused(d, *args):
    done = d.docker(*args, check=False)
    assert done.returncode == 1, (done.stdout, done.stderr)
    # `network rm` goes on with the next one and says at its end that one failed.
    return done.stderr.strip().removeprefix("Error response from daemon: ").removesuffix("exit status 1").strip()


def places(d, container):
    return d.json("inspect", container)[0]["NetworkSettings"]["Networks"]


def reaches(d, container, address):
    return inside(d, container, f"ping -c 1 -W 1 {address}", check=False).returncode == 0


def test_create_ls_inspect_rm(n):
    made = n.out("network", "create", "--subnet", "10.31.0.0/24", "--gateway", "10.31.0.9", "--ip-range", "10.31.0.64/26",
                 "--aux-address", "router=10.31.0.64", "--label", "team=red", "-o", "com.docker.network.driver.mtu=1400", "red")
    assert len(made) == 64
    found = n.json("network", "inspect", "red")[0]
    assert found["Id"] == made and found["Driver"] == "bridge" and found["Scope"] == "local"
    assert found["IPAM"]["Config"] == [{"Subnet": "10.31.0.0/24", "IPRange": "10.31.0.64/26", "Gateway": "10.31.0.9",
                                        "AuxiliaryAddresses": {"router": "10.31.0.64"}}]
    assert found["Options"] == {"com.docker.network.driver.mtu": "1400"} and found["Labels"] == {"team": "red"}
    assert found["Containers"] == {} and found["EnableIPv4"] is True and found["EnableIPv6"] is False
    sleeper(n, "one", "--network", "red")
    place = places(n, "one")["red"]
    assert (place["IPAddress"], place["IPPrefixLen"], place["Gateway"]) == ("10.31.0.65", 24, "10.31.0.9")
    assert place["NetworkID"] == made and place["MacAddress"] == "02:42:0a:1f:00:41"
    one = n.json("inspect", "one")[0]
    assert place["DNSNames"] == ["one", one["Id"][:12]]
    assert inside(n, "one", "cat /sys/class/net/eth0/mtu").stdout == "1400\n"
    member = n.json("network", "inspect", made[:10])[0]["Containers"][one["Id"]]
    assert member["Name"] == "one" and member["IPv4Address"] == "10.31.0.65/24" and member["EndpointID"] == place["EndpointID"]
    assert n.out("ps", "-q", "--no-trunc", "--filter", "network=red") == one["Id"]
    text = refused(n, "network", "rm", "red")
    assert text.startswith(f"error while removing network: network red id {made} has active endpoints")
    n.docker("rm", "-f", "one")
    assert n.out("network", "rm", "red") == "red"
    assert "network red not found" in n.docker("network", "inspect", "red", check=False).stderr
    assert n.call("DELETE", "/networks/red")[0] == 404


def test_filters_of_ls(n):
    n.docker("network", "create", "--label", "team=red", "used")
    n.docker("network", "create", "--internal", "idle")
    sleeper(n, "one", "--network", "used")

    def names(*filters):
        flags = [word for wanted in filters for word in ("--filter", wanted)]
        return sorted(n.out("network", "ls", "--format", "{{.Name}}", *flags).split())
    assert [name for name in names("type=custom") if name not in OF_SWARM] == ["idle", "used"]
    assert names("type=builtin") == ["bridge", "host", "none"]
    assert [name for name in names("dangling=true") if name != "docker_gwbridge"] == ["idle"]
    assert [name for name in names("dangling=false") if name not in OF_SWARM] == ["bridge", "host", "none", "used"]
    assert names("driver=bridge", "type=custom", "label=team") == ["used"]
    assert names("driver=null") == ["none"]
    assert names("scope=local", "name=use") == ["used"]
    assert set(names("scope=swarm")) <= OF_SWARM
    assert "invalid filter" in refused(n, "network", "ls", "--filter", "color=red")


def test_what_is_refused(n):
    n.docker("network", "create", "--subnet", "10.32.0.0/24", "red")
    n.docker("network", "create", "chosen")
    for name, text in {"red": "network with name red already exists",
                       "bridge": "operation is not permitted on predefined bridge network"}.items():
        assert refused(n, "network", "create", name) == text
    assert n.call("POST", "/networks/create", {"Name": "red"})[0] == 409
    assert n.call("POST", "/networks/create", {"Name": "host"})[0] == 403
    assert refused(n, "network", "create", "--subnet", "10.32.0.0/16", "x") == \
        "invalid pool request: Pool overlaps with other one on this address space"
    assert refused(n, "network", "create", "--subnet", "10.33.0.1/24", "x") == \
        "invalid network config:\ninvalid subnet 10.33.0.1/24: it should be 10.33.0.0/24"
    assert refused(n, "network", "create", "-d", "nosuch", "x") == 'plugin "nosuch" not found'
    assert refused(n, "network", "create", "-d", "host", "x") == 'only one instance of "host" network is allowed'
    assert "strconv.ParseBool" in refused(n, "network", "create", "-o", "com.docker.network.bridge.enable_icc=perhaps", "x")
    assert refused(n, "network", "rm", "bridge") == "bridge is a pre-defined network and cannot be removed"
    assert n.call("DELETE", "/networks/none")[0] == 403
    run = lambda *flags: n.docker("run", "--rm", *flags, IMAGE, "true", check=False).stderr  # noqa: E731
    assert "failed to set up container networking: network nope not found" in run("--network", "nope")
    assert NO_NET in run("--network", "chosen", "--ip", "172.30.0.9")
    assert "no configured subnet or ip-range contain the IP address 10.99.0.9" in run("--network", "red", "--ip", "10.99.0.9")
    assert "supported on user defined networks only" in run("--ip", "172.17.0.9")
    body = {"Image": IMAGE, "NetworkingConfig": {"EndpointsConfig": {"bridge": {"Aliases": ["a"]}}}}
    status, answer = n.call("POST", "/containers/create", body)
    assert status == 400 and "network-scoped alias is supported only" in answer["message"]
    sleeper(n, "one", "--network", "red", "--ip", "10.32.0.7")
    assert "Address already in use" in run("--network", "red", "--ip", "10.32.0.7")
    assert refused(n, "network", "connect", "red", "one") == "endpoint with name one already exists in network red"
    one = n.json("inspect", "one")[0]["Id"]
    assert refused(n, "network", "disconnect", "chosen", "one").startswith(f"container {one} is not connected to")
    sleeper(n, "hosted", "--network", "host")
    assert refused(n, "network", "connect", "red", "hosted") == \
        "container cannot be disconnected from host network or connected to host network"
    sleeper(n, "alone", "--network", "none")
    assert "private (none) mode" in refused(n, "network", "connect", "red", "alone")
    assert "container sharing network namespace" in refused(n, "network", "connect", "red", sleeper(n, "guest", "--network", "container:one"))
    assert refused(n, "network", "connect", "red", "nobody") == "No such container: nobody"
    assert n.call("POST", "/networks/nope/connect", {"Container": "one"})[0] == 404


def test_networks_are_apart_and_names_are_noted(n):
    n.docker("network", "create", "red")
    n.docker("network", "create", "--internal", "closed")
    sleeper(n, "r1", "--network", "red", "--network-alias", "db", "--hostname", "backend")
    sleeper(n, "r2", "--network", "red")
    sleeper(n, "c1", "--network", "closed")
    sleeper(n, "plain")
    address = {name: next(iter(places(n, name).values()))["IPAddress"] for name in ("r1", "r2", "c1", "plain")}
    assert reaches(n, "r2", address["r1"])
    for source, target in [("plain", "r1"), ("r1", "plain"), ("c1", "r1"), ("r1", "c1")]:
        assert not reaches(n, source, address[target]), (source, target)
    one = n.json("inspect", "r1")[0]
    assert places(n, "r1")["red"]["DNSNames"] == ["r1", "db", one["Id"][:12], "backend"]
    assert places(n, "r1")["red"]["Aliases"] == ["db"]
    lines = inside(n, "r1", "cat /etc/hosts").stdout.splitlines()
    assert lines[-1] == f"{address['r1']}\tbackend" and len([line for line in lines if address["r1"] in line]) == 1
    assert "default" not in inside(n, "c1", "ip route").stdout
    n.docker("rename", "r1", "r9")
    assert places(n, "r9")["red"]["DNSNames"][0] == "r9"
    assert n.json("network", "inspect", "red")[0]["Containers"][one["Id"]]["Name"] == "r9"


def test_connect_and_disconnect(n):
    n.docker("network", "create", "--subnet", "10.34.0.0/24", "a")
    n.docker("network", "create", "--subnet", "10.35.0.0/24", "b")
    sleeper(n, "peer", "--network", "b")
    peer = places(n, "peer")["b"]["IPAddress"]
    sleeper(n, "one", "--network", "a")
    assert not reaches(n, "one", peer)
    n.docker("network", "connect", "--ip", "10.35.0.77", "--alias", "uno", "b", "one")
    assert sorted(places(n, "one")) == ["a", "b"] and places(n, "one")["b"]["IPAddress"] == "10.35.0.77"
    assert "uno" in places(n, "one")["b"]["DNSNames"]
    until(lambda: reaches(n, "one", peer), 10, "the new network is reached")
    assert "10.35.0.77" in inside(n, "one", "cat /etc/hosts").stdout
    n.docker("restart", "-t", "0", "one")
    assert places(n, "one")["b"]["IPAddress"] == "10.35.0.77"
    n.docker("network", "disconnect", "a", "one")
    assert sorted(places(n, "one")) == ["b"] and "10.34.0" not in inside(n, "one", "cat /etc/hosts; ip addr").stdout
    until(lambda: reaches(n, "one", peer), 10, "the other network is still reached")
    # One that does not run.
    n.docker("stop", "-t", "0", "one")
    n.docker("network", "connect", "a", "one")
    n.docker("network", "disconnect", "b", "one")
    assert sorted(places(n, "one")) == ["a"]
    n.docker("start", "one")
    assert places(n, "one")["a"]["IPAddress"].startswith("10.34.0.")
    n.docker("create", "--name", "two", "--network", "a", IMAGE, "sleep", "1000")
    n.docker("network", "connect", "b", "two")
    n.docker("start", "two")
    assert sorted(places(n, "two")) == ["a", "b"]
    assert inside(n, "two", "ip route").stdout.count("default via 10.34.0.1") == 1


def test_several_networks_at_create(n):
    n.docker("network", "create", "a")
    n.docker("network", "create", "b")
    n.docker("run", "-d", "--name", "one", "--network", "name=b,alias=beta", "--network", "name=a,gw-priority=1", IMAGE, "sleep", "1000")
    assert sorted(places(n, "one")) == ["a", "b"] and places(n, "one")["b"]["Aliases"] == ["beta"]
    gateway = places(n, "one")["a"]["Gateway"]
    assert f"default via {gateway} dev eth1" in inside(n, "one", "ip route").stdout
    body = {"Image": IMAGE, "NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": {}}}, "HostConfig": {"NetworkMode": "a"}}
    status, answer = n.call("POST", "/v1.43/containers/create", body)
    assert status == 400 and answer["message"] == "Container cannot be created with multiple network endpoints: a, b"


def test_events_of_networks(n):
    since = str(time.time())
    n.docker("network", "create", "red")
    sleeper(n, "one", "--network", "red")
    n.docker("network", "disconnect", "red", "one")
    n.docker("network", "connect", "red", "one")
    n.docker("rm", "-f", "one")
    n.docker("network", "rm", "red")
    lines = n.out("events", "--since", since, "--until", str(time.time()), "--filter", "type=network", "--format", "{{json .}}").splitlines()
    seen = [json.loads(line) for line in lines]
    assert [event["Action"] for event in seen] == ["create", "connect", "disconnect", "connect", "disconnect", "destroy"]
    assert all(event["Actor"]["Attributes"]["name"] == "red" and event["Actor"]["Attributes"]["type"] == "bridge" for event in seen)
    assert "container" in seen[1]["Actor"]["Attributes"] and "container" not in seen[0]["Actor"]["Attributes"]


def test_prune_takes_what_nobody_is_on(n):
    for name in ("used", "idle", "kept"):
        n.docker("network", "create", *(["--label", "keep=1"] if name == "kept" else []), name)
    sleeper(n, "one", "--network", "used")
    assert n.out("network", "prune", "-f", "--filter", "label!=keep").splitlines() == ["Deleted Networks:", "idle"]
    assert sorted(n.out("network", "ls", "-q", "--filter", "type=custom", "--filter", "scope=local", "--format", "{{.Name}}").split()) == ["kept", "used"]


def test_ports_of_a_user_network(n):
    n.docker("network", "create", "-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1", "red")
    sleeper(n, "one", "--network", "red", "-p", "80")
    assert n.out("port", "one").startswith("80/tcp -> 127.0.0.1:")


def test_networks_outlive_a_kill(own):
    made = own.out("network", "create", "--subnet", "10.36.0.0/24", "red")
    own.docker("network", "create", "--subnet", "10.37.0.0/24", "blue")
    sleeper(own, "one", "--network", "red")
    own.docker("network", "connect", "blue", "one")
    before = own.json("network", "inspect", "red", "blue")
    own.end(signal.SIGKILL)
    subprocess.run(["ip", "link", "del", f"br-{made[:12]}"], check=True)
    own.start()
    assert own.json("network", "inspect", "red", "blue") == before
    sleeper(own, "two", "--network", "red")
    until(lambda: reaches(own, "two", places(own, "one")["red"]["IPAddress"]), 10, "the bridge is back, with its containers")
    own.docker("network", "disconnect", "blue", "one")
    own.docker("rm", "-f", "one", "two")
    own.docker("network", "rm", "red", "blue")
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout
    assert made[:12] not in links


def test_macvlan(n):
    # The link that scripts/in-netns makes.
    n.docker("network", "create", "-d", "macvlan", "-o", "parent=lan0", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.1", "wire")
    found = n.json("network", "inspect", "wire")[0]
    assert found["Driver"] == "macvlan" and found["Options"] == {"parent": "lan0"}
    sleeper(n, "one", "--network", "wire", "--ip", "10.77.0.9")
    sleeper(n, "two", "--network", "wire")
    until(lambda: reaches(n, "two", "10.77.0.9"), 10, "siblings reach each other")
    assert "default via 10.77.0.1 dev eth0" in inside(n, "one", "ip route").stdout
    assert "ipvlan networks are not supported" in refused(n, "network", "create", "-d", "ipvlan", "x")


def test_links_on_a_user_network(n):
    n.docker("network", "create", "red")
    sleeper(n, "db", "--network", "red")
    sleeper(n, "web", "--network", "red", "--link", "db:data")
    address = places(n, "db")["red"]["IPAddress"]
    assert f"{address}\tdata" in inside(n, "web", "cat /etc/hosts").stdout
    assert reaches(n, "web", "data")
    sleeper(n, "late")
    n.docker("network", "connect", "--link", "db:later", "red", "late")
    assert f"{address}\tlater" in inside(n, "late", "cat /etc/hosts").stdout


def test_the_same_commands_in_skep(n):
    made = n.skep("network", "create", "--subnet", "10.39.0.0/24", "--subnet", "fd00:39::/64", "--ipv6", "--gateway", "10.39.0.9",
                  "--ip-range", "10.39.0.64/26", "--aux-address", "router=10.39.0.65", "--label", "a=b", "red").stdout.strip()
    found = n.json("network", "inspect", made)[0]
    assert found["IPAM"]["Config"][0] == {"Subnet": "10.39.0.0/24", "IPRange": "10.39.0.64/26", "Gateway": "10.39.0.9",
                                          "AuxiliaryAddresses": {"router": "10.39.0.65"}}
    assert n.skep("network", "create", "--subnet", "10.40.0.0/24", "--gateway", "10.41.0.1", "x", check=False).stderr.strip() == \
        "no matching subnet for gateway 10.41.0.1"
    sleeper(n, "one")
    n.skep("network", "connect", "--ip", "10.39.0.70", "--alias", "uno", "red", "one")
    assert places(n, "one")["red"]["IPAddress"] == "10.39.0.70" and places(n, "one")["red"]["Aliases"] == ["uno"]
    n.skep("network", "disconnect", "red", "one")
    assert list(places(n, "one")) == ["bridge"]
    assert n.skep("network", "rm", "red").stdout == "red\n"
    done = n.skep("network", "rm", "red", check=False)
    assert done.returncode == 1 and "network red not found" in done.stderr
    assert n.skep("network", "rm", "-f", "red").returncode == 0


def test_ipv6(n):
    n.docker("network", "create", "--ipv6", "--subnet", "fd00:38::/64", "six")
    n.docker("network", "create", "--ipv6", "chosen")
    assert n.json("network", "inspect", "chosen")[0]["IPAM"]["Config"][1]["Subnet"].startswith("fd")
    sleeper(n, "one", "--network", "six")
    sleeper(n, "two", "--network", "six", "--ip6", "fd00:38::99")
    assert places(n, "two")["six"]["GlobalIPv6Address"] == "fd00:38::99"
    assert places(n, "one")["six"]["IPv6Gateway"] == "fd00:38::1"
    until(lambda: reaches(n, "one", "fd00:38::99"), 10, "the other answers")
