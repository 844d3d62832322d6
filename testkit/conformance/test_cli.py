"""The stock docker CLI and skep's own give the same answers against the same daemon.

Each case is a command line. Both clients run it; stdout, stderr and exit code must be equal after the program's name,
times and spans were made alike.
"""
import json
import re
import shlex

import pytest

from conftest import IMAGE, running, until


def alike(text):
    text = re.sub(r"\b(Docker|docker|Skep|skep)\b", "PROGRAM", text)
    # A second may pass between the two; a line's padding follows its widest cell.
    text = re.sub(r"([Ll]ess than a|[Aa]bout an?|\d+) (second|minute|hour)s?( ago)?", "SPAN", text)
    return re.sub(r" {2,}", "  ", text)


def seen(done):
    return done.returncode, alike(done.stdout), alike(done.stderr)


def same(d, *commands):
    """Runs all, then fails with every difference."""
    different = []
    for command in commands:
        words = shlex.split(command)
        docker, skep = seen(d.docker(*words, check=False, stdin=-3)), seen(d.skep(*words, check=False, stdin=-3))
        if docker != skep:
            different.append(f"{command}\n  docker {docker}\n  skep   {skep}")
    assert not different, "\n".join(different)


@pytest.fixture
def filled(swarm):
    """A daemon with something of each kind."""
    d = swarm
    d.out("run", "-d", "--name", "one", "--label", "a=b", "--label", "c.d=e", "-v", "vol1:/v", "-v", "/tmp:/t:ro",
          "-p", "127.0.0.1:18080:80", IMAGE, "sh", "-c", "echo out; echo err >&2; sleep 100000")
    d.out("run", "-dit", "--name", "terminal", IMAGE, "sh")
    d.docker("run", "--name", "dead", IMAGE, "sh", "-c", "echo a; echo b; echo c; exit 3", check=False)
    d.out("create", "--name", "made", IMAGE, "sleep", "999999999999999999")
    d.out("service", "create", "--detach", "--no-resolve-image", "--stop-grace-period", "1s", "--name", "web", "--replicas", "2", "--label", "k=v",
          "--publish", "18081:80", "--constraint", "node.role==manager", IMAGE, "sleep", "10000")
    d.out("service", "create", "--detach", "--no-resolve-image", "--stop-grace-period", "1s", "--name", "every", "--mode", "global", IMAGE, "sleep", "10000")
    until(lambda: len(running(d, "web")) == 2 and len(running(d, "every")) == 1, 20, "services run")
    yield d


LISTS = {
    "ps -a": "ID Names Image Command CreatedAt RunningFor Ports State Status Size Labels Mounts Networks LocalVolumes",
    "images": "ID Repository Tag Digest CreatedSince CreatedAt Size Containers SharedSize UniqueSize VirtualSize",
    "volume ls": "Name Driver Scope Mountpoint Labels Links Size Status Availability Group",
    "network ls": "ID Name Driver Scope IPv4 IPv6 Internal Labels CreatedAt",
    "node ls": "ID Self Hostname Status Availability ManagerStatus EngineVersion TLSStatus",
    "service ls": "ID Name Mode Replicas Image Ports",
    "service ps web": "ID Name Image Node DesiredState CurrentState Error Ports",
    f"history {IMAGE}": "ID CreatedAt CreatedSince CreatedBy Size Comment",
}


def test_tables_have_the_same_columns_and_widths(filled):
    same(filled, *LISTS)
    same(filled, *["ps", "ps -as", "ps -l", "ps -n 2", "ps -a --no-trunc", "container ls", "image ls", "images --digests",
                    "images -a", "images nope", "network ls --no-trunc", "service ps web every", "node ps",
                    "service ps --no-trunc web", "service ps --no-resolve web", f"history --no-trunc {IMAGE}"])


def test_columns_are_lined_up_to_the_blank(filled):
    for command in ["volume ls", "network ls", "node ls", "service ls", "ps -a --format 'table {{.Names}}\\t{{.State}}'"]:
        words = shlex.split(command)
        assert filled.skep(*words).stdout == filled.out(*words, check=True) + "\n", command


def test_every_field_can_be_named_in_a_format(filled):
    for command, fields in LISTS.items():
        every = "|".join(f"{{{{.{field}}}}}" for field in fields.split())
        same(filled, f"{command} --format '{every}'", f"{command} --format 'table {every}'", f"{command} --format json")


def test_templates_and_labels_work(filled):
    for format in ["{{.Label \"a\"}}|{{.Names}}", "table {{.Label \"c.d\"}}|{{.Names}}", "{{json .Names}}", "{{upper .Names}}",
                   "table", "{{len .Names}} {{printf \"%-9s|\" .State}}"]:
        same(filled, f"ps -a --format {shlex.quote(format)}")
    same(filled, *["ps -aq", "ps -aq --no-trunc", "images -q", "images -q --no-trunc", "volume ls -q", "network ls -q", "node ls -q",
                    "service ls -q", "service ps -q web", "node ps -q", f"history -q {IMAGE}", "ps -q --format '{{.ID}}'"])


