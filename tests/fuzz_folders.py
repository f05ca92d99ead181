"""Wrong files in folders and databases for their readers: model directories, run.db, the store, checkpoints."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

from lamdatui.base.errors import LamdatuiError
from lamdatui.base.jsonio import SEAL, Damaged, canonical, sealed
from lamdatui.cli.runchecks import doctor_run
from lamdatui.cli.show import print_run, summary
from lamdatui.inputs.adapterfiles import check_adapter, find_base
from lamdatui.inputs.modelfiles import inspect_model, model_kind, read_tensors
from lamdatui.inputs.templatechecks import Look, of_model
from lamdatui.inputs.templates import read_template
from lamdatui.store.artifacts import Store
from lamdatui.store.audit import audit, projection_problem
from lamdatui.store.checkpoints import Checkpoints, folder_of
from lamdatui.store.journal import Journal, read_run, read_state
from lamdatui.store.schema import link
from lamdatui.wire.answers import answers, reference_text
from tests.fuzz import Make, Read, Target
from tests.landed import unpack
from tests.mutators import mutate, reshape, wrong_json
from tests.test_checkpoint_faults import take

Json = dict[str, Any]
MOST_BYTES = 20_000
"""Of a file of weights that is copied: its header and some of its tensors."""


def _replace(path: Path, data: bytes | None) -> None:
    """Put other bytes in a file's place, or nothing."""
    path.unlink(missing_ok=True)
    if data is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


class Restored:
    """A folder in which each case finds the files that are there at first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}
        self._changed: set[str] = set()

    def change(self, changes: dict[str, bytes | None]) -> None:
        """Have these files in place of the first ones."""
        self.again()
        for name, data in changes.items():
            _replace(self.folder / name, data)
        self._changed = set(changes)

    def again(self) -> None:
        """As it was."""
        for path in sorted(self.folder.rglob("*"), reverse=True):
            name = str(path.relative_to(self.folder))
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):
                    path.rmdir()
            elif name not in self.files or path.stat().st_size != len(self.files[name]):
                path.unlink()
        for name, data in self.files.items():
            if name in self._changed or not (self.folder / name).exists():
                _replace(self.folder / name, data)
        self._changed = set()


def _wrong_file(dice: random.Random, name: str, data: bytes, others: list[bytes]) -> bytes | None:
    """A file's bytes, changed in the way that suits it."""
    if dice.random() < 0.03:
        return dice.choice((None, b""))
    if name.endswith((".json", ".jsonl")) and data[:1] == b"{" and dice.random() < 0.8:
        return wrong_json(dice, [json.loads(data.split(b"\n")[0] if name.endswith(".jsonl") else data)])
    if name.endswith(".safetensors") and data[8:9] == b"{":
        return _wrong_weights(dice, data)
    return mutate(dice, data, others)


def _wrong_weights(dice: random.Random, data: bytes) -> bytes:
    """A safetensors file with another header, or with other bytes."""
    if dice.random() < 0.2:
        return mutate(dice, data)
    (length,) = struct.unpack("<Q", data[:8])
    header = wrong_json(dice, [json.loads(data[8 : 8 + length])])
    told = dice.choice((len(header), len(header), len(header), length, 0, 2**40, 2**64 - 1))
    return struct.pack("<Q", told) + header + data[8 + length :]


# --- models ----------------------------------------------------------------------------------------------------------


