"""Builds with the stock CLI, which falls back to POST /build without BuildKit."""
import functools
import http.server
import io
import json
import os
import re
import subprocess
import tarfile
import threading
import time

import pytest

from conftest import IMAGE, until

ID = re.compile(r"\b[0-9a-f]{12}\b")


@pytest.fixture(autouse=True)
def classic(monkeypatch):
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")


@pytest.fixture
def b(d):
    """The daemon; images of the test go with it."""
    before = set(d.out("images", "-a", "-q", "--no-trunc").split())
    yield d
    for container in d.containers():
        d.call("DELETE", f"/containers/{container['Id']}?force=1&v=1")
    for _ in range(5):
        left = set(d.out("images", "-q", "--no-trunc").split()) - before
        if not left:
            break
        for image in left:
            d.call("DELETE", f"/images/{image}?force=1")
    assert set(d.out("images", "-a", "-q", "--no-trunc").split()) == before, "no steps are left"


def context(folder, dockerfile, **files):
    folder.mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile.replace("IMAGE", IMAGE))
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return str(folder)


def steps(told):
    """The lines with every id the same."""
    return [ID.sub("ID", line) for line in told.splitlines() if line]


def tarred(**files):
    """The body of a build, with entries no client would send."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            if isinstance(content, tuple):
                info.type, info.linkname = content
                tar.addfile(info)
            else:
                data = content.replace("IMAGE", IMAGE).encode()
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def raw(d, query="", **files):
    status, text = d.call("POST", f"/build?{query}", raw=tarred(**files), headers={"Content-Type": "application/x-tar"})
    if status != 200:
        return status, text["message"] if isinstance(text, dict) else text
    lines = [json.loads(line) for line in text.splitlines()] if isinstance(text, str) else [text]
    return status, "".join(line.get("stream", "") + line.get("error", "") for line in lines)


def config(d, image):
    return d.json("inspect", image)[0]["Config"]


def test_the_lines_are_those_of_the_classic_builder(b, tmp_path):
    folder = context(tmp_path / "c", "# c\nFROM IMAGE\nRUN echo hello\nENV A=b\nCMD [\"x\"]\n")
    told = b.docker("build", "-t", "t/lines:1", "-t", "t/more", folder).stdout
    lines = steps(told)
    assert "Sending build context to Docker daemon" in lines[0]
    assert lines[1:] == [
        f"Step 1/4 : FROM {IMAGE}", " ---> ID",
        "Step 2/4 : RUN echo hello", " ---> Running in ID", "hello", " ---> Removed intermediate container ID", " ---> ID",
        "Step 3/4 : ENV A=b", " ---> Running in ID", " ---> Removed intermediate container ID", " ---> ID",
        'Step 4/4 : CMD ["x"]', " ---> Running in ID", " ---> Removed intermediate container ID", " ---> ID",
        "Successfully built ID", "Successfully tagged t/lines:1", "Successfully tagged t/more:latest"]
    again = steps(b.docker("build", folder).stdout)
    assert again[3:] == [
        "Step 2/4 : RUN echo hello", " ---> Using cache", " ---> ID",
        "Step 3/4 : ENV A=b", " ---> Using cache", " ---> ID",
        'Step 4/4 : CMD ["x"]', " ---> Using cache", " ---> ID", "Successfully built ID"]
    history = [row["CreatedBy"] for row in map(json.loads, b.out("history", "--no-trunc", "--format", "{{json .}}", "t/lines:1").splitlines())]
    assert history[:3] == ['/bin/sh -c #(nop)  CMD ["x"]', "/bin/sh -c #(nop)  ENV A=b", "/bin/sh -c echo hello"]


def test_every_instruction_does_what_it_says(b, tmp_path):
    folder = context(tmp_path / "c", r"""ARG BASE=none
