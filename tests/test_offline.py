"""A run's steps reach loopback and nothing else: the kernel holds that where it can, and where it can't the run says so."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from lamdatui.base import network
from lamdatui.base.network import BY_ENVIRONMENT, KERNEL, ONLINE, Refusal, fence, refusal, sentence
from lamdatui.cli.checks import check_machine
from lamdatui.step.files import LOG
from tests.conftest import CHECKOUT, Commands

OUTSIDE = "198.51.100.1"
"""Of TEST-NET-2: nobody's."""
NO_ROUTE = {"ENETUNREACH", "EADDRNOTAVAIL", "EHOSTUNREACH"}

LOOK = """

def look_around(step):
    import errno, os, socket
    import torch
    from torch import distributed

    def tried(what, look):
        try:
            found = look() or "reached"
        except OSError as error:
            found = type(error).__name__ if isinstance(error, socket.gaierror) else errno.errorcode.get(error.errno, "timeout")
        step.say(f"look {what}: {found}")

    def send(place):
        with socket.socket(type=socket.SOCK_DGRAM) as out:
            out.sendto(b"?", place)

    def loopback():
        with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname(), 2) as one:
            door.accept()[0].sendall(b"here")
            return one.recv(4).decode()

    def gloo():
        with socket.create_server(("127.0.0.1", 0)) as door:
            port = door.getsockname()[1]
        child = os.fork()
        distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=int(not child), world_size=2)
        each = torch.full((1,), 1.0 if child else 2.0)
        distributed.all_reduce(each)
        if not child:
            os._exit(0 if each.item() == 3 else 1)
        status = os.waitpid(child, 0)[1]
        distributed.destroy_process_group()
        return f"{each.item():g}, {status}"

    tried("interfaces", lambda: ",".join(name for _, name in socket.if_nameindex()))
    tried("tcp", lambda: socket.create_connection((OUTSIDE, 80), 0.3).close())
    tried("udp", lambda: send((OUTSIDE, 53)))
    tried("name", lambda: str(socket.getaddrinfo("lamdatui.example", 80)))
    tried("door", lambda: socket.create_connection(DOOR, 2).close())
    tried("loopback", loopback)
    tried("gloo", gloo)


ACTION = Looking()
"""

KERNEL_OFFERS_IT = refusal() is None
fenced = pytest.mark.skipif(not KERNEL_OFFERS_IT, reason="this kernel gives this user no network namespace")


def own_address() -> str:
    """An IPv4 address of this machine beyond loopback; "" where it has none."""
    for name, addresses in psutil.net_if_addrs().items():
        for one in addresses:
            if one.family == socket.AF_INET and psutil.net_if_stats()[name].isup and not one.address.startswith("127."):
                return one.address
    return ""


@pytest.fixture
def profile(home: Path, lab: Path, tmp_path: Path) -> Iterator[Path]:
    """A profile whose one action trains as `sft` does and looks around first; a socket of this machine waits for it."""
    with socket.create_server((own_address() or "127.0.0.1", 0)) as door:
        text = (CHECKOUT / "actions" / "sft.py").read_text()
        for old, new in (
            ("class Sft(", "class Looking("),
            ('name = "sft"', 'name = "looking"'),
            (
                "        p, steps = step.params, steps_of(step.params)\n",
                "        look_around(step)\n        p, steps = step.params, steps_of(step.params)\n",
            ),
            ("\n\nACTION = Sft()\n", f"\n\nOUTSIDE, DOOR = {OUTSIDE!r}, {door.getsockname()!r}\n{LOOK}"),
        ):
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        folder = home / "config" / "actions"
        folder.mkdir(parents=True)
        (folder / "looking.py").write_text(text)
        told = yaml.safe_load((CHECKOUT / "profiles" / "lab.yaml").read_text())
        told["models"] = {"llama": told["models"]["llama"]}
        told["datasets"] = {"copy": told["datasets"]["copy"]}
        told["tasks"] = {"copy": told["tasks"]["copy"] | {"rows": {"search": 5, "sealed": 5}}}
        told["objective"] = {"weights": {"copy": 1.0}}
        told["actions"] = {"looking": told["actions"]["sft"] | {"max_steps": {"default": 3, "choices": [2, 3, 4, 5]}}}
        told["budget"] = {"trials": 1, "baselines": 0, "replicates": 0, "promotion": 0}
        path = tmp_path / "looking.yaml"
        path.write_text(yaml.safe_dump(told, sort_keys=False))
        yield path


