"""The embedded planner's process: llama.cpp (through xllamacpp) behind its OpenAI-shaped HTTP endpoint.

`python -m lamdatui.planner.llamacpp --model PATH --context N --threads N` loads the model, prints one JSON line
`{"url": …, "key": …, "model": …}` on stdout once it listens on a free port of 127.0.0.1, and lives until stdin ends.
All logging goes to stderr. Other users of the machine can reach the port, so requests need the key, made afresh here.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import json
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1


def die_with(parent: int | None) -> None:
    """Have the kernel kill this process when the thread that spawned it ends (Linux; elsewhere stdin's end must do)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        raise SystemExit("the process that asked for the planner has ended")


def private_stdout() -> int:
    """A duplicate of stdout, after pointing descriptor 1 at stderr: what C++ prints can't mix with the ready line."""
    own = os.dup(1)
    os.dup2(2, 1)
    return own


def serve(model: Path, context: int, threads: int, key: str, adapter: Path | None = None) -> tuple[object, str]:
    """Load the model (with a LoRA adapter, in GGUF, where one is given) and listen. Returns the server (it stops when collected) and its URL. Raises RuntimeError."""
    xllamacpp: Any = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    if adapter is not None:
        lora = xllamacpp.CommonAdapterLoraInfo()
        lora.path, lora.scale = str(adapter), 1.0
        params.lora_adapters = [lora]
    params.n_ctx = context
    params.n_parallel = 1
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.n_threads_http = 2
    params.port = 0
    params.hostnames = ["127.0.0.1"]
    params.api_keys = [key]
    params.cors_origins = "http://127.0.0.1"
    params.ui = False
    params.endpoint_slots = False
    # Without these, saved prompts may take gigabytes, and the one-off warm-up costs more than it saves.
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    params.warmup = False
    server = xllamacpp.Server(params)
    return server, server.listening_address


def main(argv: Sequence[str] | None = None) -> int:
    """Run until stdin ends. Returns the exit code; 1 when the model can't be served, with the reason on stderr."""
    parser = argparse.ArgumentParser(prog="lamdatui.planner.llamacpp", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--context", type=int, default=4096, help="tokens")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--adapter", type=Path, default=None, help="LoRA adapter of the model, in GGUF")
    parser.add_argument("--parent", type=int, default=None, help="pid that must still be the parent")
    options = parser.parse_args(argv)
    die_with(options.parent)
    out = private_stdout()
    key = secrets.token_urlsafe(24)
    try:
        server, url = serve(options.model, options.context, options.threads, key, options.adapter)
    except ImportError as error:
        print(f"xllamacpp can't be imported: {error}", file=sys.stderr)
        return 1
    except RuntimeError as error:
        print(f"llama.cpp could not serve {options.model}: {error}", file=sys.stderr)
        return 1
    os.write(out, (json.dumps({"url": url, "key": key, "model": options.model.stem}) + "\n").encode())
    while os.read(0, 4096):
        pass
    del server
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # The server's threads may be in the middle of an answer that nobody waits for.
    os._exit(code)
