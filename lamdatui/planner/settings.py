"""Everything that can be set about the planner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lamdatui.base.errors import LamdatuiError

Backend = Literal["llamacpp", "llama-cpp-python", "vllm", "openai"]
Sleep = Literal["auto", "always", "never"]
ChoiceStyle = Literal["auto", "letters", "yes-no"]
MemoryMode = Literal["auto", "planner", "facts", "off"]
ReasonMode = Literal["auto", "sentence", "facts"]

MOST_OPTIONS = 26
"""Options are labelled with one letter each, so that one token decides and its probability can be read."""

ANSWER_TOKENS = 220
"""Tokens kept free in the context for the longest answer."""

LEAST_PROMPT = 200
"""Tokens below which no prompt says anything useful."""

READY_SECONDS: dict[str, float] = {"llamacpp": 90.0, "llama-cpp-python": 120.0, "vllm": 600.0, "openai": 30.0}
"""How long a backend may take until it answers. vLLM loads, compiles and measures its memory before it does."""

TAKEN = {
    "host": "",
    "port": "",
    "uds": "",
    "config": "",
    "headless": "",
    "grpc": "",
    "root-path": "",
    "ssl-keyfile": "",
    "ssl-certfile": "",
    "served-model-name": "",
    "model-alias": "",
    "config-file": "",
    "api-server-count": "",
    "asc": "",
    "api-key": "",
    "logits-all": "",
    "model": "planner.model",
    "max-model-len": "planner.context",
    "n-ctx": "planner.context",
    "n-threads": "planner.threads",
    "n-threads-batch": "planner.threads",
    "gpu-memory-utilization": "planner.gpu_memory_utilization",
    "enable-sleep-mode": "planner.sleep",
}
"""Flags that `arguments` can't have, with the setting to use instead; "" where the program decides them itself."""


