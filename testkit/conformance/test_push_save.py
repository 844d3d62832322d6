"""Images on their way out: archives of several, and pushes to a registry."""
import contextlib
import hashlib
import json
import shutil
import socket
import subprocess
import tarfile
import urllib.request

import pytest

from conftest import IMAGE, until

DIGEST = "sha256:"


@pytest.fixture
def built(d, tmp_path, monkeypatch):
    """Two images that share a layer."""
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo one > /one\nLABEL who=first\n")
    d.docker("build", "-q", "-t", "out/first:1", "-t", "out/first:2", str(tmp_path))
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nRUN echo one > /one\nRUN echo two > /two\n")
    d.docker("build", "-q", "-t", "out/second:1", str(tmp_path))
    yield d
    for name in d.out("images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", "reference=out/*").split():
        d.docker("rmi", name)


def fetch(url, accept=None):
    request = urllib.request.Request(url, headers={"Accept": accept} if accept else {})
    with urllib.request.urlopen(request) as answer:
        return answer.headers, answer.read()


def test_an_archive_has_both_layouts_and_comes_back_the_same(built, tmp_path):
    d = built
    ids = {name: d.out("inspect", "--format", "{{.Id}}", name) for name in ("out/first:1", "out/second:1")}
    archive = tmp_path / "all.tar"
    d.docker("save", "-o", str(archive), "out/first:1", "out/second")
    with tarfile.open(archive) as tar:
        names = tar.getnames()
        assert len(names) == len(set(names)), "shared layers are there once"
        manifest = json.load(tar.extractfile("manifest.json"))
        index = json.load(tar.extractfile("index.json"))
        assert json.load(tar.extractfile("oci-layout")) == {"imageLayoutVersion": "1.0.0"}
        for name in names:
            if name.startswith("blobs/sha256/") and tar.getmember(name).isfile():
                assert hashlib.sha256(tar.extractfile(name).read()).hexdigest() == name.rsplit("/", 1)[1]
    assert [entry["RepoTags"] for entry in manifest] == [["out/first:1"], ["out/second:1"]]
    assert [DIGEST + entry["Config"].rsplit("/", 1)[1] for entry in manifest] == list(ids.values())
    assert {entry["annotations"]["io.containerd.image.name"] for entry in index["manifests"]} == {
        "docker.io/out/first:1", "docker.io/out/second:1"}
    for name in ("out/first:1", "out/first:2", "out/second:1"):
        d.docker("rmi", name)
    told = d.out("load", "-i", str(archive))
    assert "Loaded image: out/first:1" in told and "Loaded image: out/second:1" in told
    assert {name: d.out("inspect", "--format", "{{.Id}}", name) for name in ids} == ids
    assert d.out("run", "--rm", "out/second:1", "cat", "/one", "/two") == "one\ntwo"


def test_other_tools_read_the_archive(built, tmp_path):
    archive, layout = tmp_path / "a.tar", tmp_path / "layout"
    with open(archive, "wb") as out:
        subprocess.run(["docker", "-H", f"unix://{built.socket}", "save", "out/first:1"], stdout=out, check=True)
    expect = built.out("inspect", "--format", "{{.Id}}", "out/first:1")
    raw = subprocess.run(["skopeo", "inspect", "--config", "--raw", f"docker-archive:{archive}"], check=True, capture_output=True)
    assert DIGEST + hashlib.sha256(raw.stdout).hexdigest() == expect
    layout.mkdir()
    with tarfile.open(archive) as tar:
        tar.extractall(layout)
    raw = subprocess.run(["skopeo", "inspect", "--config", "--raw", f"oci:{layout}"], check=True, capture_output=True)
    assert json.loads(raw.stdout)["config"]["Labels"] == {"who": "first"}


def test_what_is_not_there_is_not_saved(d, tmp_path):
    gone = d.docker("save", "-o", str(tmp_path / "x"), "no/such:1", check=False)
    assert gone.returncode == 1 and "No such image: no/such:1" in gone.stderr


def test_a_pushed_image_comes_back(built, registry):
    d, name = built, f"{registry}/push/first:1"
    d.docker("tag", "out/first:1", name)
    told = d.docker("push", name).stdout
    assert f"The push refers to repository [{registry}/push/first]" in told and "Pushed" in told
    digest, size = told.strip().splitlines()[-1].removeprefix("1: digest: ").split(" size: ")
    headers, manifest = fetch(f"http://{registry}/v2/push/first/manifests/1", "application/vnd.oci.image.manifest.v1+json")
    assert headers["Docker-Content-Digest"] == digest and len(manifest) == int(size)
    assert d.json("inspect", name)[0]["RepoDigests"] == [f"{registry}/push/first@{digest}"]
    assert "Layer already exists" in d.docker("push", name).stdout
    expect = d.out("inspect", "--format", "{{.Id}}", name)
    d.docker("rmi", name, "out/first:1", "out/first:2")
    d.docker("pull", name)
    assert d.out("inspect", "--format", "{{.Id}}", name) == expect
    assert d.out("run", "--rm", name, "cat", "/one") == "one"
    d.docker("rmi", name)


