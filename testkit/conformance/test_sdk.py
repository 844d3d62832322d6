"""The Docker SDK for Python against the socket."""
import docker
import pytest
from conftest import IMAGE, until


@pytest.fixture
def sdk(d):
    client = docker.DockerClient(base_url=f"unix://{d.socket}", version="auto")
    yield client
    client.close()


def test_run_wait_and_stream(sdk):
    assert sdk.containers.run(IMAGE, ["echo", "hi"], remove=True) == b"hi\n"
    container = sdk.containers.run(IMAGE, ["sh", "-c", "for i in 1 2 3; do echo $i; done; exit 6"], detach=True)
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    assert container.wait()["StatusCode"] == 6
    container.remove()
    with pytest.raises(docker.errors.NotFound):
        sdk.containers.get("nope")


def test_exec_and_attach(sdk):
    container = sdk.containers.run(IMAGE, ["sleep", "1000"], detach=True)
    code, output = container.exec_run(["sh", "-c", "echo a; echo b >&2; exit 2"], demux=True)
    assert (code, output) == (2, (b"a\n", b"b\n"))
    container.kill()


def test_a_service(sdk, swarm):
    service = sdk.services.create(IMAGE, ["sleep", "1000"], name="sdk", mode=docker.types.ServiceMode("replicated", 2))
    until(lambda: [t["Status"]["State"] for t in service.tasks({"desired-state": "running"})] == ["running"] * 2, 20, "2 run")
    service.scale(1)
    until(lambda: len(service.tasks({"desired-state": "running"})) == 1, 20, "1 left")
    service.remove()


def test_the_surface(sdk):
    assert sdk.ping() and sdk.version()["ApiVersion"] == "1.51"
    assert sdk.info()["ServerVersion"]
    assert [i for i in sdk.images.list() if IMAGE in i.tags]
    volume = sdk.volumes.create("sdkv")
    volume.remove()
    assert {"bridge", "host", "none"} <= {n.name for n in sdk.networks.list()}