def models(folder: Path) -> tuple[Make, Read]:
    """A model directory and an adapter's: all that `check` looks at before anything runs."""
    base = folder / "base"
    base.mkdir()
    for name, data in _model().items():
        (base / name).write_bytes(data)
    adapter = folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "../base", "r": 2, "fan_in_fan_out": False})
    )
    shapes = {"lora_A": [2, 8], "lora_B": [8, 2]}
    parts = {f"base_model.model.model.layers.0.self_attn.q_proj.{part}.weight": shape for part, shape in shapes.items()}
    (adapter / "adapter_model.safetensors").write_bytes(_weights(parts))
    whole = Restored(folder)
    row = {"prompt": [{"role": "user", "content": "q"}], "completion": [{"role": "assistant", "content": "a"}]}

    def make(dice: random.Random) -> dict[str, bytes | None]:
        names = dice.sample(sorted(whole.files), dice.choice((1, 1, 2)))
        found = {name: _wrong_file(dice, name, whole.files[name], list(whole.files.values())) for name in names}
        if dice.random() < 0.1:
            name = dice.choice(
                (
                    "base/model.safetensors.index.json",
                    "base/special_tokens_map.json",
                    "base/chat_template.json",
                    "base/vocab.json",
                    "base/x.safetensors",
                )
            )
            value = {
                "weight_map": {"lm_head.weight": "model.safetensors"},
                "eos_token": {"content": "x"},
                "chat_template": [{"name": "default", "template": "x"}],
            }
            found[name] = wrong_json(dice, [value])
        return found

    def read(changes: dict[str, bytes | None]) -> None:
        whole.change(changes)
        on = find_base(adapter, "") if any(name.startswith("adapter/") for name in changes) else base
        info = inspect_model(on)
        canonical([info.digest, info.older, info.traits, list(info.sizes), info.layout, info.architecture, info.parameters])
        model_kind(on)
        template = read_template(on)
        canonical(template.identity())
        look = Look(template)
        look.add(row)
        for note in [*of_model(template), *look.notes()]:
            note.detail.encode("utf-8", "backslashreplace")
        check_adapter(adapter, read_tensors(on))

    return make, read