def test_layers_are_mounted_from_other_repositories_and_all_tags_go(built, registry):
    d = built
    first, second = f"{registry}/mount/first", f"{registry}/mount/second"
    d.docker("tag", "out/first:1", f"{first}:1")
    d.docker("push", f"{first}:1")
    for tag in ("a", "b"):
        d.docker("tag", "out/second:1", f"{second}:{tag}")
    told = d.docker("push", "-a", second).stdout
    assert "Mounted from mount/first" in told
    assert "a: digest: sha256:" in told and "b: digest: sha256:" in told
    tags = json.loads(fetch(f"http://{registry}/v2/mount/second/tags/list")[1])["tags"]
    assert sorted(tags) == ["a", "b"]
    d.docker("rmi", f"{first}:1", f"{second}:a", f"{second}:b")


def test_the_end_of_a_push_is_told_to_programs(built, registry):
    name = f"{registry}/aux/first"
    built.docker("tag", "out/first:1", f"{name}:1")
    status, text = built.call("POST", f"/images/{name}/push?tag=1", headers={"X-Registry-Auth": "e30="})
    assert status == 200
    lines = [json.loads(line) for line in text.splitlines()]
    aux = [line["aux"] for line in lines if "aux" in line][0]
    assert aux["Tag"] == "1" and aux["Digest"].startswith(DIGEST) and aux["Size"] > 100
    built.docker("rmi", f"{name}:1")


def test_what_cannot_be_pushed_is_refused_truly(d):
    gone = d.docker("push", "127.0.0.1:1/no/such:1", check=False)
    assert gone.returncode == 1
    assert "An image does not exist locally with the tag: 127.0.0.1:1/no/such" in gone.stderr
    d.docker("tag", IMAGE, "127.0.0.1:1/no/such:1")
    refused = d.docker("push", "127.0.0.1:1/no/such:1", check=False)
    assert refused.returncode == 1 and "connection refused" in refused.stderr
    d.docker("rmi", "127.0.0.1:1/no/such:1")


@pytest.fixture
def guarded(tmp_path):
    """A registry that wants a password."""
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import crypt
    hashed = crypt.crypt("secret", crypt.mksalt(crypt.METHOD_BLOWFISH, rounds=16))
    (tmp_path / "passwords").write_text(f"joe:{hashed}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (tmp_path / "config.yml").write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {tmp_path}/store\nhttp:\n  addr: 127.0.0.1:{port}\n"
        f"auth:\n  htpasswd:\n    realm: here\n    path: {tmp_path}/passwords\n")
    program = "docker-registry" if shutil.which("docker-registry") else "registry"
    process = subprocess.Popen([program, "serve", str(tmp_path / "config.yml")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ready():
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
    until(ready, 20, "the registry listens")
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(10)


@pytest.mark.parametrize("program", ["docker", "skep"])
def test_a_login_is_checked_and_used(built, guarded, program):
    d, name = built, f"{guarded}/joe/first:1"
    run = d.docker if program == "docker" else d.skep
    d.docker("tag", "out/first:1", name)
    refused = run("push", name, check=False)
    assert refused.returncode == 1 and "no basic auth credentials" in refused.stderr
    wrong = run("login", "-u", "joe", "--password-stdin", guarded, input="nope", check=False)
    assert wrong.returncode == 1 and "401 Unauthorized" in wrong.stderr
    assert "Login Succeeded" in run("login", "-u", "joe", "--password-stdin", guarded, input="secret").stdout
    assert "1: digest: sha256:" in run("push", name).stdout
    d.docker("rmi", name)
    run("pull", name)
    assert "Removing login credentials" in run("logout", guarded).stdout
    assert run("push", name, check=False).returncode == 1
    d.docker("rmi", name)


def test_searching_says_where_to_look_instead(d):
    found = d.docker("search", "nginx", check=False)
    assert found.returncode == 1 and "registries are not searched" in found.stderr


def test_skep_saves_and_pushes_as_docker_does(built, registry, tmp_path):
    d, name = built, f"{registry}/skep/first:1"
    d.docker("tag", "out/first:1", name)
    assert "1: digest: sha256:" in d.skep("push", name).stdout
    assert d.skep("push", "-q", name).stdout.strip() == name
    d.skep("save", "-o", str(tmp_path / "a.tar"), "out/first:1")
    assert "Loaded image: out/first:1" in d.skep("load", "-i", str(tmp_path / "a.tar")).stdout
    d.docker("rmi", name)