@dataclass(frozen=True, slots=True)
class PlannerSettings:
    """Which LLM plans, and how.

    `backend`: `llamacpp` (xllamacpp in a process of ours), `llama-cpp-python` (its server as our process), `vllm` (`vllm serve`
    as our process, from an environment of its own) or `openai` (a server that runs already). `model`: path of a GGUF file (the
    first two), path or name of a Hugging Face model (`vllm`), or the model's name on the server at `url` (`openai`; empty means
    the first one that it lists). `executable`: the `vllm` command, or the Python that has `llama_cpp`. `arguments`: more flags
    for the server of these two. `adapter`: a LoRA adapter of the model, in GGUF (`llamacpp`).
    `api_key_env` names the environment variable that holds an `openai` server's key.

    `gpu_memory_utilization`: share of the GPU that vLLM takes. `sleep`: whether the planner gives its memory back while steps
    run: `always`, `never`, or `auto`, where they would not fit otherwise. `reasons`: the planner writes a `sentence`, or code
    tells `facts`, which is all that a very small one can do sensibly; `memory` likewise: the `planner` writes it, code does, or
    nobody. `facts`: whether prompts have computed facts in them. `style`: how it is asked to choose; `rotations`: how often the
    options are reordered and asked again. `auto` decides by the planner's size. `think_tokens`: room to think before it answers.

    `context`, `prompt_tokens`, `think_tokens` are tokens, time-outs are seconds; `ready_timeout` 0 means what suits the backend.
    One thread is the default because two spin against each other on a busy machine. Raises LamdatuiError on what can't work.
    """

    backend: Backend = "llamacpp"
    model: str = ""
    url: str = ""
    context: int = 4096
    threads: int = 1
    temperature: float = 0.7
    first_token_timeout: float = 120.0
    idle_timeout: float = 30.0
    total_timeout: float = 300.0
    ready_timeout: float = 0.0
    shortlist: int = 8
    reasons: ReasonMode = "auto"
    prompt_tokens: int = 900
    executable: str = ""
    arguments: tuple[str, ...] = ()
    api_key_env: str = ""
    gpu_memory_utilization: float = 0.3
    sleep: Sleep = "auto"
    think_tokens: int = 0
    style: ChoiceStyle = "auto"
    rotations: int = 3
    memory: MemoryMode = "auto"
    facts: bool = True
    adapter: str = ""

    def __post_init__(self) -> None:
        for name, kind in (
            ("backend", Backend),
            ("sleep", Sleep),
            ("style", ChoiceStyle),
            ("memory", MemoryMode),
            ("reasons", ReasonMode),
        ):
            value, known = getattr(self, name), get_args(kind)
            if value not in known:
                words = f"{', '.join(known[:-1])} or {known[-1]}"
                raise LamdatuiError(f"planner.{name} is {words}, not {value!r}", where="planner")
        if not self.ready_timeout:
            object.__setattr__(self, "ready_timeout", READY_SECONDS[self.backend])
        for name, low, high in (
            ("context", 512, 1 << 20),
            ("threads", 1, 1024),
            ("temperature", 0.0, 5.0),
            ("first_token_timeout", 0.01, 86400.0),
            ("idle_timeout", 0.01, 86400.0),
            ("total_timeout", 0.01, 86400.0),
            ("ready_timeout", 0.01, 86400.0),
            ("shortlist", 2, MOST_OPTIONS),
            ("prompt_tokens", LEAST_PROMPT, 1 << 20),
            ("gpu_memory_utilization", 0.01, 1.0),
            ("think_tokens", 0, 8192),
            ("rotations", 1, 12),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise LamdatuiError(f"planner.{name} is between {low:g} and {high:g}, not {value:g}", where="planner")
        if self.adapter and self.backend != "llamacpp":
            raise LamdatuiError(
                "planner.adapter is for the backend llamacpp only", where="planner", fix="merge it into the model"
            )
        self._check_room()
        self._check_server()
        self._check_arguments()

    def _check_room(self) -> None:
        least = self.think_tokens + ANSWER_TOKENS + LEAST_PROMPT
        if self.context < least:
            raise LamdatuiError(
                f"planner.context ({self.context}) leaves no room for a prompt beside planner.think_tokens ({self.think_tokens})",
                where="planner",
                fix=f"set context to {least} or more, or think_tokens lower",
            )

    def _check_server(self) -> None:
        where = f"planner (backend: {self.backend})"
        if self.backend == "openai":
            if not self.url:
                # Only this mistake needs httpx and a look at the machine.
                from lamdatui.planner.discover import suggestions

                raise LamdatuiError("planner.url is missing", where=where, fix=suggestions())
            if not self.url.startswith(("http://", "https://")):
                raise LamdatuiError(
                    f"planner.url {self.url!r} is no address", where=where, fix="it begins with http:// or https://"
                )
        elif self.url:
            raise LamdatuiError(
                "planner.url is for the backend openai only", where=where, fix="drop url, or set backend: openai"
            )
        elif not self.model:
            fix = "give the path of a GGUF file"
            if self.backend == "vllm":
                fix = "give the folder of a Hugging Face model, or its name if it is in the Hugging Face cache"
            raise LamdatuiError("planner.model is missing", where=where, fix=fix)
        if self.backend == "vllm" and "://" in self.model:
            raise LamdatuiError(
                f"planner.model {self.model!r} is not on this machine",
                where=where,
                fix="give the folder of a Hugging Face model, or its name if it is in the Hugging Face cache",
            )
        if self.backend == "vllm" and self.model.endswith(".gguf"):
            raise LamdatuiError(
                "vLLM takes a Hugging Face model, not a GGUF file",
                where=where,
                fix="give a folder with safetensors, or set backend: llamacpp",
            )

    def _check_arguments(self) -> None:
        where = f"planner (backend: {self.backend})"
        own_server = self.backend in ("vllm", "llama-cpp-python")
        for name, fits, whose in (
            ("executable", own_server, "the backends vllm and llama-cpp-python"),
            ("arguments", own_server, "the backends vllm and llama-cpp-python"),
            ("api_key_env", self.backend == "openai", "the backend openai"),
            ("adapter", self.backend == "llamacpp", "the backend llamacpp"),
        ):
            if getattr(self, name) and not fits:
                raise LamdatuiError(f"planner.{name} is for {whose} only", where=where, fix=f"drop {name}")
        for word in self.arguments:
            flag = word.partition("=")[0].lstrip("-").replace("_", "-")
            if word.startswith("-") and flag.removeprefix("no-") in TAKEN:
                instead = TAKEN[flag.removeprefix("no-")]
                fix = f"set {instead}" if instead else "drop it: the server's address and name are chosen when it starts"
                raise LamdatuiError(f"planner.arguments can't have {word.partition('=')[0]}", where=where, fix=fix)

    @property
    def prompt_budget(self) -> int:
        """Tokens that a prompt may take: `prompt_tokens`, less where the context is smaller."""
        return min(self.prompt_tokens, self.context - ANSWER_TOKENS - self.think_tokens)