def test_filters_choose_the_same(filled):
    same(filled, *["ps -a --filter status=exited", "ps -a --filter name=on", "ps -aq --filter label=a=b", "ps --filter foo=bar",
                    "ps --filter x", "images --filter dangling=true", "volume ls --filter dangling=true", "volume ls --filter foo=bar",
                    "service ls --filter name=we", "service ls --filter mode=global", "service ls --filter foo=bar",
                    "service ps --filter desired-state=running web", "node ls --filter foo=bar"])


def test_inspect_finds_the_same(filled):
    d = filled
    for name in ["one", "web", "every", IMAGE, "vol1", "bridge"]:
        assert json.loads(d.skep("inspect", name).stdout) == d.json("inspect", name), name
    for command in ["service inspect web", "node inspect self", "container inspect one", "volume inspect vol1"]:
        words = command.split()
        assert json.loads(d.skep(*words).stdout) == d.json(*words), command
    same(d, *["inspect nope", "inspect -f '{{.State.Status}}' one", "inspect -f '{{' one",
                    "inspect -f '{{.Name}}' one nope terminal", "inspect --type foo one", "inspect --type container web",
                    "service inspect nope", "node inspect nope", "image inspect nope", "volume inspect nope"])


def test_output_and_exit_codes_are_the_containers(filled):
    same(filled, *["logs dead", "logs -t dead", "logs -n 1 dead", "logs --since 1h dead", "logs nope", "logs --since abc dead",
                    "top nope", "top one", "top one -o pid", "port one x", "port one 99999", "port one", "port one 80", "port one 81", "wait dead", "exec one sh -c 'echo a; echo b >&2; exit 9'",
                    "exec -e A=B one sh -c 'echo $A'", "exec -w /tmp one pwd", f"run --rm {IMAGE} sh -c 'echo a; exit 7'",
                    f"run --rm -h foo {IMAGE} hostname",
                    f"run --rm --entrypoint echo {IMAGE} hi"])


def test_a_command_that_cannot_start_has_dockers_exit_code(d):
    for command, code in [("nope", 127), ("/bin/notexec", 126)]:
        done = [client("run", "--rm", IMAGE, command, check=False) for client in (d.docker, d.skep)]
        assert [each.returncode for each in done] == [code, code], command


def test_stdin_is_closed_half(filled):
    for words in (["exec", "-i", "one", "sh", "-c", "wc -c; echo end"], ["run", "-i", "--rm", IMAGE, "sh", "-c", "wc -c; echo end"]):
        docker = filled.docker(*words, input="12345\n")
        assert seen(filled.skep(*words, input="12345\n")) == seen(docker)
        assert docker.stdout == "6\nend\n"


REFUSED = [
    "start nope", "stop nope", "kill nope", "kill dead", "rm nope", "restart nope", "wait nope", "rename nope x", "exec nope ls",
    "exec dead ls", "attach nope", "attach dead", "rmi nope", "tag nope x", f"tag {IMAGE} X", "volume rm nope", "volume rm vol1",
    "service rm nope", "service scale web", "service scale web=x", "service scale every=2", "service scale nope=2",
    "service update nope", "service rollback nope", "service ps nope", "node update nope --availability drain",
    "swarm join-token foo", "load -i /nope", "import /nope", f"run --name one {IMAGE}", f"run -p x:80 {IMAGE}", f"run --network nope {IMAGE}",
    f"run --rm --restart always {IMAGE}", f"run --pull foo {IMAGE}", f"run -d -a stdout {IMAGE}",
    f"run --health-cmd true --no-healthcheck {IMAGE}", "service create --mode foo x", f"service create --name web {IMAGE}",
    f"service create --publish x {IMAGE}", f"service create --mount x {IMAGE}", f"service create --replicas 2 --mode global {IMAGE}",
]


def test_refusals_read_the_same(filled):
    same(filled, *REFUSED)


WRONG_USAGE = ["inspect", "run", "ps x", "ps --foo", "ps -z", "ps --no-trunc=x", "ps -n x", "logs -n", "run --memory", "rename a",
               "volume create a b", "service ps", "service foo", "foo", "exec one", "swarm init x", "service update"]


@pytest.mark.parametrize("command", WRONG_USAGE)
def test_wrong_usage_is_told_the_same(d, command):
    # docker 28.2 writes "SRun" where it means "Run".
    words = shlex.split(command)
    docker, skep = d.docker(*words, check=False), d.skep(*words, check=False)
    assert seen(skep) == tuple(part if isinstance(part, int) else part.replace("SRun '", "Run '") for part in seen(docker))


@pytest.mark.parametrize("command", ["ps", "images", "rmi", "run", "container rm", "node ps", "service", "service ls", "swarm leave", "volume rm"])
def test_help_begins_the_same(d, command):
    """Usage, and the aliases where there are any; the flags listed are the ones that exist here."""
    def head(text):
        return [line for line in alike(text).splitlines() if line.startswith(("Usage:", "  PROGRAM "))]
    assert head(d.skep(*command.split(), "--help").stdout) == head(d.out(*command.split(), "--help"))