def words(profile: Path, name: str, *more: str, mode: str = "auto") -> tuple[str, ...]:
    return ("run", str(profile), "--name", name, "--headless", "--mode", mode, *more)


def seen(run_dir: Path) -> dict[str, str]:
    """What the step of trial 1 has seen, from its log."""
    (log,) = (path for path in run_dir.glob(f"steps/**/{LOG}") if "look tcp" in path.read_text())
    return dict(re.findall(r"look (\w+): (.*)", log.read_text()))


def weights(runs: Path) -> set[str]:
    return {hashlib.sha256(path.read_bytes()).hexdigest() for path in runs.glob("store/objects/*/*.safetensors")}


@fenced
def test_a_step_reaches_loopback_alone_and_makes_the_same_weights_as_one_that_reaches_all(
    profile: Path, cli: Commands, tmp_path: Path
) -> None:
    done = cli(*words(profile, "x"))
    assert done.returncode == 0, done.stderr
    assert "steps have no network but loopback (kernel)" in done.stderr
    assert cli.show("x")["network"] == KERNEL
    found = seen(cli.runs / "x")
    assert found["interfaces"].split(",")[0] == "lo" and not set(found["interfaces"].split(",")) & set(_up() - {"lo"})
    assert {found["tcp"], found["udp"]} <= NO_ROUTE
    assert found["name"] == "gaierror"
    assert found["loopback"] == "here"
    assert found["gloo"] == "3, 0"
    if own_address():
        assert found["door"] in NO_ROUTE

    elsewhere = tmp_path / "elsewhere"
    done = cli(*words(profile, "y", "--online", "--runs-dir", str(elsewhere)))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("steps may use the network (--online)") == 2, "the command says it, and so does the engine's line"
    found = seen(elsewhere / "y")
    assert set(found["interfaces"].split(",")) == {name for _, name in socket.if_nameindex()}
    assert found["door"] == "reached"
    assert weights(elsewhere) == weights(cli.runs) != set()

    # What is in the store already is not done again: these runs need no step.
    proposes = words(profile, "z", mode="read-only")
    for more, holds in ((("1", "--online"), ONLINE), (("2",), ONLINE), (("3", "--offline"), KERNEL)):
        done = cli(*proposes, "--max-trials", *more)
        assert done.returncode == 0, done.stderr
        assert cli.show("z")["network"] == holds
        assert ("note: steps may use the network" in done.stderr) == (holds == ONLINE)

    if os.geteuid() == 0 and shutil.which("setpriv"):
        # Root without CAP_SYS_ADMIN, as in most containers.
        weak = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-all", *cli.line(*words(profile, "w"))]
        done = subprocess.run(weak, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "steps are kept from the network only by environment: the kernel refuses" in done.stderr
        assert cli.show("w")["network"].startswith(BY_ENVIRONMENT)


def _up() -> set[str]:
    return {name for name, stats in psutil.net_if_stats().items() if stats.isup}


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSPC])
def test_what_the_kernel_refuses_is_told_with_a_fix_and_leaves_the_process_as_it_was(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(flags: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(network, "_unshare", refuse)
    before = os.readlink("/proc/self/ns/net")
    assert fence().startswith(f"{BY_ENVIRONMENT}the kernel refuses a namespace ({errno.errorcode[number]})")
    assert os.readlink("/proc/self/ns/net") == before
    (finding,) = (each for each in check_machine() if each.subject == "network")
    assert finding.status == "warn" and finding.fix
    assert finding.detail.startswith("steps are kept from the network only by environment: the kernel refuses")


@pytest.mark.parametrize(
    ("file", "value", "fix"),
    [
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("user/max_user_namespaces", "0", "user.max_user_namespaces="),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "apparmor_restrict_unprivileged_userns=0"),
        ("kernel/other", "1", "--network none"),
    ],
)
def test_an_ordinary_user_is_told_which_setting_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, value: str, fix: str
) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(f"{value}\n")
    monkeypatch.setattr(network, "_SYSCTL", tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert fix in network._explained(errno.EPERM).fix


@fenced
def test_a_process_with_threads_is_not_half_fenced() -> None:
    done = threading.Event()
    other = threading.Thread(target=done.wait)
    other.start()
    try:
        before = os.readlink("/proc/self/ns/net")
        assert fence() == f"{BY_ENVIRONMENT}the process has several threads"
        assert os.readlink("/proc/self/ns/net") == before
    finally:
        done.set()
        other.join()


def test_a_machine_without_namespaces_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert refusal() == Refusal("this is not Linux")
    assert sentence(fence()) == "steps are kept from the network only by environment: this is not Linux"
    assert sentence("") == ""


ORDINARY = """
import socket, struct, tempfile
folder = tempfile.mkdtemp()
door = socket.socket(socket.AF_UNIX)
door.bind(folder + "/door")
door.listen()
closed = os.open(folder + "/closed", os.O_CREAT, 0)
before = os.getuid(), os.getgid()
child = os.fork()
if not child:
    told, libc = ctypes.c_int(), ctypes.CDLL(None)
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, as the host does
    assert fence() == KERNEL, refusal()
    libc.prctl(2, ctypes.byref(told), 0, 0, 0)
    assert told.value == 9, "it would outlive its engine"
    assert fence() == KERNEL, "another one inside it"
    assert (os.getuid(), os.getgid()) == before
    assert os.stat(folder).st_uid == before[0]
    try:
        os.open(folder + "/closed", os.O_RDONLY)
    except PermissionError:
        pass
    else:
        raise SystemExit("permission bits do not count any more")
    try:
        socket.create_connection(("198.51.100.1", 80), 1)
    except OSError as error:
        assert error.errno == errno.ENETUNREACH, error
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(folder + "/door")
        assert struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1] == before[0]
        one.recv(1)
    os._exit(0)
peer, _ = door.accept()
pid, user, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
assert (pid, user) == (child, before[0]), (pid, user)
peer.close()
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_an_ordinary_user_keeps_uid_files_and_peers_across_the_fence() -> None:
    command = [sys.executable, "-I", "-c"]
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("the tests run as root, and there is no setpriv to be somebody else")
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    source = Path(network.__file__).read_text()
    asked = subprocess.run([*command, f"{source}\nprint(refusal())"], cwd="/", capture_output=True, text=True, timeout=30)
    if asked.returncode or asked.stdout.strip() != "None":
        pytest.skip(f"an ordinary user can't try it here: {asked.stdout}{asked.stderr[-300:]}")
    done = subprocess.run([*command, source + ORDINARY], cwd="/", capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.slow
def test_no_process_of_a_run_connects_to_anything_but_this_machine(lab_profile, cli: Commands, tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("there is no strace")
    trace = tmp_path / "trace"
    line = ["strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg,sendmmsg", "-o", str(trace)]
    line += cli.line("run", str(lab_profile()), "--name", "x", "--headless", "--mode", "auto", "--max-trials", "2")
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    calls = trace.read_text().splitlines()
    assert any("AF_UNIX" in call for call in calls), "the trace has the engine's own socket"
    places = [call for call in calls if "sa_family=AF_INET" in call]
    assert [call for call in places if not re.search(r'inet_addr\("127\.|"::1"', call)] == []
