"""Images: registries, archives, names."""
import json
import pathlib
import subprocess

from conftest import IMAGE


def pushed(registry, rootfs, name, folder):
    """Puts the busybox image into the registry with skopeo, as an OCI image with one layer."""
    import hashlib
    import tarfile
    layout = folder / "layout"
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)

    def blob(data):
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}
    # One more file makes the layer another one than that of the imported image.
    packed = folder / "layer.tar"
    packed.write_bytes(pathlib.Path(rootfs).read_bytes())
    (folder / "mark").write_text(name)
    with tarfile.open(packed, "a") as archive:
        archive.add(folder / "mark", "mark")
    layer = packed.read_bytes()
    described = blob(layer)
    config = blob(json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["sh"], "Env": ["PATH=/bin", "FROM=registry"]},
                              "rootfs": {"type": "layers", "diff_ids": [described["digest"]]}}).encode())
    manifest = blob(json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                                "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **config},
                                "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", **described}]}).encode())
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", **manifest}]}))
    subprocess.run(["skopeo", "copy", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{registry}/{name}"],
                   check=True, capture_output=True)
    return f"{registry}/{name}"


def test_pull_run_tag_remove(d, registry, rootfs, tmp_path):
    name = pushed(registry, rootfs, "a/box:1", tmp_path)
    pulled = d.docker("pull", name)
    assert "Pull complete" in pulled.stdout and f"Status: Downloaded newer image for {name}" in pulled.stdout
    assert f"Status: Image is up to date for {name}" in d.docker("pull", name).stdout
    assert d.out("run", "--rm", name, "sh", "-c", "echo $FROM") == "registry"
    digest = d.json("inspect", name)[0]["RepoDigests"][0]
    assert digest.startswith(f"{registry}/a/box@sha256:")
    d.docker("tag", name, "mine:2")
    assert "Untagged: mine:2" in d.out("rmi", "mine:2")
    assert "Deleted: sha256:" in d.out("rmi", name)
    assert d.docker("image", "inspect", name, check=False).returncode == 1
    d.docker("pull", digest)
    d.docker("rmi", digest)


def test_what_is_missing_is_said_truly(d, registry):
    gone = d.docker("pull", f"{registry}/no/such:1", check=False)
    assert gone.returncode == 1 and "manifest unknown" in gone.stderr
    refused = d.docker("pull", "127.0.0.1:1/x:1", check=False)
    assert "connection refused" in refused.stderr.lower()
    assert "invalid reference format" in d.docker("pull", "UPPER", check=False).stderr


def test_an_archive_is_loaded(d, registry, rootfs, tmp_path):
    name = pushed(registry, rootfs, "b/box:1", tmp_path)
    archive = tmp_path / "a.tar"
    subprocess.run(["skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"docker-archive:{archive}:loaded:3"],
                   check=True, capture_output=True)
    assert "Loaded image: loaded:3" in d.out("load", "-i", str(archive))
    assert d.out("run", "--rm", "loaded:3", "echo", "x") == "x"
    d.docker("rmi", "loaded:3")


def test_an_image_in_use_stays(d):
    d.docker("create", "--name", "user", IMAGE)
    refused = d.docker("rmi", IMAGE, check=False)
    assert refused.returncode == 1 and "conflict: unable to remove repository reference" in refused.stderr


def test_import_takes_changes(d, rootfs):
    told = d.out("import", "--change", "ENV A=b", "--change", 'ENTRYPOINT ["echo"]', "--change", "USER guest", str(rootfs), "imp:1")
    assert told == d.out("inspect", "--format", "{{.Id}}", "imp:1"), "its id, once"
    assert d.out("run", "--rm", "imp:1", "hello") == "hello"
    config = d.json("inspect", "imp:1")[0]["Config"]
    assert config["User"] == "guest" and "A=b" in config["Env"]
    d.docker("rmi", "imp:1")


def test_a_corrupt_archive_leaves_nothing(d, tmp_path):
    before = d.out("images", "-q", "--no-trunc")
    bad = tmp_path / "bad.tar"
    bad.write_bytes(b"this is no tar archive" * 100)
    assert d.docker("load", "-i", str(bad), check=False).returncode == 1
    assert d.docker("import", str(bad), "bad:1", check=False).returncode == 1
    assert d.out("images", "-q", "--no-trunc") == before
