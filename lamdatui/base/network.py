"""A fence that the kernel holds: a process, and whatever it starts, without any network interface but a loopback of its own.

By namespaces (namespaces(7), Linux). Root enters a network namespace alone; anybody else a user namespace with it, in which the own
uid and gid stay the numbers that they are, all others show as 65534, and no program gains rights (setuid). Sockets that are files
(unix(7)) are reached as before. Landlock can't tell loopback from other addresses, so it is no way to do this.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import socket
import struct
import sys
from dataclasses import dataclass
from pathlib import Path

KERNEL = "kernel"
ONLINE, OFF = "online", "offline"
BY_ENVIRONMENT = "environment: "

OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
"""What keeps the libraries from the network by themselves."""

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_CAPABILITY_VERSION = 0x20080522
_SYSCTL = Path("/proc/sys")


@dataclass(frozen=True)
class Refusal:
    """Why the kernel gives no fence, and what to do about it."""

    why: str
    fix: str = ""


def fence() -> str:
    """Fence this process, which must have one thread, for good: `kernel`, or `environment: WHY` where nothing is changed."""
    refused = refusal()
    if refused is None and len(os.listdir("/proc/self/task")) > 1:
        refused = Refusal("the process has several threads")
    if refused is not None:
        return BY_ENVIRONMENT + refused.why
    _enter()
    return KERNEL


def refusal() -> Refusal | None:
    """Why a fence is impossible here; None where it is possible. A child tries it: one that is half built can't be left again."""
    if not sys.platform.startswith("linux"):
        return Refusal("this is not Linux")
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        number = errno.EIO
        try:
            _enter()
            number = 0
        except OSError as error:
            number = error.errno or errno.EIO
        finally:
            os.write(writer, struct.pack("i", number))
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as told:
        found = told.read()
    with contextlib.suppress(ChildProcessError):  # where SIGCHLD is ignored
        os.waitpid(child, 0)
    number = struct.unpack("i", found)[0] if found else errno.EIO
    return _explained(number) if number else None


def sentence(network: str) -> str:
    """What `fence` returned, or `online`, as a sentence; "" for a run of an older version, which says nothing."""
    if network.startswith(BY_ENVIRONMENT):
        return f"steps are kept from the network only by environment: {network.removeprefix(BY_ENVIRONMENT)}"
    return {KERNEL: "steps have no network but loopback (kernel)", ONLINE: "steps may use the network (--online)"}.get(
        network, ""
    )


def _enter() -> None:
    """Raises OSError at the first thing that the kernel refuses."""
    user, group = os.geteuid(), os.getegid()
    _unshare(_CLONE_NEWNET if user == 0 else _CLONE_NEWUSER | _CLONE_NEWNET)
    if user:
        # In this order: a gid can be mapped by an ordinary user only once groups can't be changed.
        for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
            Path(f"/proc/self/{name}").write_text(text)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        asked = struct.pack("16sh14x", b"lo", 0)
        _, flags = struct.unpack("16sh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, asked))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))
    if user:
        _drop_capabilities()


def _unshare(flags: int) -> None:
    _checked(ctypes.CDLL(None, use_errno=True).unshare(flags))


def _drop_capabilities() -> None:
    """Those of the new user namespace: with them, permission bits of the own files would not count any more."""
    header, nothing = struct.pack("Ii", _CAPABILITY_VERSION, 0), bytes(24)
    _checked(ctypes.CDLL(None, use_errno=True).capset(header, nothing))


def _checked(status: int) -> None:
    if status:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _explained(number: int) -> Refusal:
    """What stands behind an error of the kernel."""
    what = f"the kernel refuses a namespace ({errno.errorcode.get(number, number)})"
    if os.geteuid() == 0:
        return Refusal(
            f"{what}: no CAP_SYS_ADMIN", "start the container without a network (--network none), or run as another user"
        )
    if _sysctl("kernel/unprivileged_userns_clone") == "0":
        return Refusal(f"{what}: user namespaces are off", "sudo sysctl kernel.unprivileged_userns_clone=1")
    if _sysctl("user/max_user_namespaces") == "0":
        return Refusal(f"{what}: user namespaces are off", "sudo sysctl user.max_user_namespaces=10000")
    if _sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
        return Refusal(
            f"{what}: AppArmor keeps them from ordinary users", "sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0"
        )
    return Refusal(what, "in a container: start it without a network (--network none), or allow user namespaces in it")


def _sysctl(name: str) -> str:
    try:
        return (_SYSCTL / name).read_text().strip()
    except OSError:
        return ""
