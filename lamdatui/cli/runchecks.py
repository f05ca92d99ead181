"""`lamdatui doctor RUN`: what of a run and of its objects in the store is damaged, and its repair.

Each look gives findings; one that can be repaired carries its repair, which says in a line what it did. After a repair of the record everything is looked at
again: what else there is to do depends on it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamdatui.base.errors import EXIT_FAILED, LamdatuiError
from lamdatui.base.faults import fault
from lamdatui.base.fingerprint import Say
from lamdatui.base.jsonio import Damaged, fsync_dir, read_record, write_atomic
from lamdatui.base.output import complain, say, say_json
from lamdatui.base.paths import private
from lamdatui.cli.findings import Finding, Status
from lamdatui.domain.objects import object_from_json, stored
from lamdatui.domain.state import RunState
from lamdatui.engine.integrity import maker
from lamdatui.inputs.profile import Profile, dump_profile, load_profile
from lamdatui.step.files import CLAIM, OUTCOME, attempt_directory, read_claim
from lamdatui.store.artifacts import OLDER_EVALUATION, Store, file_hash
from lamdatui.store.audit import TEMPORARY, Audit, aside, audit, cut, is_as_made, projection_problem, rebuild, switch
from lamdatui.store.journal import REPAIRED, newer_run, told_newer
from lamdatui.store.schema import SCHEMA_VERSION
from lamdatui.tasks.stats import summary
from lamdatui.wire import rundir

ROUNDS = 4
"""Looks at most: what a repair brings to light is repaired, too."""
TOLD_BYTES = 256 * 2**20
"""Reading files of at least this size is told."""
MIB = 2**20
Mend = Callable[[], str]


@dataclass(frozen=True, slots=True)
class Look:
    """A finding, and its repair where there is one. `first`: it has to be repaired before anything else is looked at again."""

    finding: Finding
    mend: Mend | None = None
    first: bool = False


@dataclass(slots=True)
class Examination:
    """Of one run. `alive`: an engine is at work on it."""

    run_dir: Path
    alive: bool
    quick: bool
    say: Say
    sound: set[str] = field(default_factory=set)
    """Objects whose bytes were read and are right: they are not read again after a repair."""

    @property
    def _db(self) -> Path:
        return self.run_dir / "run.db"

    @property
    def _store(self) -> Path:
        return self.run_dir.parent / "store"

    def looks(self) -> Iterator[Look]:
        """Everything, in the order in which it is repaired."""
        if self.alive:
            yield _look("info", "engine", "an engine is at work on this run")
        if self._db.with_name(REPAIRED).exists():
            detail = "a repair was broken off before the repaired file had its place"
            yield Look(
                _bad("record", detail),
                lambda: f"the repaired record is in its place; the old one is {switch(self._db).name}",
                True,
            )
            return
        try:
            found = audit(self._db)
        except LamdatuiError as error:
            yield _look("bad", "record", f"{error.what}: nothing of it can be read", "put a copy of the file back")
            return
        yield from self._record(found)
        yield from self._profile(found.state)
        yield from self._evaluations(found.state)
        yield from self._objects(found.state)
        yield from self._leftovers()
        if not self.alive:
            yield from self._steps(found.state)

    def _record(self, found: Audit) -> Iterator[Look]:
        state = found.state
        if state.newer:
            yield _look("warn", "version", told_newer(state).removeprefix("note: "), "use that version, or a newer one")
        elif 0 < found.version < SCHEMA_VERSION:
            yield _look(
                "info", "version", f"layout {found.version}; it becomes {SCHEMA_VERSION} when an engine goes on with it"
            )
        if found.problems:
            detail = f"SQLite finds {len(found.problems)} problems: {'; '.join(found.problems)}"
            yield Look(_bad("database", detail[:400]), self._cut(found), True)
        else:
            yield _look("ok", "database", f"sound, {self._db.stat().st_size / MIB:.1f} MiB")
        if found.broken:
            detail = f"{found.broken}; {found.whole} events before it are whole{_lost(found)}"
            yield Look(_bad("record", detail), None if found.problems else self._cut(found), True)
        else:
            yield _look("ok", "record", f"{found.whole} events, {len(state.trials)} trials")
        if not found.is_sound or state.newer:
            return
        if problem := projection_problem(found):
            yield Look(_bad("summary", f"the summary of the run is not what its events say: {problem}"), self._rebuild, True)
        else:
            how = "the same as from the events, bit for bit" if is_as_made(found) else "as an older version made it"
            yield _look("ok", "summary", how)

    def _cut(self, found: Audit) -> Mend | None:
        """Nothing is made of no event: a copy of the file may still be somewhere."""
        if not found.whole:
            return None
        return lambda: (
            f"the record was made anew of its {found.whole} whole events{_lost(found)}; the old file is {cut(self._db, found.whole).name}"
        )

    def _rebuild(self) -> str:
        rebuild(self._db)
        return "the summary was made again from the events"

    def _profile(self, state: RunState) -> Iterator[Look]:
        path = self.run_dir / "profile.yaml"
        if not state.profile:
            return
        if not path.exists():
            try:
                recorded = Profile.model_validate(state.profile)
            except ValueError:
                yield _look("bad", "profile", "profile.yaml is not there", "put the file back")
                return
            yield Look(_bad("profile", "profile.yaml is not there"), lambda: self._write(path, recorded))
            return
        try:
            now = load_profile(path).search_digest()
        except LamdatuiError as error:
            fix = "put a copy back, or move it away: --repair writes what is on record"
            yield _look("bad", "profile", f"profile.yaml can't be read: {error.what}", fix)
            return
        if now == state.profile_digest or now == _digest(state.profile):
            yield _look("ok", "profile", "as it was when the run began")
        else:
            fix = "put it back as it was, or move it away: --repair writes what is on record"
            yield _look("bad", "profile", "profile.yaml is not what the run began with", fix)

    def _write(self, path: Path, recorded: Profile) -> str:
        write_atomic(path, dump_profile(recorded))
        return "profile.yaml was written as it is on record"

    def _evaluations(self, state: RunState) -> Iterator[Look]:
        whole = 0
        for model, task, split, key, score in _scores(state):
            subject = f"score of {model}"
            place = f"{task} ({split})"
            try:
                rows = read_record(self._store / "evaluations" / f"{key}.json", OLDER_EVALUATION)
                if rows.get("key") != key:
                    raise Damaged("it is of another key")
                made = summary([row["score"] for row in rows["rows"]])
            except FileNotFoundError:
                yield _look("warn", subject, f"{place}: its evaluation is not there; it is made again when the run needs it")
                continue
            except (OSError, ValueError, KeyError, TypeError) as error:
                yield Look(
                    _bad(subject, f"{place}: its evaluation is damaged ({error})"), self._refuse(key, f"{model} on {place}")
                )
                continue
            if (made["mean"], made["n"]) != (score["mean"], score["n"]):
                detail = f"{place}: its rows give {made['mean']} (n={made['n']}), on record is {score['mean']} (n={score['n']})"
                yield _look(
                    "bad",
                    subject,
                    detail,
                    "if its model was made again, both were measured; else put a copy of the evaluation back",
                )
                continue
            whole += 1
        if whole:
            yield _look("ok", "evaluations", f"{whole} are there and agree with the scores on record")

    def _refuse(self, key: str, told: str) -> Mend:
        def mend() -> str:
            Store(self._store).refuse_evaluation(key)
            return f"the evaluation of {told} was put aside; it is made again when the run needs it"

        return mend

    def _objects(self, state: RunState) -> Iterator[Look]:
        named = _objects(state)
        read = 0
        for at, (digest, name) in enumerate(named.items(), 1):
            subject, place = f"object {name}", self._store / "objects" / digest
            if not place.exists():
                trial = maker(state, digest)
                if name in state.lost:
                    yield _look("warn", subject, f"it is lost: {state.lost[name]}")
                elif name in state.dropped:
                    yield _look(
                        "info", subject, "its weights went to keep within disk_gib; they are made again when they are needed"
                    )
                elif trial is not None or name in state.baselines:
                    yield _look("warn", subject, "it is not in the store; it is made again when it is needed")
                else:
                    yield _look(
                        "bad",
                        subject,
                        "it is not in the store, and no trial of this run made it",
                        "put a copy of the store back",
                    )
                continue
            wrong = [] if digest in self.sound else self._wrong(digest, f"{name}, {at} of {len(named)}")
            if wrong:
                yield Look(_bad(subject, f"damaged in the store: {', '.join(wrong)[:300]}"), self._put_aside(digest, name))
                continue
            self.sound.add(digest)
            read += 1
        if read:
            yield _look(
                "ok", "objects", f"{read} are {'of the right size' if self.quick else 'what was published, to the byte'}"
            )

    def _wrong(self, digest: str, told: str) -> list[str]:
        """Files of an object that are not what was published."""
        store = Store(self._store, always=True)
        if self.quick:
            return [] if store.find(digest) is not None else ["sizes are not those of its manifest"]

        def hasher(file: Path) -> str:
            if (size := file.stat().st_size) >= TOLD_BYTES:
                self.say(f"reading {told}: {file.name} ({size / 2**30:.1f} GiB)")
            return file_hash(file)

        try:
            return store.verify(digest, hasher)
        except (OSError, Damaged) as error:
            return [f"its manifest ({error})"]

    def _put_aside(self, digest: str, name: str) -> Mend:
        def mend() -> str:
            place = Store(self._store).put_aside(digest)
            return f"{name} was put aside as {place.parent.name}/{place.name}" if place else f"{name} is gone already"

        return mend

    def _leftovers(self) -> Iterator[Look]:
        left = Store(self._store).sweep(look=True) if self._store.is_dir() else 0
        folders = [] if self.alive else sorted(self.run_dir.glob(f"{TEMPORARY}*"))
        if not left and not folders:
            yield _look("ok", "leftovers", "none of processes that were killed")
            return

        def mend() -> str:
            for path in folders:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            swept = Store(self._store).sweep() if left else 0
            return f"{swept + len(folders)} leftovers of killed processes were removed"

        yield Look(Finding("warn", "leftovers", f"{left + len(folders)} of processes that were killed", _FIX), mend)

    def _steps(self, state: RunState) -> Iterator[Look]:
        for key, step in state.steps.items():
            if step.status not in ("intended", "running"):
                continue
            folder = attempt_directory(self.run_dir, key)
            if (folder / OUTCOME).exists():
                yield _look("info", f"step {key}", "it has ended; the next engine records that")
            elif (pid := _working(folder)) is not None:
                yield _look("info", f"step {key}", f"process {pid} still works on it; the next engine follows it")
            else:
                yield _look("warn", f"step {key}", "its process is gone; the next engine closes it and goes on")
        unknown = [key for key in _attempts(self.run_dir) if key not in state.steps]
        for key in unknown:
            detail = "the record does not know this attempt: its outcome would be taken for another one's"
            pid = _working(self.run_dir / "steps" / key)
            if pid is not None:
                yield _look("bad", f"step {key}", f"{detail}; process {pid} still works on it", "wait for its end, or end it")
            else:
                yield Look(_bad(f"step {key}", detail), self._move(key))

    def _move(self, key: str) -> Mend:
        def mend() -> str:
            source = self.run_dir / "steps" / key
            target = aside(self.run_dir / "steps.broken" / key, "from")
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(source, target)
            fsync_dir(target.parent)
            fsync_dir(source.parent)
            return f"the attempt {key} was put aside as {target.relative_to(self.run_dir)}"

        return mend


_FIX = "lamdatui doctor RUN --repair"


def _look(status: Status, subject: str, detail: str, fix: str = "") -> Look:
    return Look(Finding(status, subject, detail, fix))


def _bad(subject: str, detail: str) -> Finding:
    return Finding("bad", subject, detail, _FIX)


def _lost(found: Audit) -> str:
    """`; lost: 12 events, trials 3, 4`."""
    if not found.broken:
        return ""
    trials = f", of trials {', '.join(map(str, found.lost_trials))}" if found.lost_trials else ""
    return f"; lost: {found.lost or 'an unknown number of'} events{trials}"


def _digest(recorded: dict[str, Any]) -> str:
    """Of the profile on record, as this version counts it."""
    try:
        return Profile.model_validate(recorded).search_digest()
    except ValueError:
        return ""


def _scores(state: RunState) -> Iterator[tuple[str, str, str, str, dict[str, Any]]]:
    """(model, task, split, key, score) of every evaluation that the run has used."""
    told: list[tuple[str, Any, Any]] = [(model, keys, state.scores.get(model, {})) for model, keys in state.keys.items()]
    told += [(name, one["keys"], one["scores"]) for name, one in state.baselines.items()]
    told += [
        (f"{name} again", one["keys"], one["scores"]) for name, record in state.replicates.items() for one in record["made"]
    ]
    for model, keys, scores in told:
        for task, splits in keys.items():
            for split, key in splits.items():
                if (score := scores.get(task, {}).get(split)) is not None:
                    yield model, task, split, key, score


def _objects(state: RunState) -> dict[str, str]:
    """Digest → id, of the store's objects that the run's consist of: each by the first that has it."""
    found: dict[str, str] = {}
    items = [(item.id, item) for item in state.pool.items.values()]
    items += [(name, object_from_json(one["object"])) for name, one in state.baselines.items() if "object" in one]
    for name, item in items:
        for digest in stored(item):
            if digest == item.digest or digest not in found:
                found[digest] = name
    return found


def _attempts(run_dir: Path) -> list[str]:
    """Attempts below `steps/` that somebody has begun."""
    folders = (run_dir / "steps").glob("*/*")
    begun = [path for path in folders if path.name.isdecimal() and ((path / CLAIM).exists() or (path / OUTCOME).exists())]
    return sorted(f"{path.parent.name}/{path.name}" for path in begun)


def _working(folder: Path) -> int | None:
    """The process that works on an attempt."""
    try:
        claim = read_claim(folder)
    except Damaged:
        return None
    process = claim[1].process() if claim and claim[0] == "step" else None
    return process.pid if process else None


def doctor_run(run: str, runs_dir: Path, *, repair: bool, quick: bool, as_json: bool) -> bool:
    """The command on a run; whether all is well. Raises LamdatuiError where there is no run, or `repair` can't be done."""
    run_dir = rundir.find_run(run, runs_dir)
    examined = Examination(run_dir, rundir.is_alive(run_dir), quick, complain)
    done: list[str] = []
    if repair:
        with private():
            lock = rundir.take_lock(run_dir)
        if lock is None:
            fix = f"lamdatui stop {run}, then repair it"
            raise LamdatuiError(
                "an engine is at work on this run: nothing was repaired", where=str(run_dir), fix=fix, exit_code=EXIT_FAILED
            )
        with lock, private():
            found = _repaired(examined, done, lambda text: None if as_json else say(text))
    else:
        found = list(examined.looks())
    if as_json:
        say_json({"run": run_dir.name, "checks": [each.finding.to_json() for each in found], "repaired": done})
    else:
        say("\n".join(str(each.finding) for each in found))
    return all(each.finding.status != "bad" for each in found)


def _repaired(examined: Examination, done: list[str], tell: Say) -> list[Look]:
    """Repair what can be, a line each to `tell`; what is found then. Raises LamdatuiError."""
    found: list[Look] = []
    for _ in range(ROUNDS):
        found = []
        for each in examined.looks():
            found.append(each)
            if each.finding.subject == "version" and each.finding.status == "warn":
                raise newer_run(examined.run_dir, each.finding.detail)
            if each.first and each.mend:
                break
        mends = [each for each in found if each.mend and (each.first or not any(other.first and other.mend for other in found))]
        if not mends:
            break
        for each in mends:
            assert each.mend is not None, "chosen so"
            told = f"repaired: {each.finding.subject}: {each.mend()}"
            done.append(told)
            tell(told)
            fault("doctor.repaired")
    return found
