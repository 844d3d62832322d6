"""docker cp in both directions, docker export and docker diff, with the stock CLI and archives that are made to harm."""
import base64
import http.client
import io
import json
import os
import pathlib
import stat
import tarfile
import threading
import time

import pytest
from conftest import IMAGE, Unix, until

STATES = ["created", "running", "paused", "exited"]


def container(d, state, *flags, script="sleep 1000"):
    """A container in this state, which has /data/seed from its image."""
    if state == "created":
        return d.out("create", *flags, IMAGE, "sh", "-c", script)
    name = d.out("run", "-d", *flags, IMAGE, "sh", "-c", script)
    if state == "exited":
        d.out("kill", name)
        until(lambda: d.out("inspect", "-f", "{{.State.Running}}", name) == "false", 10, "it ended")
    if state == "paused":
        d.out("pause", name)
    return name


def tar_of(*entries):
    """A tar of (name, kind, link or content)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, kind, what in entries:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
            if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = what
            if kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
                info.devmajor, info.devminor = what
            data = what.encode() if kind == tarfile.REGTYPE else b""
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def put(d, name, path, archive, query=""):
    return d.call("PUT", f"/containers/{name}/archive?path={path}{query}", raw=archive,
                  headers={"Content-Type": "application/x-tar"})


def get(d, name, path):
    """The archive of a path as an open tarfile, and the stat header."""
    connection = Unix(d.socket)
    connection.request("GET", f"/containers/{name}/archive?path={path}")
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    assert answer.status == 200, body
    assert answer.headers["Content-Type"] == "application/x-tar"
    header = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
    return tarfile.open(fileobj=io.BytesIO(body)), header


def head(d, name, path):
    connection = Unix(d.socket)
    connection.request("HEAD", f"/containers/{name}/archive?path={path}")
    answer = connection.getresponse()
    answer.read()
    connection.close()
    text = answer.headers["X-Docker-Container-Path-Stat"]
    return answer.status, json.loads(base64.b64decode(text)) if text else None


@pytest.mark.parametrize("state", STATES)
def test_files_go_in_and_come_out_again(d, tmp_path, state):
    name = container(d, state)
    source = tmp_path / "source"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "file").write_text("content")
    (source / "run").write_text("#!/bin/sh\n")
    (source / "run").chmod(0o4755)
    (source / "link").symlink_to("file")
    (source / "sub" / ("n" * 200)).write_bytes(os.urandom(300_000))
    os.chown(source / "file", 1234, 5678)
    os.utime(source / "file", (1_000_000_000, 1_000_000_000))
    d.docker("cp", str(source), f"{name}:/data/")
    back = tmp_path / "back"
    d.docker("cp", f"{name}:/data/source", str(back))
    assert (back / "file").read_text() == "content"
    found = (back / "file").stat()
    # Without -a the client's own user has what comes out.
    assert found.st_mtime == 1_000_000_000
    assert stat.S_IMODE((back / "run").stat().st_mode) == 0o4755
    assert os.readlink(back / "link") == "file" and (back / "sub" / "empty").is_dir()
    assert (back / "sub" / ("n" * 200)).read_bytes() == (source / "sub" / ("n" * 200)).read_bytes()
    with get(d, name, "/data/source/file")[0] as tar:
        info = tar.getmembers()[0]
        assert (info.name, info.uid, info.gid, info.mode) == ("file", 1234, 5678, 0o644)
    if state in ("created", "exited"):
        d.out("start", name)
    if state == "paused":
        d.out("unpause", name)
    assert d.out("exec", name, "cat", "/data/source/file") == "content"


@pytest.mark.parametrize("state", STATES)
def test_volumes_and_binds_are_seen(d, tmp_path, state):
    (tmp_path / "bind").mkdir()
    (tmp_path / "bind" / "host").write_text("host")
    (tmp_path / "locked").mkdir()
    name = container(d, state, "-v", "cpvol:/vol", "-v", f"{tmp_path}/bind:/bind", "-v", f"{tmp_path}/locked:/locked:ro",
                     "--mount", "type=volume,source=cpvol,target=/data/deep/volume")
    d.docker("cp", f"{name}:/bind/host", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "host"
    d.docker("cp", str(tmp_path / "out"), f"{name}:/bind/new")
    assert (tmp_path / "bind" / "new").read_text() == "host"
    d.docker("cp", str(tmp_path / "out"), f"{name}:/vol/inside")
    assert (d.base / "data" / "volumes" / "cpvol" / "_data" / "inside").read_text() == "host"
    with get(d, name, "/data/deep")[0] as tar:
        assert "deep/volume/inside" in tar.getnames()
    refused = d.docker("cp", str(tmp_path / "out"), f"{name}:/locked/x", check=False)
    assert refused.returncode == 1 and "mounted volume is marked read-only" in refused.stderr
    assert not list((tmp_path / "locked").iterdir())


@pytest.mark.parametrize("state", ["created", "running"])
def test_a_read_only_root_takes_nothing(d, tmp_path, state):
    (tmp_path / "f").write_text("x")
    name = container(d, state, "--read-only", "-v", "/vol")
    refused = d.docker("cp", str(tmp_path / "f"), f"{name}:/tmp/", check=False)
    assert refused.returncode == 1 and "container rootfs is marked read-only" in refused.stderr
    d.docker("cp", str(tmp_path / "f"), f"{name}:/vol/")


def test_a_running_container_s_tmpfs_is_seen(d, tmp_path):
    name = container(d, "running", "--tmpfs", "/scratch", script="echo temporary > /scratch/f; sleep 1000")
    until(lambda: d.docker("exec", name, "test", "-s", "/scratch/f", check=False).returncode == 0, 10, "it wrote")
    d.docker("cp", f"{name}:/scratch/f", str(tmp_path / "f"))
    assert (tmp_path / "f").read_text() == "temporary\n"


def test_what_is_missing_is_named(d, tmp_path):
    name = container(d, "created", "--name", "cpm")
    for args in [("cp", "cpm:/no/such", str(tmp_path)), ("cp", "cpm:/nosuch", "-")]:
        done = d.docker(*args, check=False)
        assert done.returncode == 1
        assert f"Could not find the file {args[1].split(':')[1]} in container cpm" in done.stderr, done.stderr
    done = d.docker("cp", str(tmp_path), "cpm:/no/such/place/", check=False)
    assert done.returncode == 1 and "Could not find the file /no/such in container cpm" in done.stderr
    assert d.call("HEAD", f"/containers/{name}/archive?path=/nosuch")[0] == 404
    assert d.call("GET", f"/containers/{name}/archive")[0] == 400
    assert d.call("GET", f"/containers/{name}/archive?path=")[0] == 400
    assert d.call("GET", "/containers/nosuch/archive?path=/")[0] == 404
    status, answer = put(d, name, "/data/seed", tar_of(("a", tarfile.REGTYPE, "x")))
    assert (status, answer["message"]) == (400, "extraction point is not a directory")
    status, answer = put(d, name, "/nosuch", tar_of(("a", tarfile.REGTYPE, "x")))
    assert (status, answer["message"]) == (404, f"Could not find the file /nosuch in container {name}")


@pytest.mark.parametrize("state", ["created", "running"])
def test_stat_says_what_a_path_is(d, state):
    name = container(d, state)
    archive = tar_of(("folder", tarfile.DIRTYPE, ""), ("folder/file", tarfile.REGTYPE, "four"),
                     ("link", tarfile.SYMTYPE, "folder/file"), ("up", tarfile.SYMTYPE, "../data/folder"),
                     ("broken", tarfile.SYMTYPE, "../nowhere/at/all"))
    assert put(d, name, "/data", archive) == (200, "")
    directory, link = 1 << 31, 1 << 27
    for path, expect in {
        "/data/folder": ("folder", directory | 0o755, ""), "/data/folder/": ("folder", directory | 0o755, ""),
        "/data/folder/file": ("file", 0o644, ""), "/data/link": ("link", link | 0o777, "/data/folder/file"),
        "/data/up": ("up", link | 0o777, "/data/folder"), "/data/up/": ("up", directory | 0o755, ""),
        "/data/broken": ("broken", link | 0o777, "/nowhere/at/all"), "/": ("/", directory | 0o755, ""),
        "data/../data/folder/.": (".", directory | 0o755, ""),
    }.items():
        status, found = head(d, name, path)
        assert status == 200, path
        assert (found["name"], found["linkTarget"]) == (expect[0], expect[2]), path
        assert path == "/" or found["mode"] == expect[1], (path, oct(found["mode"]))
    assert head(d, name, "/data/folder/file")[1]["size"] == 4
    assert head(d, name, "/data/folder/file/")[0] != 200
    assert head(d, name, "/data/broken/x")[0] == 404


def test_links_are_followed_when_asked_for(d, tmp_path):
    name = container(d, "running")
    put(d, name, "/data", tar_of(("real", tarfile.REGTYPE, "real"), ("link", tarfile.SYMTYPE, "real")))
    d.docker("cp", f"{name}:/data/link", str(tmp_path / "as-link"))
    assert os.readlink(tmp_path / "as-link") == "real"
    d.docker("cp", "-L", f"{name}:/data/link", str(tmp_path / "as-file"))
    assert (tmp_path / "as-file").read_text() == "real"
    # Into a container: a link to a folder is a folder.
    put(d, name, "/data", tar_of(("folder", tarfile.DIRTYPE, ""), ("way", tarfile.SYMTYPE, "folder")))
    d.docker("cp", str(tmp_path / "as-file"), f"{name}:/data/way/")
    assert d.out("exec", name, "cat", "/data/folder/as-file") == "real"


def test_kinds_of_files_are_kept(d, tmp_path):
    name = container(d, "running")
    (tmp_path / "seed").mkdir()
    (tmp_path / "data").write_text("file")
    done = d.docker("cp", str(tmp_path / "seed"), f"{name}:/data/seed", check=False)
    assert done.returncode == 1
    done = d.docker("cp", str(tmp_path / "data"), f"{name}:/", check=False)
    assert done.returncode == 1 and 'cannot overwrite directory "/data" with non-directory "/"' in done.stderr
    assert d.out("exec", name, "cat", "/data/seed") == "seed"
    assert put(d, name, "/", tar_of(("data", tarfile.REGTYPE, "now a file")))[0] == 200
    assert d.out("exec", name, "cat", "/data") == "now a file"


def test_the_container_s_user_has_what_is_copied_so(d):
    name = container(d, "running", "-u", "guest")
    archive = tar_of(("mine", tarfile.REGTYPE, "x"), ("sub", tarfile.DIRTYPE, ""))
    assert put(d, name, "/tmp", archive, "&copyUIDGID=true")[0] == 200
    assert d.out("exec", name, "stat", "-c", "%u:%g", "/tmp/mine", "/tmp/sub") == "1000:1001\n1000:1001"
    assert put(d, name, "/tmp", tar_of(("other", tarfile.REGTYPE, "x")))[0] == 200
    assert d.out("exec", name, "stat", "-c", "%u:%g", "/tmp/other") == "0:0"


def test_tars_flow_through_the_cli(d, tmp_path):
    name = container(d, "exited")
    archive = tar_of(("a", tarfile.REGTYPE, "from a tar"))
    (tmp_path / "in.tar").write_bytes(archive)
    with open(tmp_path / "in.tar") as tar:
        d.docker("cp", "-", f"{name}:/data", stdin=tar)
    out = d.docker("cp", f"{name}:/data/a", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(out.encode())) as tar:
        assert tar.extractfile("a").read() == b"from a tar"
    import gzip
    assert put(d, name, "/data", gzip.compress(tar_of(("z", tarfile.REGTYPE, "gzip"))))[0] == 200
    d.docker("cp", f"{name}:/data/z", str(tmp_path / "z"))
    assert (tmp_path / "z").read_text() == "gzip"


@pytest.mark.parametrize("state", ["created", "running"])
def test_nothing_leaves_the_container(d, tmp_path, state):
    """Links in the container and in the archive that lead to the machine's files lead into the container instead."""
    secret = tmp_path / "outside"
    secret.mkdir()
    (secret / "file").write_text("untouched")
    name = container(d, state)
    up = "../" * 40
    archive = tar_of(("abs", tarfile.SYMTYPE, str(secret)), ("rel", tarfile.SYMTYPE, up + str(secret)[1:]),
                     ("file", tarfile.SYMTYPE, str(secret / "file")), ("proc", tarfile.SYMTYPE, "/proc/1/root"),
                     ("self", tarfile.SYMTYPE, "/proc/self/root"))
    assert put(d, name, "/data", archive)[0] == 200
    for link in ["abs", "rel", "self", "proc"]:
        # Out of the container: what is there is the container's, or nothing.
        status, _ = d.call("GET", f"/containers/{name}/archive?path=/data/{link}/file")
        assert status != 200, link
        put(d, name, f"/data/{link}", tar_of(("file", tarfile.REGTYPE, "overwritten"), ("new", tarfile.REGTYPE, "x")))
        put(d, name, "/data", tar_of((f"{link}/file", tarfile.REGTYPE, "overwritten"), (f"{link}/new", tarfile.REGTYPE, "x")))
    for hostile in [
        tar_of((up + str(secret / "file")[1:], tarfile.REGTYPE, "overwritten")),
        tar_of(("/" + up + str(secret / "new")[1:], tarfile.REGTYPE, "x")),
        tar_of(("hard", tarfile.LNKTYPE, str(secret / "file")), ("hard", tarfile.REGTYPE, "overwritten")),
        tar_of(("hard", tarfile.LNKTYPE, up + str(secret / "file")[1:])),
        tar_of(("file", tarfile.REGTYPE, "replaces the link")),
    ]:
        put(d, name, "/data", hostile)
    assert sorted(p.name for p in secret.iterdir()) == ["file"]
    assert (secret / "file").read_text() == "untouched"
    # An absolute name means the folder that it is unpacked to.
    assert put(d, name, "/data", tar_of(("/etc/absolute", tarfile.REGTYPE, "x")))[0] == 200
    assert head(d, name, "/data/etc/absolute")[0] == 200