FROM IMAGE
MAINTAINER me
ARG WHO=world
ENV GREET="hello ${WHO}" EMPTY= P=${NONE:-/p}
LABEL a.b=c "d e"="f g"
WORKDIR /work/here
WORKDIR sub
COPY a.txt .
COPY --chown=guest:extra --chmod=640 a.txt b.txt $P/
ADD dir /dir
RUN ["sh", "-c", "echo $GREET > greeting; id -u > /uid; chmod 777 /tmp"]
USER guest
RUN id -un > /tmp/user; pwd > /tmp/pwd
EXPOSE 80 53/udp
VOLUME ["/vol"]
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s --retries=2 CMD true
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT ["echo"]
CMD ["one", "two"]
ONBUILD RUN echo trigger > /tmp/trigger
""", a_dot_txt="a", b_dot_txt="b", dir__x="x")
    b.docker("build", "-t", "t/all", "--build-arg", "WHO=you", "--label", "cli=yes", folder)
    made = b.json("inspect", "t/all")[0]
    found = made["Config"]
    assert {"GREET=hello you", "EMPTY=", "P=/p"} <= set(found["Env"])
    assert found["Labels"] == {"a.b": "c", "d e": "f g", "cli": "yes"}
    assert (found["WorkingDir"], found["User"], found["StopSignal"]) == ("/work/here/sub", "guest", "SIGINT")
    assert sorted(found["ExposedPorts"]) == ["53/udp", "80/tcp"] and list(found["Volumes"]) == ["/vol"]
    assert (found["Entrypoint"], found["Cmd"], found["Shell"]) == (["echo"], ["one", "two"], ["/bin/sh", "-ec"])
    assert found["Healthcheck"]["Test"] == ["CMD-SHELL", "true"] and found["Healthcheck"]["Interval"] == 5 * 10**9
    assert found["OnBuild"] == ["RUN echo trigger > /tmp/trigger"] and made["Author"] == "me"
    assert b.out("run", "--rm", "t/all") == "one two"

    def inside(command):
        return b.out("run", "--rm", "--entrypoint", "sh", "-u", "0", "t/all", "-c", command)
    assert inside("cat greeting a.txt /uid /tmp/user /tmp/pwd") == "hello you\na0\nguest\n/work/here/sub"
    assert inside("stat -c '%u:%g %a' /p/a.txt /p/b.txt; cat /dir/x") == "1000:1002 640\n1000:1002 640\nx"
    folder = context(tmp_path / "next", "FROM t/all\n")
    told = b.docker("build", "-t", "t/next", folder).stdout
    assert "# Executing 1 build trigger\n" in told
    assert b.out("run", "--rm", "--entrypoint", "cat", "t/next", "/tmp/trigger") == "trigger"
    assert not config(b, "t/next")["OnBuild"]


def test_stages_targets_and_an_empty_base(b, tmp_path):
    folder = context(tmp_path / "c", """ARG TAG=1
