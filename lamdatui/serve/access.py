"""Who may talk to the browser console: the token, the cookie that follows it, and the Host and Origin headers.

Pure: headers in, a reason to refuse out. Any page that a browser shows can send requests to 127.0.0.1, and a name that
its owner points there makes such a page look like ours; so the token alone is not enough.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import regular

TOKEN_CHARS = 32
"""The shortest token that a file may hold; one that is made here is longer."""

_AUTHORITY = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]@/\s]+)(?::[0-9]{1,5})?")
_TOKEN = re.compile(r"[A-Za-z0-9._~-]+")


@dataclass(frozen=True)
class Guard:
    """Decides about one request. `names` are what this machine may be called beside an address, when `remote`."""

    token: str = field(repr=False)
    remote: bool = False
    names: frozenset[str] = frozenset()

    @property
    def cookie_name(self) -> str:
        """A name of its own for each token: cookies of one host are shared between its ports."""
        return f"lamdatui-{self._derived('name')[:12]}"

    @property
    def cookie_value(self) -> str:
        """What stands for the token after the first visit; the token can't be read from it."""
        return self._derived("value")

    def knows_token(self, token: str) -> bool:
        """Whether this is the token; as slow for a near miss as for a far one."""
        return hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode())

    def knows_cookie(self, value: str) -> bool:
        """The same for the cookie."""
        return hmac.compare_digest(value.encode("utf-8", "replace"), self.cookie_value.encode())

    def refusal(self, hosts: Sequence[str], origins: Sequence[str], *, websocket: bool) -> str:
        """Why a request with these Host and Origin headers is refused; empty when it isn't."""
        host = hosts[0].lower() if len(hosts) == 1 else ""
        if not self._serves(host):
            return "this address is not served: open the one that `lamdatui serve` printed"
        if len(origins) > 1 or (websocket and not origins):
            return "the request does not say which page it comes from"
        if origins and origins[0].lower() not in (f"http://{host}", f"https://{host}"):
            return "the request comes from another page"
        return ""

    def _serves(self, host: str) -> bool:
        match = _AUTHORITY.fullmatch(host)
        if match is None:
            return False
        name = match[1].strip("[]").removesuffix(".")
        try:
            # A page of somebody else's can't have an address for a name, so addresses are safe to accept.
            return ipaddress.ip_address(name).is_loopback or self.remote
        except ValueError:
            return name == "localhost" or (self.remote and name in self.names)

    def _derived(self, use: str) -> str:
        return hmac.new(self.token.encode(), f"lamdatui {use}".encode(), hashlib.sha256).hexdigest()


def make_guard(host: str, token: str, *, allow_remote: bool) -> Guard:
    """The guard for a host to listen on. Raises LamdatuiError for one that others can reach, unless that is allowed."""
    if is_loopback(host):
        return Guard(token)
    if not allow_remote:
        raise LamdatuiError(
            f"{host} can be reached from other machines",
            where="--host",
            fix="keep 127.0.0.1 and use `ssh -L 8642:127.0.0.1:8642 MACHINE`; or give --allow-remote (nothing is encrypted then)",
        )
    own = {socket.gethostname(), socket.getfqdn(), host}
    return Guard(token, remote=True, names=frozenset(name.lower() for name in own))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def new_token() -> str:
    """256 random bits, as they can stand in an address."""
    return secrets.token_urlsafe(32)


def token_from(path: Path) -> str:
    """The token that a file holds; the file is made, for its owner alone, where there is none. Raises LamdatuiError."""
    path = path.expanduser()
    try:
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as handle:
                handle.write(f"{new_token()}\n")
        mode = path.stat().st_mode
        text = regular(path).read_text(encoding="ascii").strip()
    except UnicodeDecodeError:
        text, mode = "", 0
    except OSError as error:
        raise LamdatuiError(f"can't use the token file: {error.strerror}", where=str(path)) from error
    if mode & 0o077:
        raise LamdatuiError("others may read the token file", where=str(path), fix=f"chmod 600 {path}")
    if len(text) < TOKEN_CHARS or not _TOKEN.fullmatch(text):
        raise LamdatuiError(
            f"the token file must hold at least {TOKEN_CHARS} letters, digits or . _ ~ -",
            where=str(path),
            fix="delete the file: a new one is made",
        )
    return text
