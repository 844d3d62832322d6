"""skep's own client on a terminal, beside the stock one: raw mode, detach keys, sizes, signals, progress bars.

A test runs a client on a pseudo-terminal, types, and waits for what appears; nothing sleeps.
"""
import contextlib
import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import termios
import time

import pytest

from conftest import IMAGE, SKEP
from test_images import pushed

BOTH = pytest.mark.parametrize("program", ["docker", SKEP], ids=["docker", "skep"])


class Terminal:
    """A client on a terminal of its own."""

    def __init__(self, d, program, *args, rows=40, columns=100):
        self.master, slave = pty.openpty()
        self.resize(rows, columns)
        self.seen = b""
        environment = dict(os.environ, DOCKER_HOST=f"unix://{d.socket}", DOCKER_CLI_HINTS="0",
                           DOCKER_CONFIG=str(d.base / "cfg"), TERM="xterm")
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.process = subprocess.Popen([program, *args], stdin=slave, stdout=slave, stderr=slave, env=environment,
                                        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def resize(self, rows, columns):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self, seconds):
        if select.select([self.master], [], [], seconds)[0]:
            self.seen += os.read(self.master, 65536)
            return True
        return False

    def expect(self, text, seconds=20):
        """Waits for `text` after what was expected before."""
        end = time.monotonic() + seconds
        text = text.encode()
        while text not in self.seen:
            assert time.monotonic() < end, f"not seen: {text!r} in {self.seen!r}"
            self._read(0.1)
        at = self.seen.index(text) + len(text)
        before, self.seen = self.seen[:at], self.seen[at:]
        return before.decode()

    def type(self, text):
        os.write(self.master, text.encode())

    def end(self, seconds=20):
        """The exit code, the rest of what was shown, and whether the terminal is as it was."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, f"still running: {self.seen!r}"
            self._read(0.05)
        while self._read(0):
            pass
        settings = termios.tcgetattr(self.slave)
        os.close(self.slave)
        os.close(self.master)
        return self.process.returncode, self.seen.decode(), settings == self.before

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON


@pytest.fixture
def terminal(d):
    opened = []

    def make(program, *args, **options):
        opened.append(Terminal(d, program, *args, **options))
        return opened[-1]
    yield make
    for each in opened:
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        with contextlib.suppress(OSError):
            os.close(each.master)


def test_a_bar_is_drawn_where_there_is_room(swarm, terminal):
    create = ["service", "create", "--no-resolve-image", "--update-monitor", "1ms", "--replicas", "2"]
    narrow = terminal(SKEP, *create, IMAGE, "sleep", "1000")
    narrow.expect("1/2: running   \r")
    assert narrow.end()[0] == 0
    wide = terminal(SKEP, *create, IMAGE, "sleep", "1000", columns=120)
    wide.expect("1/2: running   [==================================================>] \r")
    assert wide.end()[0] == 0


def screen(text):
    """What a terminal shows in the end."""
    lines, row, column = [""], 0, 0
    for code, count, kind, plain in re.findall(r"(\x1b\[(\d+)([AKB]))|([^\x1b])", text):
        if kind == "A":
            row -= int(count)
        elif kind == "B":
            row += int(count)
        elif kind == "K":
            lines[row] = ""
        elif plain == "\r":
            column = 0
        elif plain == "\n":
            row += 1
        else:
            lines[row] = lines[row][:column].ljust(column) + plain + lines[row][column + 1:]
            column += 1
        lines += [""] * (row + 1 - len(lines))
    return lines


def test_a_service_that_converges_is_drawn_the_same(swarm, terminal):
    shown = []
    for program in ("docker", SKEP):
        t = terminal(program, "service", "create", "--no-resolve-image", "--update-monitor", "1ms", "--replicas", "3", IMAGE, "sleep", "1000")
        code, text, _ = t.end()
        assert code == 0
        shown.append([re.sub("[a-z0-9]{25}", "ID", line) for line in screen(text)])
    assert shown[0] == shown[1]
    assert shown[0][1:5] == ["overall progress: 3 out of 3 tasks ", "1/3: running   ", "2/3: running   ", "3/3: running   "]


def test_a_pull_is_drawn_the_same(d, terminal, registry, rootfs, tmp_path):
    name = pushed(registry, rootfs, "draw/box:1", tmp_path)
    shown = []
    for program in ("docker", SKEP):
        code, text, _ = terminal(program, "pull", name, columns=120).end()
        assert code == 0
        # A layer that is small is done before its bar has moved; its line is drawn in place all the same.
        assert re.search(r"\n\x1b\[1A\x1b\[2K\r[0-9a-f]{12}: Pulling fs layer \r\x1b\[1B", text)
        shown.append(screen(text))
        d.docker("rmi", name)
    assert shown[0] == shown[1]
    assert re.fullmatch("[0-9a-f]{12}: Pull complete *", shown[0][1])


def test_an_interrupt_leaves_the_service_to_itself(swarm, terminal):
    t = terminal(SKEP, "service", "create", "--no-resolve-image", "--name", "left", "--constraint", "node.labels.no==where", IMAGE, "sleep", "1000")
    t.expect("1/1: no suitable node")
    t.type("\x03")
    t.expect("Operation continuing in background.\r\nUse `skep service ps ")
    assert t.end()[0] == 0
    assert swarm.out("service", "ls", "--format", "{{.Name}}") == "left"


@BOTH
def test_run_has_a_terminal_of_the_same_size(d, terminal, program):
    t = terminal(program, "run", "-it", "--rm", IMAGE, "sh", rows=31, columns=77)
    t.expect("# ")
    t.type("stty size; exit 7\r")
    t.expect("31 77")
    assert t.end()[::2] == (7, True)


@BOTH
def test_a_container_follows_the_terminals_size(d, terminal, program):
    t = terminal(program, "run", "-it", "--rm", "--name", "sized", IMAGE, "sh", "-c", "trap 'stty size' WINCH; echo up; while :; do sleep 0.02; done")
    t.expect("up")
    # The first size and the first change may arrive as one.
    for rows in range(20, 40):
        t.resize(rows, 55)
        with contextlib.suppress(AssertionError):
            t.expect(f"{rows} 55", 1)
            break
    else:
        raise AssertionError(f"no size arrived: {t.seen!r}")
    d.docker("kill", "sized")
    assert t.end()[0] == 137


@BOTH
def test_exec_has_a_terminal_and_the_commands_exit_code(d, terminal, program):
    d.out("run", "-d", "--name", "one", IMAGE, "sleep", "1000")
    t = terminal(program, "exec", "-it", "one", "sh", rows=22, columns=66)
    t.expect("# ")
    assert t.is_raw()
    t.type("stty size; tty; exit 5\r")
    t.expect("22 66")
    assert t.end()[::2] == (5, True)


@BOTH
def test_control_c_goes_into_the_container(d, terminal, program):
    t = terminal(program, "run", "-it", "--rm", IMAGE, "sh", "-c", "trap 'echo caught; exit 9' INT; echo up; while :; do sleep 0.02; done")
    t.expect("up")
    t.type("\x03")
    t.expect("caught")
    assert t.end()[0] == 9


def detached(d, terminal, program, args, keys, typed):
    t = terminal(program, *args, *(["--detach-keys", keys] if keys else []), *(["one"] if args[0] == "attach" else [IMAGE, "sh"]))
    if args[0] == "attach":
        t.type("\r")
    t.expect("# ")
    t.type("echo a$((40+2))\r")
    t.expect("a42")
    t.expect("# ")
    t.type(typed)
    code, rest, is_restored = t.end()
    assert is_restored
    assert d.json("inspect", "one")[0]["State"]["Running"]
    return code, rest


@pytest.mark.parametrize("keys, typed", [(None, "\x10\x11"), ("ctrl-x,y", "\x18y"), ("a,b,c", "abc")])
def test_detach_keys_leave_the_container_running(d, terminal, keys, typed):
    ends = {}
    for program in ("docker", SKEP):
        run = detached(d, terminal, program, ["run", "-it", "--name", "one"], keys, typed)
        attach = detached(d, terminal, program, ["attach"], keys, typed)
        d.docker("rm", "-f", "one")
        ends[program] = (run, attach)
    assert ends["docker"] == ends[SKEP]


def test_detaching_from_an_exec_reads_the_same(d, terminal):
    d.out("run", "-d", "--name", "one", IMAGE, "sleep", "1000")
    ends = []
    for program in ("docker", SKEP):
        t = terminal(program, "exec", "-it", "--detach-keys", "ctrl-x,y", "one", "sh")
        t.expect("# ")
        t.type("\x18y")
        ends.append(t.end())
    assert ends[0] == ends[1]


@BOTH
def test_signals_are_forwarded_without_a_terminal(d, program):
    environment = dict(os.environ, DOCKER_HOST=f"unix://{d.socket}", DOCKER_CONFIG=str(d.base / "cfg"))
    script = "trap 'echo hup' HUP; trap 'echo term; exit 4' TERM; echo up; while :; do sleep 0.02; done"
    client = subprocess.Popen([program, "run", "--rm", IMAGE, "sh", "-c", script], env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, text=True)
    assert client.stdout.readline() == "up\n"
    # The client begins to forward a moment after the first output.
    client.send_signal(signal.SIGHUP)
    assert client.stdout.readline() == "hup\n"
    client.send_signal(signal.SIGTERM)
    assert client.stdout.readline() == "term\n"
    assert client.wait(20) == 4


def test_without_a_terminal_a_tty_is_refused_the_same(d):
    for words in (["run", "-it", IMAGE, "true"], ["exec", "-it", "x", "true"]):
        docker, skep = d.docker(*words, check=False, stdin=subprocess.DEVNULL), d.skep(*words, check=False, stdin=subprocess.DEVNULL)
        assert (docker.returncode, docker.stderr, docker.stdout) == (skep.returncode, skep.stderr, skep.stdout)


EVENTS = [
    "--filter type=container", "--filter event=create", "--filter container=two", "--filter label=k=v", "--filter image=" + IMAGE,
    "--filter type=container --filter event=die --filter event=start", "--format json", "--format '{{json .}}'",
    "--format '{{.Type}} {{.Action}} {{.Actor.ID}}'", "--format '{{.Time}} {{.TimeNano}} {{.ID}} {{.Status}} {{.From}} {{.Scope}}'", "--format '{{.Actor.Attributes.name}}'",
]


def test_events_are_the_same(d):
    began = f"{time.time():.9f}"
    d.docker("run", "--name", "two", "--label", "k=v", IMAGE, "sh", "-c", "exit 3", check=False)
    d.docker("rm", "two")
    ended = f"{time.time():.9f}"
    different = []
    for flags in EVENTS:
        words = ["events", "--since", began, "--until", ended, *shlex.split(flags)]
        docker, skep = d.docker(*words), d.skep(*words)
        assert docker.stdout, flags
        if docker.stdout != skep.stdout:
            different.append((flags, docker.stdout, skep.stdout))
    assert not different