def test_a_container_that_moves_links_about_catches_nobody(d, tmp_path):
    """A folder that becomes a link to the machine's files and back, as fast as it goes, while archives go in and out."""
    secret = tmp_path / "outside"
    secret.mkdir()
    (secret / "file").write_text("SECRET")
    script = (f"mkdir -p /race/real; echo mine > /race/real/file; ln -s {secret} /race/link; cd /race; "
              "while :; do mv real turn; mv link real; mv real link; mv turn real; done")
    name = container(d, "running", script=script)
    archive = tar_of(("real/file", tarfile.REGTYPE, "written"), ("real/new", tarfile.REGTYPE, "x"),
                     ("real/null", tarfile.CHRTYPE, (1, 3)))
    end = time.monotonic() + 4
    rounds = 0
    while time.monotonic() < end:
        put(d, name, "/race", archive)
        status, body = d.call("GET", f"/containers/{name}/archive?path=/race/real/")
        assert "SECRET" not in str(body)
        rounds += 1
    assert rounds > 20
    assert [p.name for p in secret.iterdir()] == ["file"] and (secret / "file").read_text() == "SECRET"
    assert stat.S_IMODE((secret / "file").stat().st_mode) == 0o644


def test_devices_stay_what_they_are_and_are_not_opened(d):
    name = container(d, "created")
    archive = tar_of(("disk", tarfile.BLKTYPE, (7, 200)), ("pipe", tarfile.FIFOTYPE, ""), ("null", tarfile.CHRTYPE, (1, 3)))
    assert put(d, name, "/data", archive)[0] == 200
    began = time.monotonic()
    with get(d, name, "/data")[0] as tar:
        kinds = {m.name: m.type for m in tar.getmembers()}
    assert kinds["data/disk"] == tarfile.BLKTYPE and kinds["data/pipe"] == tarfile.FIFOTYPE
    assert time.monotonic() - began < 5