def _weights(shapes: dict[str, list[int]]) -> bytes:
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4
        for each in shape:
            size *= each
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def _model() -> dict[str, bytes]:
    """The smallest model directory that is taken."""
    config = {
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 6, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 2, "intermediate_size": 16, "max_position_embeddings": 64, "rope_theta": 10000.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        "tie_word_embeddings": False, "eos_token_id": 2,
    }  # fmt: skip
    tokens = {"<pad>": 0, "a": 1, "</s>": 2, "q": 3, "b": 4, "x": 5}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None,
        "added_tokens": [{"id": 2, "content": "</s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}],
        "model": {"type": "BPE", "dropout": None, "unk_token": "<pad>", "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
                  "byte_fallback": False, "vocab": tokens, "merges": []},
    }  # fmt: skip
    shapes = {"model.embed_tokens.weight": [6, 8], "model.layers.0.self_attn.q_proj.weight": [8, 8], "lm_head.weight": [6, 8]}
    return {
        "config.json": json.dumps(config).encode(),
        "generation_config.json": b'{"eos_token_id": [2], "repetition_penalty": 1.0, "bad_words_ids": null}',
        "tokenizer.json": json.dumps(tokenizer).encode(),
        "tokenizer_config.json": json.dumps(
            {"eos_token": "</s>", "pad_token": {"content": "<pad>"}, "chat_template": None}
        ).encode(),
        "chat_template.jinja": b"{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}{% if m.role == 'assistant' %}</s>{% endif %}\n{% endfor %}"
        b"{% if add_generation_prompt %}assistant: {% endif %}",
        "model.safetensors": _weights(shapes),
    }


# --- run.db ----------------------------------------------------------------------------------------------------------


def databases(folder: Path) -> tuple[Make, Read]:
    """A run's database: bytes of its pages, rows with other values whose hashes fit again, other tables; and what `show` and `doctor` say of it."""
    runs = _runs(folder)
    run_dir = runs / "finished"
    path = run_dir / "run.db"
    with contextlib.closing(Journal(path)) as journal:
        journal._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        journal._db.execute("PRAGMA journal_mode=DELETE").fetchall()
    sound = path.read_bytes()
    with contextlib.closing(apsw.Connection(str(path))) as db:
        rows = list(db.execute("SELECT seq, kind, wall, mono, data FROM events ORDER BY seq"))
        ((body,),) = db.execute("SELECT body FROM projections WHERE name = 'run'")
    datas = [json.loads(row[4]) for row in rows]

    def make(dice: random.Random) -> bytes:
        how = dice.random()
        if how < 0.3:
            return mutate(dice, sound, [sound]) if how < 0.1 else _flipped(dice, sound)
        return _rewritten(dice, path.parent / "made.db", sound, rows, datas, body)

    def read(data: bytes) -> None:
        for name in ("run.db", "run.db-wal", "run.db-shm", "run.db-journal", "made.db"):
            (run_dir / name).unlink(missing_ok=True)
        path.write_bytes(data)
        _all_of(
            lambda: canonical(read_state(path).run_json()),
            lambda: summary(run_dir, False),
            lambda: read_run(path),
            lambda: projection_problem(audit(path)),
            lambda: _printed(runs, planner=False, as_json=True),
            lambda: _printed(runs, planner=False, as_json=False),
            lambda: _printed(runs, planner=True, as_json=False),
            lambda: _looked_at(runs),
            lambda: Journal(path).close(),
        )

    return make, read


def _runs(folder: Path) -> Path:
    place = unpack(folder)
    # What a profile names relative to where a command is given.
    os.chdir(place / "project")
    return place / "runs"


def _flipped(dice: random.Random, data: bytes) -> bytes:
    """Some bytes of a few pages, the header's and the roots' most often."""
    found = bytearray(data)
    for _ in range(dice.choice((1, 2, 8))):
        place = dice.choice(
            (dice.randrange(100), dice.randrange(len(found)), dice.randrange(len(found) // 4096) * 4096 + dice.randrange(12))
        )
        found[place] = dice.choice((0, 255, found[place] ^ 1 << dice.randrange(8), dice.randrange(256)))
    return bytes(found)


def _rewritten(dice: random.Random, path: Path, sound: bytes, rows: list[Any], datas: list[Any], body: str) -> bytes:
    """A database whose events say something else, and mostly have hashes that fit."""
    _replace(path, sound)
    changed = [list(row) for row in rows]
    for _ in range(dice.choice((1, 1, 2, 3))):
        place = dice.randrange(len(changed))
        match dice.randrange(8):
            case 0:
                del changed[place]
            case 1:
                changed[place][1] = dice.choice(rows)[1]
            case 2:
                changed[place][dice.choice((2, 3))] = dice.choice((0, -1, 1e300, "x", b"\xff", 2**60, None, float("inf")))
            case 3:
                changed[place][4] = wrong_json(dice, [datas[place % len(datas)]])
            case _:
                data = datas[min(place, len(datas) - 1)]
                changed[place][4] = json.dumps(json.loads(json.dumps(reshape(dice, data, datas))))
        if not changed:
            break
    with contextlib.closing(apsw.Connection(str(path))) as db, contextlib.suppress(apsw.Error), db:
        db.execute("DELETE FROM events; DELETE FROM chain")
        before, fits = "", dice.random() < 0.9
        for number, row in enumerate(changed, 1):
            seq, kind, wall, mono, data = row
            text = data if isinstance(data, str) else data.decode("utf-8", "replace" if dice.random() < 0.9 else "ignore")
            stored = (number if fits else seq, kind, wall, mono, text)
            with contextlib.suppress(apsw.Error):
                db.execute("INSERT INTO events VALUES (?,?,?,?,?)", stored)
                [kept] = db.execute("SELECT seq, kind, wall, mono, data FROM events WHERE seq = ?", (stored[0],))
                before = link(before, kept)
                db.execute("INSERT INTO chain VALUES (?,?)", (stored[0], before))
        if dice.random() < 0.3:
            record = {name: value for name, value in json.loads(body).items() if name != SEAL}
            shaped = json.loads(json.dumps(reshape(dice, record, [record])))
            told = (
                json.dumps(sealed(shaped) if isinstance(shaped, dict) else shaped)
                if dice.random() < 0.7
                else wrong_json(dice, [record]).decode("utf-8", "replace")
            )
            db.execute("UPDATE projections SET body = ?", (told,))
        if dice.random() < 0.15:
            statements = (
                "DROP TABLE projections", "DROP TABLE chain", "PRAGMA user_version=1", "PRAGMA user_version=9", "PRAGMA user_version=-1", "DELETE FROM projections",
                "ALTER TABLE events ADD COLUMN more", "ALTER TABLE events RENAME COLUMN data TO said", "CREATE VIEW v AS SELECT 1", "DROP TABLE chain; PRAGMA user_version=1",
                "DROP TABLE events; CREATE VIEW events AS SELECT 1 AS seq, 2 AS kind, 3 AS wall, 4 AS mono, 5 AS data", "INSERT INTO projections VALUES ('trial', '1', '{}')",
                "INSERT INTO projections VALUES ('run', 'other', '[]')", "UPDATE chain SET hash = x'ff'", "DELETE FROM events",
            )  # fmt: skip
            db.execute(dice.choice(statements))
    return path.read_bytes()


def _all_of(*looks: Callable[[], Any]) -> None:
    """Do all: a refusal by one keeps none of the others from being tried. Raises the first refusal."""
    refused: list[LamdatuiError] = []
    for look in looks:
        try:
            look()
        except LamdatuiError as error:
            refused.append(error)
    if refused:
        raise refused[0]


def _printed(runs: Path, **how: bool) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        print_run("finished", runs, planner=how["planner"], as_json=how["as_json"])


def _looked_at(runs: Path, *, repair: bool = False) -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        doctor_run("finished", runs, repair=repair, quick=False, as_json=False)


# --- the store -------------------------------------------------------------------------------------------------------


def stores(folder: Path) -> tuple[Make, Read]:
    """Objects, manifests and evaluations of a run's store, with seals that fit and without any; and what reads answers from them."""
    runs = _runs(folder)
    store_dir = runs / "store"
    for file in store_dir.rglob("*.safetensors"):
        if file.stat().st_size > MOST_BYTES:
            _shorten(file)
    with contextlib.closing(Journal(runs / "finished" / "run.db")):
        pass
    state = read_state(runs / "finished" / "run.db")
    Store(store_dir).sweep()
    whole = Restored(store_dir)
    digests = sorted({name.split("/")[1] for name in whole.files if name.startswith("objects/")})
    keys = sorted(Path(name).stem for name in whole.files if name.startswith("evaluations/"))
    told = [name for name in whole.files if name.endswith(("manifest.json",)) or name.startswith("evaluations/")]
    scored = [(model, task, split) for model, tasks in state.keys.items() for task, splits in tasks.items() for split in splits]

    def make(dice: random.Random) -> tuple[dict[str, bytes | None], tuple[str, str, str]]:
        found: dict[str, bytes | None] = {}
        for name in dice.sample(told, dice.choice((1, 1, 2))) if dice.random() < 0.85 else [dice.choice(list(whole.files))]:
            data = whole.files[name]
            found[name] = (
                _wrong_record(dice, data) if name in told and dice.random() < 0.7 else _wrong_file(dice, name, data, [data])
            )
        return found, dice.choice(scored)

    def read(case: tuple[dict[str, bytes | None], tuple[str, str, str]]) -> None:
        changes, (model, task, split) = case
        whole.change(changes)
        store = Store(store_dir)
        looks: list[Callable[[], Any]] = []
        for name in changes:
            if (digest := name.split("/")[1]) in digests:
                looks += [
                    lambda digest=digest: store.find(digest),
                    lambda digest=digest: store.problem(digest),
                    lambda digest=digest: store.resolve(f"store:{digest}"),
                ]
                looks += [lambda digest=digest: _or_damaged(lambda: store.verify(digest))]
            key = Path(name).stem
            if key in keys:
                place = (
                    next(place for place in scored if state.keys[place[0]][place[1]][place[2]] == key)
                    if key in str(state.keys)
                    else (model, task, split)
                )
                looks += [
                    lambda place=place: [(reference_text(one), one.kinds) for one in answers(runs / "finished", state, *place)]
                ]
        looks += [lambda: _looked_at(runs)]
        for name in changes:
            if (key := Path(name).stem) in keys:
                looks += [lambda key=key: store.evaluation(key)]
            if (digest := name.split("/")[1]) in digests:
                looks += [
                    lambda digest=digest: _or_damaged(lambda: store.drop(digest)),
                    lambda digest=digest: _or_damaged(lambda: store.dropped(digest)),
                ]
        _all_of(*looks)

    return make, read


def _or_damaged(look: Callable[[], Any]) -> Any:
    """What a look gives; None where it says that nothing is there, or what is there is damaged."""
    try:
        return look()
    except (OSError, Damaged):
        return None


def _shorten(file: Path) -> None:
    """Fewer weights, with a manifest that fits."""
    from lamdatui.base.jsonio import read_record, write_record
    from lamdatui.store.artifacts import OLDER_MANIFEST, file_hash

    file.write_bytes(_weights({"w": [2, 2]}))
    about = read_record(file.parent / "manifest.json", OLDER_MANIFEST)
    about["files"][file.name] = {"size": file.stat().st_size, "blake2b": file_hash(file)}
    write_record(file.parent / "manifest.json", about)


def _wrong_record(dice: random.Random, data: bytes) -> bytes:
    """A record that says something else, with a seal that fits, or without one, as the first version wrote it."""
    record = {name: value for name, value in json.loads(data).items() if name != SEAL}
    shaped = json.loads(json.dumps(reshape(dice, record, [record])))
    if isinstance(shaped, dict) and dice.random() < 0.6:
        with contextlib.suppress(ValueError):
            shaped = sealed(shaped)
    return json.dumps(shaped).encode()


# --- checkpoints -----------------------------------------------------------------------------------------------------


def checkpoints(folder: Path) -> tuple[Make, Read]:
    """Two checkpoints of a work: whatever is wrong with one, the newest whole one is found, or none."""
    assert take(folder, 5, 10) == 0
    shutil.rmtree(folder / "written", ignore_errors=True)
    whole = Restored(folder)
    work = str(folder_of(folder, "d" * 64).relative_to(folder))

    def make(dice: random.Random) -> dict[str, bytes | None]:
        names = dice.sample(sorted(whole.files), dice.choice((1, 1, 2)))
        found: dict[str, bytes | None] = {}
        for name in names:
            data = whole.files[name]
            found[name] = (
                _wrong_record(dice, data)
                if name.endswith("manifest.json") and dice.random() < 0.8
                else _wrong_file(dice, name, data, [data])
            )
        if dice.random() < 0.1:
            found[
                f"{work}/{dice.choice(('7', '٣', '²', '007', 'x', '-1', '9' * 100, '9' * 5000 if dice.random() < 0 else '11'))}/manifest.json"
            ] = b"{}"
        return found

    def read(changes: dict[str, bytes | None]) -> None:
        whole.change(changes)
        said: list[str] = []
        kept = Checkpoints(folder, "d" * 64, 0.0, said.append, lambda: False)
        found = kept.newest()
        if found is not None:
            kept.restore(found)
        canonical(said)

    return make, read


TARGETS: dict[str, Target] = {
    "model": Target(models, whole=10_000),
    "run.db": Target(databases, whole=10_000),
    "store": Target(stores, whole=10_000),
    "checkpoint": Target(checkpoints, whole=10_000),
}
