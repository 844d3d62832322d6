"""docker commit with the stock CLI, and skep's own commit, diff and export."""
import tarfile
import time

import pytest
from conftest import IMAGE, until


@pytest.fixture
def made(d):
    """Names of images to be removed afterwards."""
    names = []
    yield names
    d.clear()
    for name in names:
        d.docker("rmi", "-f", name, check=False)


@pytest.mark.parametrize("state", ["running", "exited", "created"])
def test_an_image_has_what_the_container_changed(d, made, state):
    script = "echo new > /data/new; rm /data/seed; rm -r /root; mkdir /root; echo x > /root/x; chown 1000 /data/new; touch /done"
    if state == "created":
        name = d.out("create", IMAGE, "true")
    else:
        name = d.out("run", "-d", "-v", "/volume", IMAGE, "sh", "-c", script + "; sleep 1000")
        until(lambda: "A /done" in d.out("diff", name), 10, "it has written")
    if state == "exited":
        d.out("kill", name)
    made.append("test/made:1")
    image = d.out("commit", "-a", "Some One <x@y>", "-m", "a message", "--change", 'CMD ["cat", "/data/new"]',
                  "--change", "ENV WHO=me", "--change", "LABEL a=b", name, "test/made:1")
    assert image.startswith("sha256:")
    found = d.json("inspect", "test/made:1")[0]
    assert (found["Id"], found["Author"], found["Comment"]) == (image, "Some One <x@y>", "a message")
    assert found["Config"]["Cmd"] == ["cat", "/data/new"] and "WHO=me" in found["Config"]["Env"]
    assert found["Config"]["Labels"]["a"] == "b" and not found["Config"].get("Hostname")
    layers = len(d.json("inspect", IMAGE)[0]["RootFS"]["Layers"])
    assert len(found["RootFS"]["Layers"]) == layers + (0 if state == "created" else 1)
    history = d.out("history", "--no-trunc", "--format", "{{.Comment}}|{{.CreatedBy}}", "test/made:1").splitlines()
    assert history[0].startswith("a message|") and len(history) == layers + 1
    if state == "created":
        assert d.out("run", "--rm", "test/made:1", "cat", "/data/seed") == "seed"
        return
    assert d.out("run", "--rm", "test/made:1") == "new"
    assert d.out("run", "--rm", "test/made:1", "sh", "-c", "ls /data /root; stat -c %u /data/new; ls -d /volume") \
        == "/data:\nnew\n\n/root:\nx\n1000\n/volume"
    assert d.out("inspect", "-f", "{{.State.Status}}", name) == state
    # The image lives without its container, and an image of an image's container is one more layer.
    d.out("rm", "-f", name)
    second = d.out("run", "-d", "test/made:1", "sh", "-c", "echo 2 > /second; sleep 1000")
    until(lambda: "A /second" in d.out("diff", second), 10, "it has written")
    made.append("test/made:2")
    d.out("commit", second, "test/made:2")
    assert d.out("run", "--rm", "test/made:2", "cat", "/data/new", "/second") == "new\n2"


def test_a_commit_pauses_unless_told_not_to(d, made):
    name = d.out("run", "-d", IMAGE, "sleep", "1000")
    made += ["test/p:1", "test/p:2"]
    since = str(time.time() - 0.5)
    d.out("commit", "--pause=false", name, "test/p:1")
    d.out("commit", name, "test/p:2")
    found = d.out("events", "--since", since, "--until", str(time.time() + 0.5), "--filter", f"container={name}",
                  "--format", "{{.Action}}").split()
    assert [a for a in found if a in ("pause", "unpause", "commit")] in (
        ["commit", "pause", "unpause", "commit"], ["commit", "pause", "commit", "unpause"]), found


def test_what_cannot_be_committed_is_refused(d):
    name = d.out("create", IMAGE)
    for args, text in [
        (("nosuch",), "No such container: nosuch"), (("--change", "RUN x", name), "run is not a valid change command"),
        ((name, "Bad:Name"), "invalid reference format"),
    ]:
        done = d.docker("commit", *args, check=False)
        assert done.returncode == 1 and text in done.stderr, done.stderr
    before = len(d.call("GET", "/images/json")[1])
    assert len(d.call("GET", "/images/json")[1]) == before


def test_skep_says_the_same(d, made, tmp_path):
    name = d.out("run", "-d", IMAGE, "sh", "-c", "echo 1 > /opt; sleep 1000")
    until(lambda: "A /opt" in d.out("diff", name), 10, "it has written")
    assert d.skep("diff", name).stdout == d.docker("diff", name).stdout
    made.append("test/s:1")
    image = d.skep("commit", "-m", "words", "-c", "CMD cat /opt", name, "test/s:1").stdout.strip()
    assert d.json("inspect", "test/s:1")[0]["Id"] == image and d.out("run", "--rm", "test/s:1") == "1"
    d.skep("export", "-o", str(tmp_path / "x.tar"), name)
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.extractfile("opt").read() == b"1\n"
    assert [p.name for p in tmp_path.iterdir()] == ["x.tar"]
    done = d.skep("export", "-o", str(tmp_path / "y.tar"), "nosuch", check=False)
    assert done.returncode == 1 and "No such container: nosuch" in done.stderr and not (tmp_path / "y.tar").exists()