def test_broken_archives_are_refused_and_the_daemon_lives(d):
    name = container(d, "running")
    good = tar_of(("a", tarfile.REGTYPE, "x" * 5000))
    for broken in [b"no tar at all" * 100, good[:700], b"\x1f\x8b" + b"\0" * 600]:
        status, answer = put(d, name, "/data", broken)
        assert status == 400, answer
    assert put(d, name, "/data", b"")[0] == 200
    # A client that goes away in the middle.
    connection = Unix(d.socket)
    connection.putrequest("PUT", f"/containers/{name}/archive?path=/data")
    connection.putheader("Content-Length", "1000000")
    connection.endheaders()
    connection.send(good[:1024])
    connection.close()
    assert d.out("exec", name, "echo", "alive") == "alive"


def resident_kib(d):
    text = pathlib.Path(f"/proc/{d.process.pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("VmRSS")).split()[1])


def test_large_archives_take_no_memory(d):
    """A file of 400 MB and 20,000 files, to a reader that is slow at first."""
    script = "dd if=/dev/zero of=/tmp/big bs=1M count=400 2>/dev/null; mkdir /tmp/many; cd /tmp/many; " \
             "i=0; while [ $i -lt 20000 ]; do : > f$i; i=$((i+1)); done; touch /tmp/ready; sleep 1000"
    name = container(d, "running", script=script)
    until(lambda: head(d, name, "/tmp/ready")[0] == 200, 60, "the files are there")
    before = resident_kib(d)
    connection = Unix(d.socket)
    connection.request("GET", f"/containers/{name}/archive?path=/tmp")
    answer = connection.getresponse()
    time.sleep(1)
    highest, count = resident_kib(d), 0
    while data := answer.read(1 << 20):
        count += len(data)
        if count % (64 << 20) < 1 << 20:
            highest = max(highest, resident_kib(d))
    connection.close()
    assert count > (400 << 20) + 20000 * 512
    assert highest - before < 48 * 1024, (before, highest)


def test_a_stopped_container_is_not_started_while_it_is_read(d):
    name = container(d, "created")
    big = tar_of(("big", tarfile.REGTYPE, "x" * 8_000_000))
    assert put(d, name, "/data", big)[0] == 200
    connection = Unix(d.socket)
    connection.request("GET", f"/containers/{name}/archive?path=/data/big")
    answer = connection.getresponse()
    started = threading.Event()
    thread = threading.Thread(target=lambda: (d.out("start", name), started.set()))
    thread.start()
    assert not started.wait(1)
    answer.read()
    connection.close()
    assert started.wait(20)
    thread.join()


def test_a_killed_daemon_leaves_no_mount(own):
    name = container(own, "created")
    assert put(own, name, "/data", tar_of(("big", tarfile.REGTYPE, "x" * 8_000_000)))[0] == 200
    connection = Unix(own.socket)
    connection.request("GET", f"/containers/{name}/archive?path=/data/big")
    connection.getresponse()
    own.end(9)
    connection.close()
    own.start()
    assert not own.leftovers()["mounts"]
    own.out("start", name)
    assert own.out("exec", name, "wc", "-c", "/data/big").startswith("8000000")


def test_events_tell_of_copies(d):
    name = container(d, "created")
    since = str(time.time() - 1)
    put(d, name, "/data", tar_of(("a", tarfile.REGTYPE, "x")))
    get(d, name, "/data/a")
    d.docker("export", "-o", str(d.base / "x.tar"), name)
    (d.base / "x.tar").unlink()
    found = d.out("events", "--since", since, "--until", str(time.time() + 1), "--filter", f"container={name}",
                  "--format", "{{.Action}}").split()
    assert [a for a in found if a in ("extract-to-dir", "archive-path", "export")] == ["extract-to-dir", "archive-path", "export"]


@pytest.mark.parametrize("state", STATES)
def test_export_is_the_root_without_what_is_mounted(d, tmp_path, state):
    name = container(d, state, "-v", "exvol:/data/volume", "--tmpfs", "/scratch")
    put(d, name, "/data", tar_of(("mine", tarfile.REGTYPE, "mine"), ("volume/inside", tarfile.REGTYPE, "x")))
    d.docker("export", "-o", str(tmp_path / "root.tar"), name)
    with tarfile.open(tmp_path / "root.tar") as tar:
        names = set(tar.getnames())
        assert {"bin/busybox", "data/seed", "data/mine", "etc/passwd", "proc"} <= names
        assert tar.extractfile("data/mine").read() == b"mine"
        assert not [n for n in names if n.startswith(("proc/", "sys/", "data/volume/")) or n.startswith("/")]
    assert d.docker("import", str(tmp_path / "root.tar"), "test/again:1").returncode == 0
    assert d.out("run", "--rm", "test/again:1", "cat", "/data/mine") == "mine"
    d.out("rmi", "-f", "test/again:1")


def test_export_of_what_is_not_there(d, tmp_path):
    done = d.docker("export", "-o", str(tmp_path / "x"), "nosuch", check=False)
    assert done.returncode == 1 and "No such container: nosuch" in done.stderr
