"""Containers with the stock docker CLI."""
import json
import os
import pty
import select
import subprocess
import time
import urllib.request

import pytest
from conftest import IMAGE, SKEP, until


def test_run_prints_what_the_process_prints(d):
    done = d.docker("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert d.containers() == []


@pytest.mark.parametrize("command, code", [
    (["sh", "-c", "exit 3"], 3), (["/nope"], 127), (["nope"], 127), (["/bin/notexec"], 126), (["sh", "-c", "sh -c 'kill -9 $$'; exit $?"], 137),
])
def test_exit_codes_are_docker_s(d, command, code):
    done = d.docker("run", "--rm", IMAGE, *command, check=False)
    assert done.returncode == code and "waiting for container" not in done.stderr


def test_a_missing_image_is_named(d):
    done = d.docker("run", "--rm", "--pull", "never", "nosuch:1", check=False)
    assert done.returncode == 125 and "No such image: nosuch:1" in done.stderr


def test_stdin_reaches_the_process_byte_for_byte(d):
    data = "".join(chr(33 + i % 90) for i in range(1_000_000))
    done = d.docker("run", "--rm", "-i", IMAGE, "sha256sum", input=data)
    import hashlib
    assert done.stdout.split()[0] == hashlib.sha256(data.encode()).hexdigest()


def interactive(daemon, *args, program="docker"):
    """Runs a client on a terminal; returns (send, read_until, close)."""
    leader, follower = pty.openpty()
    environment = dict(os.environ, DOCKER_HOST=f"unix://{daemon.socket}", TERM="xterm")
    process = subprocess.Popen([program, *args], stdin=follower, stdout=follower, stderr=follower, env=environment,
                               start_new_session=True)
    os.close(follower)
    seen = bytearray()

    def read_until(text, seconds=15):
        end = time.monotonic() + seconds
        while text.encode() not in seen:
            ready, _, _ = select.select([leader], [], [], max(0, end - time.monotonic()))
            assert ready, f"{text!r} not in {bytes(seen)!r}"
            try:
                part = os.read(leader, 4096)
            except OSError:
                part = b""
            assert part, f"{text!r} not in {bytes(seen)!r}"
            seen.extend(part)
        return bytes(seen)

    def close():
        code = process.wait(20)
        os.close(leader)
        return code
    return lambda text: os.write(leader, text.encode()), read_until, close


@pytest.mark.parametrize("program", ["docker", SKEP])
def test_a_terminal_works(d, program):
    send, read_until, close = interactive(d, "run", "-it", "--rm", IMAGE, "sh", program=program)
    read_until("# ")
    send("tty; echo $((40+2)); exit 7\n")
    read_until("/dev/pts/0")
    read_until("42")
    assert close() == 7


def test_exec_with_and_without_a_terminal(d):
    name = d.out("run", "-d", "--name", "ex", IMAGE, "sleep", "1000")
    assert name
    assert d.out("exec", "-e", "A=b", "-w", "/tmp", "-u", "guest", "ex", "sh", "-c", "echo $A; pwd; id -u") == "b\n/tmp\n1000"
    assert d.docker("exec", "ex", "sh", "-c", "exit 5", check=False).returncode == 5
    assert d.docker("exec", "ex", "nope", check=False).returncode == 127
    send, read_until, close = interactive(d, "exec", "-it", "ex", "sh")
    read_until("# ")
    send("echo $((6*7)); exit\n")
    read_until("42")
    assert close() == 0
    status = d.out("exec", "ex", "grep", "-E", "Seccomp:|NoNewPrivs|CapEff", "/proc/self/status")
    assert "Seccomp:\t2" in status and "00000000a80425fb" in status


def test_published_ports_answer_from_everywhere(d):
    d.docker("run", "-d", "--name", "web", "-p", "18081:80", IMAGE, "sh", "-c",
             "mkdir /w; hostname > /w/index.html; exec httpd -f -p 80 -h /w")
    page = lambda host: urllib.request.urlopen(f"http://{host}:18081/", timeout=5).read().decode().strip()
    short = d.out("ps", "-q", "--filter", "name=web")
    until(lambda: page_or_none(page, "127.0.0.1"), 10, "the page")
    assert page("127.0.0.1") == short and page("10.77.0.1") == short
    gateway = d.json("network", "inspect", "bridge")[0]["IPAM"]["Config"][0]["Gateway"]
    inside = d.out("run", "--rm", IMAGE, "wget", "-q", "-O", "-", f"http://{gateway}:18081/")
    assert inside == short
    itself = d.out("exec", "web", "wget", "-q", "-O", "-", f"http://{gateway}:18081/")
    assert itself == short
    taken = d.docker("run", "-d", "--name", "web2", "-p", "18081:80", IMAGE, "sleep", "9", check=False)
    assert taken.returncode == 125 and "port is already allocated" in taken.stderr
    assert "0.0.0.0:18081->80/tcp" in d.out("ps", "--format", "{{.Ports}}", "--filter", "name=web")


def page_or_none(page, host):
    try:
        return page(host)
    except OSError:
        return None


def test_rules_come_back_when_somebody_flushes_them(d):
    d.docker("run", "-d", "--name", "web", "-p", "18082:80", IMAGE, "sh", "-c", "mkdir /w; echo hi > /w/index.html; exec httpd -f -p 80 -h /w")
    page = lambda host: urllib.request.urlopen(f"http://{host}:18082/", timeout=1).read().decode().strip()
    until(lambda: page_or_none(page, "127.0.0.1"), 10, "the page")
    subprocess.run(["nft", "flush", "ruleset"], check=True)
    until(lambda: page_or_none(page, "127.0.0.1"), 2, "the page after a flush")


def test_logs_tail_follow_and_stay_apart(d):
    d.docker("run", "-d", "--name", "lg", IMAGE, "sh", "-c", "for i in 1 2 3; do echo o$i; echo e$i >&2; done; sleep 0.3; echo last")
    followed = d.docker("logs", "-f", "lg")
    assert followed.stdout == "o1\no2\no3\nlast\n" and followed.stderr == "e1\ne2\ne3\n"
    assert d.out("logs", "--tail", "1", "lg") == "last"
    stamped = d.out("logs", "-t", "--tail", "1", "lg")
    assert stamped.endswith("Z last") and stamped[4] == "-"


def test_logs_rotate(d):
    d.docker("run", "--name", "rot", "--log-opt", "max-size=64k", "--log-opt", "max-file=2", IMAGE,
             "sh", "-c", "i=0; while [ $i -lt 4000 ]; do echo line-$i-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx; i=$((i+1)); done")
    path = d.out("inspect", "-f", "{{.LogPath}}", "rot")
    assert os.path.getsize(path) <= 70_000 and os.path.exists(path + ".1") and not os.path.exists(path + ".2")
    assert d.out("logs", "--tail", "1", "rot").startswith("line-3999-")


def test_environment_user_and_names(d):
    assert d.out("run", "--rm", "-e", "A=1", "-h", "box", "-w", "/tmp", "-u", "guest", "--group-add", "extra", IMAGE,
                 "sh", "-c", "echo $A; hostname; pwd; id") == "1\nbox\n/tmp\nuid=1000(guest) gid=1001(guest) groups=1001(guest),1002(extra)"
    hosts = d.out("run", "--rm", "-h", "box", "--add-host", "db:10.1.2.3", IMAGE, "cat", "/etc/hosts")
    assert "10.1.2.3\tdb" in hosts and "box" in hosts
    resolv = d.out("run", "--rm", "--dns", "9.9.9.9", "--dns-search", "x.y", IMAGE, "cat", "/etc/resolv.conf")
    assert "nameserver 9.9.9.9" in resolv and "search x.y" in resolv


def test_a_container_is_confined(d):
    assert d.docker("run", "--rm", IMAGE, "mount", "-t", "tmpfs", "x", "/tmp", check=False).returncode != 0
    assert "Operation not permitted" in d.docker("run", "--rm", IMAGE, "unshare", "-U", "true", check=False).stderr
    status = d.out("run", "--rm", IMAGE, "grep", "-E", "^(Seccomp|CapEff):", "/proc/self/status")
    assert "Seccomp:\t2" in status and "CapEff:\t00000000a80425fb" in status
    dropped = d.out("run", "--rm", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", IMAGE, "grep", "-E", "CapEff|NoNewPrivs", "/proc/self/status")
    assert "0000000000000000" in dropped and "NoNewPrivs:\t1" in dropped
    assert d.out("run", "--rm", IMAGE, "sh", "-c", "cat /proc/kcore 2>/dev/null | head -c 1 | wc -c") == "0"
    assert d.docker("run", "--rm", "--read-only", IMAGE, "touch", "/x", check=False).returncode != 0
    assert d.out("run", "--rm", IMAGE, "sh", "-c", "echo $$; ls /proc | grep -c '^[0-9]'").split()[0] == "1"
    assert d.docker("run", "--rm", IMAGE, "sh", "-c", "echo 1 > /proc/sys/kernel/panic", check=False).returncode != 0


def test_limits_hold(d):
    killed = d.docker("run", "--name", "oom", "-m", "16m", IMAGE, "sh", "-c", "tail /dev/zero", check=False)
    assert killed.returncode == 137
    assert d.json("inspect", "oom")[0]["State"]["OOMKilled"] is True
    forks = d.docker("run", "--rm", "--pids-limit", "8", IMAGE, "sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1 & done; wait", check=False)
    assert "can't fork" in forks.stderr
    assert d.out("run", "--rm", "--ulimit", "nofile=100:200", IMAGE, "sh", "-c", "ulimit -n; ulimit -Hn") == "100\n200"


def test_volumes_binds_and_tmpfs(d, tmp_path):
    d.docker("volume", "create", "--label", "a=b", "v1")
    assert d.out("run", "--rm", "-v", "v1:/data", IMAGE, "cat", "/data/seed") == "seed"
    d.docker("run", "--rm", "-v", "v1:/data", IMAGE, "sh", "-c", "echo new > /data/seed")
    assert d.out("run", "--rm", "-v", "v1:/data:ro", IMAGE, "cat", "/data/seed") == "new"
    (tmp_path / "f").write_text("host\n")
    assert d.out("run", "--rm", "-v", f"{tmp_path}:/m:ro", IMAGE, "cat", "/m/f") == "host"
    assert d.docker("run", "--rm", "-v", f"{tmp_path}:/m:ro", IMAGE, "touch", "/m/g", check=False).returncode != 0
    assert "size=1024k" in d.out("run", "--rm", "--tmpfs", "/t:size=1m,mode=700", IMAGE, "grep", " /t ", "/proc/mounts")
    missing = d.docker("run", "--rm", "--mount", "type=bind,src=/nope,dst=/m", IMAGE, "true", check=False)
    assert missing.returncode == 125 and "bind source path does not exist: /nope" in missing.stderr
    assert d.out("volume", "ls", "-q", "--filter", "label=a=b") == "v1"
    d.docker("volume", "rm", "v1")
    assert d.docker("volume", "inspect", "v1", check=False).returncode == 1


def test_stop_asks_first_and_kills_after_the_grace(d):
    d.docker("run", "-d", "--name", "polite", IMAGE, "sh", "-c", "trap 'exit 9' TERM; while :; do sleep 0.05; done")
    d.docker("stop", "polite")
    assert d.json("inspect", "polite")[0]["State"]["ExitCode"] == 9
    d.docker("run", "-d", "--name", "deaf", IMAGE, "sh", "-c", "trap '' TERM; while :; do sleep 0.05; done")
    began = time.monotonic()
    d.docker("stop", "-t", "1", "deaf")
    assert 0.9 < time.monotonic() - began < 3
    assert d.json("inspect", "deaf")[0]["State"]["ExitCode"] == 137


def test_life_cycle_and_names(d):
    first = d.out("create", "--name", "one", IMAGE, "sleep", "1000")
    again = d.docker("create", "--name", "one", IMAGE, check=False)
    assert again.returncode == 1 and f'The container name "/one" is already in use by container "{first}"' in again.stderr
    d.docker("start", "one")
    assert "container is running" in d.docker("rm", "one", check=False).stderr
    d.docker("restart", "-t", "0", "one")
    d.docker("kill", "-s", "USR1", "one")
    d.docker("kill", "one")
    assert d.out("wait", "one") == "137"
    assert d.out("ps", "-a", "--filter", "status=exited", "--format", "{{.Names}} {{.State}}") == "one exited"
    d.docker("rename", "one", "two")
    d.docker("rm", "two")


def test_events_tell_the_story(d):
    began = str(time.time())
    d.docker("run", "--rm", "--name", "ev", IMAGE, "true")
    events = d.out("events", "--since", began, "--until", str(time.time() + 0.1), "--filter", "type=container", "--format", "{{.Action}}").split()
    assert [e for e in events if e in ("create", "start", "die", "destroy")] == ["create", "start", "die", "destroy"]


def test_health_is_probed_and_shown(d):
    d.docker("run", "-d", "--name", "hh", "--health-cmd", "test -e /tmp/ok", "--health-interval", "100ms", "--health-retries", "2", IMAGE, "sleep", "1000")
    health = lambda: d.json("inspect", "hh")[0]["State"]["Health"]
    until(lambda: health()["Status"] == "unhealthy", 10, "unhealthy")
    assert "(unhealthy)" in d.out("ps", "--format", "{{.Status}}")
    d.docker("exec", "hh", "touch", "/tmp/ok")
    until(lambda: health()["Status"] == "healthy", 10, "healthy")
    until(lambda: len(health()["Log"]) == 5, 10, "five results")
    assert d.json("inspect", "hh")[0]["State"]["Running"] is True


def test_skep_s_own_commands_do_the_same(d):
    assert d.skep("run", "--rm", IMAGE, "echo", "hi").stdout == "hi\n"
    assert d.skep("run", "--rm", IMAGE, "sh", "-c", "exit 4", check=False).returncode == 4
    assert d.skep("run", "--rm", IMAGE, "nope", check=False).returncode == 127
    d.skep("run", "-d", "--name", "s1", IMAGE, "sleep", "1000")
    table = d.skep("ps").stdout.splitlines()
    assert table[0].split() == ["CONTAINER", "ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]
    assert d.skep("ps", "--format", "{{.Names}}|{{.Image}}").stdout == f"s1|{IMAGE}\n"
    assert d.skep("exec", "s1", "echo", "x").stdout == "x\n"
    assert json.loads(d.skep("inspect", "s1").stdout)[0]["Name"] == "/s1"
    assert d.skep("stop", "-t", "0", "s1").stdout == "s1\n"
    assert d.skep("rm", "nope", check=False).returncode == 1