FROM test/busybox:$TAG AS Build
RUN mkdir /out && echo made > /out/file && ln -s file /out/link && chown -R 7:8 /out
FROM scratch AS small
COPY --from=build /out /
COPY --from=0 /out/link /copy
FROM IMAGE
COPY --from=small /file /final
""")
    b.docker("build", "-t", "t/small", "--target", "small", folder)
    assert len(b.json("inspect", "t/small")[0]["RootFS"]["Layers"]) == 2
    b.docker("build", "-t", "t/final", folder)
    assert b.out("run", "--rm", "t/final", "cat", "/final") == "made"
    b.docker("save", "-o", str(tmp_path / "s.tar"), "t/small")
    entries = {}
    with tarfile.open(tmp_path / "s.tar") as tar:
        for layer in json.load(tar.extractfile("manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=io.BytesIO(tar.extractfile(layer).read())) as inner:
                entries.update({entry.name: (entry.type, entry.uid, entry.gid) for entry in inner})
    assert entries["file"] == (tarfile.REGTYPE, 7, 8) and entries["link"][0] == tarfile.SYMTYPE
    assert entries["copy"][0] == tarfile.REGTYPE, "a link that is named is followed"
    missing = b.docker("build", "--target", "nope", folder, check=False)
    assert "failed to reach build target nope in Dockerfile" in missing.stderr


def test_the_cache_follows_content_and_arguments(b, tmp_path):
    text = "FROM IMAGE\nARG V\nCOPY f /f\nRUN echo $V > /v\n"
    folder = context(tmp_path / "c", text, f="1")
    first = b.docker("build", "-q", "--build-arg", "V=1", folder).stdout
    os.utime(tmp_path / "c/f", (1, 1))
    assert b.docker("build", "-q", "--build-arg", "V=1", folder).stdout == first, "times do not count"
    told = b.docker("build", "--build-arg", "V=2", folder).stdout
    assert told.count("Using cache") == 2 and "Running in" in told.split("RUN")[1]
    (tmp_path / "c/f").write_text("2")
    assert b.docker("build", "--build-arg", "V=1", folder).stdout.count("Using cache") == 1
    assert "Using cache" not in b.docker("build", "--no-cache", "--build-arg", "V=1", folder).stdout
    unused = b.docker("build", "--build-arg", "X=1", folder).stdout
    assert "[Warning] One or more build-args [X] were not consumed" in unused


def test_what_a_command_removes_is_gone(b, tmp_path):
    folder = context(tmp_path / "c", "FROM IMAGE\nRUN rm /data/seed && rm -r /tmp && mkdir /tmp && echo n > /tmp/new && ln /tmp/new /tmp/hard\n"
                     "RUN true\nRUN rm -r /data\n")
    b.docker("build", "-t", "t/rm", folder)
    assert b.out("run", "--rm", "t/rm", "sh", "-c", "ls -d /data /tmp/*; stat -c %h /tmp/new") == "/tmp/hard\n/tmp/new\n2"
    history = b.out("history", "--no-trunc", "--format", "{{.CreatedBy}} {{.Size}}", "t/rm").splitlines()
    assert history[1] == "/bin/sh -c true 0B"
    layers = b.json("inspect", "t/rm")[0]["RootFS"]["Layers"]
    base = b.json("inspect", IMAGE)[0]["RootFS"]["Layers"]
    assert len(layers) == len(base) + 2, "a command that changes nothing makes no layer"


def test_a_command_that_fails_ends_the_build_with_its_code(b, tmp_path):
    folder = context(tmp_path / "c", "FROM IMAGE\nRUN echo out; echo err >&2; exit 7\n")
    failed = b.docker("build", folder, check=False)
    assert failed.returncode == 7
    assert "The command '/bin/sh -c echo out; echo err >&2; exit 7' returned a non-zero code: 7" in failed.stderr
    assert "out\n" in failed.stdout and "\x1b[91merr\n\x1b[0m" in failed.stdout + failed.stderr
    assert len(b.containers()) == 1, "the container stays to be looked at"
    b.docker("build", "--force-rm", folder, check=False)
    assert len(b.containers()) == 1
    quiet = b.docker("build", "-q", folder, check=False)
    assert quiet.returncode == 7 and "Step 2/2" in quiet.stdout + quiet.stderr


def test_dockerignore_and_other_dockerfiles(b, tmp_path):
    folder = context(tmp_path / "c", "nothing", other="FROM IMAGE\nCOPY . /c\n".replace("IMAGE", IMAGE),
                     _dot_dockerignore="*.log\n!keep.log\nother\n.dockerignore\n", a_dot_log="a", keep_dot_log="k")
    b.docker("build", "-t", "t/ig", "-f", f"{folder}/other", folder)
    assert b.out("run", "--rm", "t/ig", "sh", "-c", "cd /c; find . -type f | sort") == "./Dockerfile\n./keep.log"
    stdin = b.docker("build", "-q", "-", input=f"FROM {IMAGE}\nRUN true\n")
    assert stdin.stdout.startswith("sha256:")
    piped = b.docker("build", "-q", "-f", "-", folder, input=f"FROM {IMAGE}\nCOPY keep.log /\n")
    assert piped.stdout.startswith("sha256:")


def test_archives_are_unpacked_and_addresses_fetched(b, tmp_path):
    served = tmp_path / "served"
    served.mkdir()
    (served / "f.txt").write_text("fetched")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(served))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    folder = context(tmp_path / "c", f"FROM IMAGE\nADD a.tar.gz /unpacked/\nCOPY a.tar.gz /\nADD {url}/f.txt /\nADD {url}/f.txt /named\n")
    with tarfile.open(tmp_path / "c/a.tar.gz", "w:gz") as tar:
        for name, data in (("in/x", b"x"), ("y", b"y")):
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.mode = len(data), 5, 0o600
            tar.addfile(info, io.BytesIO(data))
    b.docker("build", "-t", "t/add", folder)
    shown = b.out("run", "--rm", "t/add", "sh", "-c", "cat /unpacked/in/x /unpacked/y; stat -c '%u %a' /unpacked/y /f.txt; cat /named; test -f /a.tar.gz")
    assert shown == "xy5 600\n0 600\nfetched"
    gone = b.docker("build", "-", input=f"FROM {IMAGE}\nADD {url}/nope /x\n", check=False)
    assert "404" in gone.stderr
    with open(served / "context.tar", "wb") as out:
        out.write(tarred(Dockerfile="FROM IMAGE\nCOPY in /in\n", **{"in": "remote"}))
    (served / "Dockerfile.txt").write_text(f"FROM {IMAGE}\nENV A=remote\n")
    status, told = raw(b, f"remote={url}/context.tar&t=t/remote")
    assert status == 200 and "Successfully tagged t/remote:latest" in told, told
    assert raw(b, f"remote={url}/Dockerfile.txt&t=t/remote2")[0] == 200
    assert "A=remote" in config(b, "t/remote2")["Env"]
    status, told = raw(b, f"remote={url}/x.git")
    assert status == 400 and "git is not supported" in told
    server.shutdown()


def test_nothing_leads_out_of_a_context(b, tmp_path):
    """Neither links in the context, nor names in the Dockerfile, nor archives, nor links in the image."""
    secret = tmp_path / "secret"
    secret.write_text("do not tell")
    link = (tarfile.SYMTYPE, str(secret))
    for files in (
        {"Dockerfile": "FROM IMAGE\nCOPY l /x\n", "l": link},
        {"Dockerfile": f"FROM IMAGE\nCOPY l{secret} /x\n", "l": (tarfile.SYMTYPE, "/")},
        {"Dockerfile": "FROM IMAGE\nCOPY ../../../../etc/hostname /x\n"},
        {"Dockerfile": f"FROM IMAGE\nCOPY {secret} /x\n"},
        {"Dockerfile": f"FROM IMAGE\nADD l /x\n", "l": link},
    ):
        status, told = raw(b, **files)
        assert "failed" in told and "do not tell" not in told, told
    status, told = raw(b, Dockerfile=link)
    assert status == 400 and "Cannot locate specified Dockerfile: Dockerfile" in told
    status, told = raw(b, "dockerfile=../../../../../../etc/passwd", Dockerfile="FROM IMAGE\n")
    assert status == 400 and "Cannot locate specified Dockerfile" in told
    status, told = raw(b, **{"Dockerfile": "FROM IMAGE\n", "../../evil": "x"})
    assert status == 400 and "path leads out" in told
    status, told = raw(b, **{"Dockerfile": "FROM IMAGE\n", "l": (tarfile.SYMTYPE, str(tmp_path)), "l/evil": "x"})
    assert not (tmp_path / "evil").exists()
    status, told = raw(b, "t=t/out", Dockerfile=f"FROM IMAGE\nRUN ln -s {tmp_path} /out\nCOPY f /out/f\n", f="x")
    assert "Successfully built" in told and not (tmp_path / "f").exists()
    assert b.out("run", "--rm", "t/out", "cat", f"{tmp_path}/f") == "x"


def test_what_is_wrong_is_said_in_dockers_words(b):
    for text, expect in (
        ("FROM IMAGE\nFOO x\n", "dockerfile parse error on line 2: unknown instruction: FOO"),
        ("", "the Dockerfile (Dockerfile) cannot be empty"),
        ("RUN x\n", "no build stage in current context"),
        ("FROM no/such:1\n", "pull access denied"),
        ("FROM IMAGE\nRUN --mount=type=bind,target=/x true\n", "the --mount option requires BuildKit"),
        ("FROM IMAGE\nRUN <<EOF\ntrue\nEOF\n", "needs BuildKit"),
        ("FROM IMAGE\nCOPY a b c\n", "file not found in build context or excluded by .dockerignore: stat a: file does not exist"),
        ("FROM IMAGE\nCOPY z* /\n", "COPY failed: no source files were specified"),
        ("FROM IMAGE\nCOPY --chown=nobody Dockerfile /\n", "can't find uid for user nobody"),
        ("FROM IMAGE\nEXPOSE x\n", "invalid containerPort: x"),
        ("FROM IMAGE\nENV A=\"x\n", "unexpected end of statement while looking for matching double-quote"),
        ("FROM IMAGE\nRUN [\"/no/such\"]\n", "no such file or directory"),
    ):
        status, told = raw(b, Dockerfile=text)
        if text.startswith("FROM no/such"):
            assert "no/such" in told
        else:
            assert expect in told, (text, told)
    status, told = raw(b, "t=UPPER", Dockerfile="FROM IMAGE\n")
    assert status == 400 and "must be lowercase" in told
    status, told = b.call("POST", "/build", raw=b"no archive" * 100, headers={"Content-Type": "application/x-tar"})
    assert status == 400 and "Error processing tar file" in told["message"]
    assert raw(b, "version=2", Dockerfile="FROM IMAGE\n")[0] == 501
    assert b.call("POST", "/session")[0] == 501 and b.call("POST", "/grpc")[0] == 501


def test_limits_and_networks_hold_for_commands(b, tmp_path):
    folder = context(tmp_path / "c", "FROM IMAGE\nRUN cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null; true\n"
                     "RUN ls /sys/class/net | wc -l\n")
    told = b.docker("build", "--memory", "64m", "--network", "none", folder).stdout
    assert "67108864" in told and "\n1\n" in told.split("Step 3/3")[1]


def test_a_build_whose_client_leaves_leaves_no_container(b, tmp_path):
    folder = context(tmp_path / "c", "FROM IMAGE\nRUN sleep 300\n")
    client = subprocess.Popen(["docker", "-H", f"unix://{b.socket}", "build", folder],
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ, DOCKER_BUILDKIT="0"))
    until(lambda: [c for c in b.containers() if c["State"] == "running"], 30, "the command runs")
    client.kill()
    client.wait()
    until(lambda: not b.containers(), 20, "nothing is left")


def test_steps_are_images_that_go_with_the_last_one(b, tmp_path):
    before, shown = b.out("images", "-a", "-q").split(), b.out("images", "-q").split()
    folder = context(tmp_path / "c", "FROM IMAGE\nENV A=1\nRUN true\nENV B=2\n")
    b.docker("build", "-t", "t/steps", folder)
    assert len(b.out("images", "-q").split()) == len(shown) + 1
    assert len(b.out("images", "-a", "-q").split()) == len(before) + 3
    assert not b.out("images", "-q", "--filter", "dangling=true")
    parent = b.json("inspect", "t/steps")[0]["Parent"]
    refused = b.docker("rmi", parent, check=False)
    assert refused.returncode == 1 and "image has dependent child images" in refused.stderr
    assert b.out("rmi", "t/steps").count("Deleted: sha256:") >= 3
    assert b.out("images", "-a", "-q").split() == before
    b.docker("build", "-t", "t/old", folder)
    b.docker("build", "--no-cache", "-t", "t/old", folder)
    assert len(b.out("images", "-q", "--filter", "dangling=true").split()) == 1
    assert "deleted: sha256:" in b.out("image", "prune", "-f")
    assert b.out("builder", "prune", "-f") == "Total reclaimed space: 0B"


def test_ids_for_programs_and_many_builds_at_once(b, tmp_path):
    folder = context(tmp_path / "c", "FROM IMAGE\nARG N\nRUN echo $N > /n\n")
    b.docker("build", "--iidfile", str(tmp_path / "id"), "-t", "t/id", "--build-arg", "N=0", folder)
    assert (tmp_path / "id").read_text() == b.out("inspect", "--format", "{{.Id}}", "t/id")
    builds = [subprocess.Popen(["docker", "-H", f"unix://{b.socket}", "build", "-t", f"t/n{n}", "--build-arg", f"N={n}", folder],
                               stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ, DOCKER_BUILDKIT="0")) for n in range(4)]
    assert [build.wait(90) for build in builds] == [0] * 4
    assert [b.out("run", "--rm", f"t/n{n}", "cat", "/n") for n in range(4)] == list("0123")


def test_skep_builds_as_docker_does(b, tmp_path):
    folder = context(tmp_path / "c", "FROM IMAGE\nCOPY . /c\n", _dot_dockerignore="out\n", out="o", kept="k")
    began = time.monotonic()
    theirs = steps(b.docker("build", "-t", "t/skep", folder).stdout)
    ours = steps(b.skep("build", "-t", "t/skep", folder).stdout)
    assert ours[0].startswith("Sending build context to Docker daemon")
    assert [line for line in ours[1:] if "Using cache" not in line] == theirs[1:]
    assert " ---> Using cache" in ours, "both send the same files"
    assert b.out("run", "--rm", "t/skep", "ls", "/c") == "Dockerfile\nkept"
    assert b.skep("build", "-q", folder).stdout.startswith("sha256:")
    failed = b.skep("build", "-", input=f"FROM {IMAGE}\nRUN exit 3\n", check=False)
    assert failed.returncode == 3 and "returned a non-zero code: 3" in failed.stderr
    assert time.monotonic() - began < 60
