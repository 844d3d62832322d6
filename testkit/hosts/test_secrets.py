"""Keys: none is readable on a disk, a locked manager needs one, a new root reaches everybody."""
import re

from common import until


def files(folder):
    """Every file of a data root, but images and what containers wrote."""
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink() and not {"images", "containers"} & set(path.parts))


def test_no_key_token_or_service_is_readable_on_a_disk(make):
    p = make(3)
    told = p.out("n1", "swarm", "init", "--autolock", "--advertise-addr", p.address("n1"))
    p.join("n2", "manager")
    p.join("n3", "worker")
    until(lambda: p.node_list("n1").get("n2") == ["Ready", "Reachable"], 30, "two managers")
    p.create("n1", "web", 3)
    p.create("n1", "quiet", 0, "--env", "PASSWORD=canary-in-a-service", "--label", "canary=canary-in-a-label")
    p.runs("n1", "web", 3)
    until(lambda: "quiet" in p.services("n2"), 30, "both managers have it")
    # Also what is only written when a daemon starts or stops.
    p.skep("stop", "--daemon", "n2")
    p.start("n2")
    key = re.search(r"SWMKEY-1-\S+", told).group(0)
    p.docker("n2", "swarm", "unlock", stdin=key + "\n")
    until(lambda: p.all_ready("n2"), 30, "all are ready")
    tokens = [p.out("n1", "swarm", "join-token", "-q", role).rsplit("-", 1)[1] for role in ("worker", "manager")]
    secrets = [text.encode() for text in (*tokens, key, "canary-in-a")]
    seen = 0
    for node in p.nodes:
        for path in files(p.folder / node / "data"):
            content = path.read_bytes()
            seen += 1
            assert not [secret for secret in secrets if secret in content], path
            if b"PRIVATE KEY" in content:
                assert path.name == "swarm-node.key" and path.stat().st_mode & 0o777 == 0o600, path
                is_sealed = b"BEGIN SEALED PRIVATE KEY" in content
                assert is_sealed == (node != "n3"), f"{path}: those of managers are locked"
    assert seen > 20
    for node in p.nodes:
        log = (p.folder / node / "daemon.log").read_bytes()
        assert not [secret for secret in secrets if secret in log], f"log of {node}"


def test_a_locked_manager_needs_the_key(make):
    p = make(1)
    told = p.out("n1", "swarm", "init", "--autolock", "--advertise-addr", p.address("n1"))
    key = re.search(r"SWMKEY-1-\S+", told).group(0)
    assert p.out("n1", "swarm", "unlock-key", "-q") == key
    p.create("n1", "web", 1)
    p.runs("n1", "web", 1)
    mine = p.containers("n1")
    p.skep("kill", "--daemon", "n1")
    p.start("n1")
    assert p.local_state("n1") == "locked"
    assert "Swarm is encrypted and needs to be unlocked before it can be used." in p.error("n1", "node", "ls")
    assert p.containers("n1") == mine, "its tasks run on"
    wrong = "SWMKEY-1-" + "A" * 43
    assert "swarm could not be unlocked: invalid key provided" in p.error("n1", "swarm", "unlock", stdin=wrong + "\n")
    p.docker("n1", "swarm", "unlock", stdin=key + "\n")
    assert p.any_leader("n1") == "n1"
    p.runs("n1", "web", 1)
    assert p.containers("n1") == mine

    # A new key, then none.
    path = p.folder / "n1/data/swarm/certificates/swarm-node.key"
    sealed = path.read_text()
    rotated = p.out("n1", "swarm", "unlock-key", "--rotate", "-q")
    assert rotated != key
    until(lambda: path.read_text() != sealed, 30, "its key is sealed anew")
    p.skep("kill", "--daemon", "n1")
    p.start("n1")
    assert "invalid key provided" in p.error("n1", "swarm", "unlock", stdin=key + "\n")
    p.docker("n1", "swarm", "unlock", stdin=rotated + "\n")
    p.any_leader("n1")
    p.docker("n1", "swarm", "update", "--autolock=false")
    until(lambda: "SEALED" not in path.read_text(), 30, "its key is no longer sealed")
    p.skep("kill", "--daemon", "n1")
    p.start("n1")
    assert p.any_leader("n1") == "n1"
    assert p.containers("n1") == mine


def test_the_root_is_rotated_while_a_machine_is_off(make):
    p = make(3, managers=2)
    p.create("n1", "web", 2)
    p.runs("n1", "web", 2)
    old = p.out("n1", "swarm", "ca")
    token = p.out("n1", "swarm", "join-token", "-q", "worker")

    def is_rotating():
        return p.json("n1", "info", "--format", "{{json .Swarm.Cluster}}")["RootRotationInProgress"]
    p.kill("n3")
    p.docker("n1", "swarm", "ca", "--rotate", "--detach")
    until(is_rotating, 30, "it has begun")
    p.start("n3")
    until(lambda: not is_rotating(), 60, "it ends")
    assert p.out("n1", "swarm", "ca") != old
    assert p.out("n1", "swarm", "join-token", "-q", "worker") != token
    until(lambda: p.all_ready("n2"), 30, "all are ready")
    p.runs("n1", "web", 2)
