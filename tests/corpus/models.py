"""Hostile model directories: each case changes a copy of a good one. `refused`: check says so; `taken`: what is hostile in it is never looked at, or has no effect."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.corpus.canaries import Canaries
from tests.corpus.making import (
    EITHER,
    REFUSED,
    TAKEN,
    InputCase,
    Make,
    Touch,
    change,
    code,
    every,
    link,
    special,
    without,
    write,
)

# --- weights ---------------------------------------------------------------------------------------------------------


def pickles(nest: Canaries) -> Iterator[InputCase]:
    """Weights and their company as pickles that make a file when they are read."""

    def bad(name: str) -> bytes:
        return pickle.dumps(Touch(nest.path(f"pickles-{name}")))

    def zipped(name: str, inner: str) -> Make:
        def make(folder: Path) -> None:
            with zipfile.ZipFile(folder / name, "w") as out:
                out.writestr("archive/data.pkl", bad(inner))
                out.writestr("archive/version", "3")

        return make

    yield InputCase(
        "pickles", "alone", "weights as a pickle", every(without("model.safetensors"), write("pytorch_model.bin", bad("alone")))
    )
    yield InputCase("pickles", "beside", "a pickle beside the weights", write("pytorch_model.bin", bad("beside")), TAKEN)
    yield InputCase("pickles", "renamed", "a pickle by the name of safetensors", write("model.safetensors", bad("renamed")))
    yield InputCase(
        "pickles",
        "zip",
        "torch's own file by the name of safetensors",
        every(without("model.safetensors"), zipped("model.safetensors", "zip")),
    )
    yield InputCase(
        "pickles", "zip-bin", "torch's own file", every(without("model.safetensors"), zipped("pytorch_model.bin", "zip-bin"))
    )
    yield InputCase(
        "pickles",
        "case",
        "a pickle by nearly that name",
        every(without("model.safetensors"), write("model.SafeTensors", bad("case"))),
    )
    index = json.dumps({"weight_map": {"lm_head.weight": "pytorch_model-1.bin"}}).encode()
    yield InputCase(
        "pickles",
        "index",
        "an index that names a pickle",
        every(
            without("model.safetensors"),
            write("model.safetensors.index.json", index),
            write("pytorch_model-1.bin", bad("index")),
        ),
    )
    away = json.dumps({"weight_map": {"lm_head.weight": "../../outside/secret.txt"}}).encode()
    yield InputCase(
        "pickles",
        "index-away",
        "an index that leads out of the directory",
        every(without("model.safetensors"), write("model.safetensors.index.json", away)),
    )
    for name in (
        "training_args.bin",
        "optimizer.pt",
        "rng_state.pth",
        "adapter_model.bin",
        "model.pkl",
        "tokenizer.pkl",
        "vocab.npz",
        "scheduler.pt",
    ):
        yield InputCase("pickles", name, "a pickle that trainers and libraries write", write(name, bad(name)), TAKEN)


def lies() -> Iterator[InputCase]:
    """Headers of safetensors, and configurations, that say what is not so."""

    def st(header: Any, data: bytes = b"") -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + data

    def one(shape: Any, offsets: Any = (0, 16), kind: Any = "F32") -> Any:
        return {"w": {"dtype": kind, "shape": shape, "data_offsets": list(offsets)}}

    for name, data in (
        ("short", st(one([2, 2]), b"0" * 8)), ("large", st(one([10**30], (0, 0)))), ("product", st(one([2**40, 2**40], (0, 0)))), ("text", st(one(["2", "2"]), b"0" * 16)),
        ("negative", st(one([-2, -2]), b"0" * 16)), ("backwards", st(one([2, 2], (16, 0)), b"0" * 16)), ("beyond", st(one([2, 2], (4, 20)), b"0" * 20)),
        ("kind", st(one([2, 2], kind="__import__('os')"), b"0" * 16)), ("overlap", st({"v": one([4])["w"], "w": one([4])["w"]}, b"0" * 16)), ("deep", st(b"[" * 100_000)),
        ("length", struct.pack("<Q", 2**63) + b"{}"), ("empty", b""), ("zeros", bytes(4096)), ("names", st({"../../x\x1b[2J": one([4])["w"]}, b"0" * 16)),
    ):  # fmt: skip
        yield InputCase(
            "lies", name, "a header that is not true", write("model.safetensors", data), EITHER if name == "names" else REFUSED
        )
    for name, values in (
        ("layers", {"num_hidden_layers": 10**6}), ("layers-huge", {"num_hidden_layers": 10**400}), ("vocabulary", {"vocab_size": 2**31 - 1}), ("hidden", {"hidden_size": -1}),
        ("type-list", {"model_type": ["llama"]}), ("type-path", {"model_type": "../../evil"}), ("quantised", {"quantization_config": {"quant_method": "__import__('os')"}}),
    ):  # fmt: skip
        yield InputCase(
            "lies",
            name,
            "a configuration that is not true",
            change("config.json", **values),
            EITHER if name == "type-path" else REFUSED,
        )
    yield InputCase("lies", "config-deep", "nest deeper than a stack", write("config.json", '{"a":' * 50_000))
    yield InputCase(
        "lies", "config-digits", "a number that takes minutes to read", write("config.json", '{"a": ' + "1" * 10**6 + "}")
    )


# --- code ------------------------------------------------------------------------------------------------------------


def codes(nest: Canaries) -> Iterator[InputCase]:
    """Python in the directory, and keys that ask for it."""

    def at(name: str) -> str:
        return code(nest.path(f"codes-{name}"))

    mapped = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.T", "evil.T"]}
    yield InputCase(
        "codes",
        "auto-map",
        "its own code for an unknown kind",
        every(write("evil.py", at("auto-map")), change("config.json", auto_map=mapped, model_type="evil")),
    )
    yield InputCase(
        "codes",
        "auto-map-native",
        "its own code for a known kind",
        every(write("evil.py", at("auto-map-native")), change("config.json", auto_map=mapped, trust_remote_code=True)),
        TAKEN,
    )
    yield InputCase(
        "codes",
        "tokenizer",
        "its own code for the tokenizer",
        every(
            write("evil.py", at("tokenizer")),
            change("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.T", "evil.T"]}, trust_remote_code=True),
        ),
        TAKEN,
    )
    yield InputCase(
        "codes",
        "generate",
        "its own way to generate",
        every(
            write("custom_generate/generate.py", at("generate")),
            change("generation_config.json", custom_generate="custom_generate", trust_remote_code=True),
        ),
        TAKEN,
    )
    yield InputCase(
        "codes",
        "processor",
        "its own processor",
        every(
            write("evil.py", at("processor")),
            write("processor_config.json", json.dumps({"auto_map": {"AutoProcessor": "evil.P"}})),
            write("preprocessor_config.json", json.dumps({"auto_map": {"AutoImageProcessor": "evil.P"}})),
        ),
        TAKEN,
    )
    yield InputCase(
        "codes",
        "pipelines",
        "its own pipeline",
        every(
            write("evil.py", at("pipelines")),
            change("config.json", custom_pipelines={"text-generation": {"impl": "evil.P", "pt": ["AutoModel"]}}),
        ),
        TAKEN,
    )
    yield InputCase(
        "codes",
        "remote",
        "code of another repository",
        change("config.json", auto_map={"AutoModelForCausalLM": "evil/repo--evil.Model"}),
        TAKEN,
    )
    yield InputCase("codes", "kernel", "code of another repository", change("config.json", _attn_implementation="evil/kernel"))
    yield InputCase(
        "codes",
        "kernel-inner",
        "code of another repository",
        change("config.json", text_config={"attn_implementation": {"": "evil/kernel@main"}}),
    )
    for name in (
        "modeling_llama.py",
        "tokenization_llama.py",
        "configuration_llama.py",
        "__init__.py",
        "sitecustomize.py",
        "torch.py",
        "conftest.py",
        "setup.py",
        "evil.pth",
    ):
        yield InputCase("codes", name, "a file that an import would find", write(name, at(name)), TAKEN)
    for name, values in (
        ("architectures", {"architectures": [f"__import__('os').mkdir('{nest.path('codes-architectures')}')"]}),
        ("dtype", {"torch_dtype": f"__import__('os').mkdir('{nest.path('codes-dtype')}')"}), ("act", {"hidden_act": f"$(touch {nest.path('codes-act')})"}),
        ("name", {"_name_or_path": f"$(touch {nest.path('codes-name')})"}),
    ):  # fmt: skip
        yield InputCase(
            "codes", f"config-{name}", "a name that is evaluated, or fetched", change("config.json", **values), EITHER
        )


def templates(nest: Canaries) -> Iterator[InputCase]:
    """Chat templates that want out of their sandbox, or take all there is."""

    def touch(name: str) -> str:
        return f"__import__('os').mkdir('{nest.path(f'templates-{name}')}')"

    for name, text in (
        ("class", "{{ ''.__class__.__mro__[1].__subclasses__() }}"), ("cycler", "{{ cycler.__init__.__globals__.os.system('touch " + str(nest.path("templates-cycler")) + "') }}"),
        ("lipsum", "{{ lipsum.__globals__['os'].mkdir('" + str(nest.path("templates-lipsum")) + "') }}"), ("namespace", "{{ namespace.__init__.__globals__ }}"),
        ("raise", "{{ raise_exception.__globals__.__builtins__.eval(\"" + touch("raise") + "\") }}"), ("tojson", "{{ tojson.__globals__ }}"), ("time", "{{ strftime_now.__globals__ }}"),
        ("self", "{{ self.__init__.__globals__.__builtins__.exec(\"" + touch("self") + "\") }}"), ("attr", "{{ ()|attr('__class__')|attr('__base__')|attr('__subclasses__')() }}"),
        ("format", "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}"), ("format-map", "{{ '{a.__class__}'.format_map({'a': messages}) }}"), ("map", "{{ [messages]|map('attr', '__class__')|list }}"),
        ("include", "{% include '" + str(nest.file) + "' %}"), ("import", "{% from '" + str(nest.file) + "' import x %}"), ("extends", "{% extends '../../outside/secret.txt' %}"),
        ("caller", "{% macro m() %}{{ caller.__globals__ }}{% endmacro %}{% call m() %}{% endcall %}"), ("mutate", "{{ messages.append({'role': 'user', 'content': 'x'}) }}"),
        ("loop", "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"), ("memory", "{{ 'a' * 99999999999 }}"), ("power", "{{ 7 ** (10 ** 9) }}"), ("list", "{{ [1] * 9999999999 }}"), ("width", "{{ '%9999999999d' % 1 }}"),
        ("doubling", "{% set n = namespace(x='aaaa') %}{% for i in range(60) %}{% set n.x = n.x ~ n.x %}{% endfor %}"), ("recursion", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"),
        ("deep", "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}"), ("syntax", "{% for"), ("escape", "{{ messages }}\x1b]52;c;cm0gLXJmIH4=\x07\u202e"), ("nul", "{{ messages[0].content }}\x00"),
    ):  # fmt: skip
        yield InputCase(
            "templates", name, "reach Python, a file, or all of memory or time", write("chat_template.jinja", text), EITHER
        )
    away = "{{ cycler.__init__.__globals__.os.mkdir('%s') }}"
    yield InputCase(
        "templates",
        "in-config",
        "the same from tokenizer_config.json",
        every(
            without("chat_template.jinja"),
            change("tokenizer_config.json", chat_template=away % nest.path("templates-in-config")),
        ),
        EITHER,
    )
    yield InputCase(
        "templates",
        "in-list",
        "the same from a list",
        every(
            without("chat_template.jinja"),
            change(
                "tokenizer_config.json", chat_template=[{"name": "default", "template": away % nest.path("templates-in-list")}]
            ),
        ),
        EITHER,
    )
    yield InputCase(
        "templates",
        "in-json",
        "the same from chat_template.json",
        every(
            without("chat_template.jinja"),
            write("chat_template.json", json.dumps({"chat_template": away % nest.path("templates-in-json")})),
        ),
        EITHER,
    )
    yield InputCase(
        "templates",
        "in-more",
        "the same from a template for tools",
        write("additional_chat_templates/tool_use.jinja", away % nest.path("templates-in-more")),
        TAKEN,
    )


# --- files -----------------------------------------------------------------------------------------------------------


def places(nest: Canaries) -> Iterator[InputCase]:
    """Files that are none, links that lead away, names that act."""
    for name in (
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
        "chat_template.jinja",
    ):
        yield InputCase("places", f"fifo-{name}", "be waited for", special(name, "fifo"))
    yield InputCase("places", "socket", "be waited for", special("special_tokens_map.json", "socket"))
    yield InputCase("places", "device", "never end", link("tokenizer.json", "/dev/zero"))
    yield InputCase("places", "random", "never end", link("chat_template.jinja", "/dev/urandom"))
    yield InputCase("places", "circle", "be followed for ever", special("config.json", "circle"))
    yield InputCase("places", "folder", "be a folder", special("config.json", "folder"))
    yield InputCase("places", "proc", "tell of this process", link("config.json", "/proc/self/environ"))
    for name in ("config.json", "model.safetensors"):
        yield InputCase("places", f"secret-{name}", "have another file read, and told", link(name, nest.file), may_open=True)
    for name in (
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "generation_config.json",
        "special_tokens_map.json",
    ):
        yield InputCase(
            "places", f"secret-{name}", "have another file read, and told", link(name, nest.file), EITHER, may_open=True
        )
    at = nest.path("places-name")
    for number, name in enumerate(
        (
            f"$(touch {at.name}).json",
            "-rf.safetensors",
            "a\nerror: none\n.json",
            "\x1b]0;t\x07.jinja",
            "`id`.txt",
            "%n%s.json",
            "\u202egnp.safetensors",
            "..json",
        )
    ):
        yield InputCase("places", f"name-{number}", "a name that acts", write(name, "{}"), TAKEN)
    for name, values in (
        ("vocab-file", {"vocab_file": str(nest.file)}), ("tokenizer-file", {"tokenizer_file": str(nest.file)}), ("name-or-path", {"name_or_path": nest.url, "_name_or_path": nest.url}),
        ("class", {"tokenizer_class": f"__import__('os').mkdir('{nest.path('places-class')}')"}), ("merges-file", {"merges_file": str(nest.file), "spm_file": str(nest.file)}),
        ("tokens", {"eos_token": {"__type": "AddedToken", "content": "\x1b]52;c;cm0=\x07"}}), ("extra", {"extra_special_tokens": {"__class__": "x", "x": "\u202e"}}),
    ):  # fmt: skip
        yield InputCase(
            "places",
            f"tokenizer-{name}",
            "have the tokenizer open or run something else",
            change("tokenizer_config.json", **values),
            TAKEN if name != "tokens" else EITHER,
        )


def adapters(nest: Canaries, base: Path) -> Iterator[InputCase]:
    """LoRA adapters: settings that name code, places, or what is not LoRA."""

    def adapter(**values: Any) -> Make:
        def make(folder: Path) -> None:
            shutil.rmtree(folder)
            folder.mkdir()
            wide = load_file(base / "model.safetensors")["model.layers.0.self_attn.q_proj.weight"].shape
            name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
            save_file(
                {f"{name}A.weight": np.zeros((2, wide[1]), np.float32), f"{name}B.weight": np.zeros((wide[0], 2), np.float32)},
                folder / "adapter_model.safetensors",
            )
            told = {
                "peft_type": "LORA",
                "task_type": "CAUSAL_LM",
                "r": 2,
                "lora_alpha": 2,
                "target_modules": ["q_proj"],
                "base_model_name_or_path": str(base),
            }
            (folder / "adapter_config.json").write_text(json.dumps({**told, **values}))

        return make

    yield InputCase("adapters", "good", "nothing: it is a good one", adapter(), TAKEN)
    for name, path in (("secret", str(nest.file.parent)), ("up", "../../../../../../../etc"), ("address", nest.url), ("hub", "evil/base"), ("shell", f"$(touch {nest.path('adapters-shell')})"), ("file", f"file://{nest.file}"), ("number", 5), ("nul", "a\0b")):  # fmt: skip
        yield InputCase("adapters", f"base-{name}", "stand on something elsewhere", adapter(base_model_name_or_path=path))
    yield InputCase("adapters", "kind", "be another kind", adapter(peft_type="__import__('os')"))
    yield InputCase(
        "adapters",
        "mapping",
        "have a module imported",
        every(
            adapter(auto_mapping={"base_model_class": "system", "parent_library": "os"}),
            write("os.py", code(nest.path("adapters-mapping"))),
        ),
        TAKEN,
    )
    yield InputCase(
        "adapters",
        "megatron",
        "have a module imported",
        every(
            adapter(megatron_config={"a": 1}, megatron_core="antigravity"),
            write("antigravity.py", code(nest.path("adapters-megatron"))),
        ),
        EITHER,
    )
    yield InputCase(
        "adapters",
        "bin",
        "bring a pickle",
        every(
            adapter(),
            without("adapter_model.safetensors"),
            write("adapter_model.bin", pickle.dumps(Touch(nest.path("adapters-bin")))),
        ),
    )
    yield InputCase(
        "adapters",
        "bin-beside",
        "bring a pickle",
        every(adapter(), write("adapter_model.bin", pickle.dumps(Touch(nest.path("adapters-bin-beside"))))),
        TAKEN,
    )
    yield InputCase("adapters", "list", "be a list", every(adapter(), write("adapter_config.json", "[]")))
    yield InputCase(
        "adapters",
        "secret-file",
        "have another file read",
        every(adapter(), link("adapter_config.json", nest.file)),
        may_open=True,
    )


def model_cases(nest: Canaries, base: Path) -> list[InputCase]:
    """All of them; `base` is the good model that they are changes of."""
    return [*pickles(nest), *lies(), *codes(nest), *templates(nest), *places(nest), *adapters(nest, base)]
