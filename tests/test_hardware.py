"""Readings: NVML's values and gaps, whose a process is, recordings, and a driver that hangs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamdatui.base.errors import EXIT_USAGE, LamdatuiError
from lamdatui.cli.commands import run_profile
from lamdatui.config.resources import builtin
from lamdatui.hardware import gpu, probe
from lamdatui.hardware.processes import OwnProcesses, describe, owner_of
from lamdatui.hardware.record import record
from lamdatui.hardware.recording import Recording, load_recording
from lamdatui.wire.rundir import StartOptions

Json = dict[str, Any]
SAMPLE = builtin("profiles") / "recordings" / "two-gpus.jsonl"


class Driver:
    """Answers as NVML does for one GPU; what is named in `missing` is not supported."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
        process = SimpleNamespace(pid=os.getpid(), usedGpuMemory=5)
        answers: Json = {
            "Init": None, "Shutdown": None, "DeviceGetCount": 1, "DeviceGetHandleByIndex": "gpu",
            "DeviceGetName": b"Test GPU", "DeviceGetMemoryInfo": SimpleNamespace(used=2, total=8),
            "DeviceGetCudaComputeCapability": (9, 0), "DeviceGetUtilizationRates": SimpleNamespace(gpu=40),
            "DeviceGetPowerUsage": 61500, "DeviceGetEnforcedPowerLimit": 300000, "DeviceGetTemperature": 51,
            "DeviceGetClockInfo": 1410, "DeviceGetFanSpeed": 30, "DeviceGetMigMode": (0, 0),
            "DeviceGetComputeRunningProcesses": [process], "DeviceGetGraphicsRunningProcesses": [process],
            "DeviceGetMaxMigDeviceCount": 7, "DeviceGetMigDeviceHandleByIndex": "mig",
        }  # fmt: skip
        for name, value in answers.items():
            monkeypatch.setattr(pynvml, f"nvml{name}", self._answer(value, name in missing))

    def _answer(self, value: Any, missing: bool):
        def answer(*_: Any) -> Any:
            if missing:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
            return value

        return answer


def test_a_reading_has_every_value_in_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(monkeypatch)
    [reading], reason = gpu.read_gpus()
    assert reason == ""
    assert (reading["power_w"], reading["power_limit_w"], reading["sm_clock_mhz"], reading["fan_percent"]) == (
        61.5,
        300,
        1410,
        30,
    )
    assert reading["mig"] is None
    assert reading["processes"] == [{"pid": os.getpid(), "memory": 5, "kind": "compute"}]


@pytest.mark.parametrize(
    ("missing", "field"),
    [("DeviceGetFanSpeed", "fan_percent"), ("DeviceGetUtilizationRates", "util"), ("DeviceGetPowerUsage", "power_w"),
     ("DeviceGetEnforcedPowerLimit", "power_limit_w"), ("DeviceGetClockInfo", "sm_clock_mhz"),
     ("DeviceGetMemoryInfo", "memory_used"), ("DeviceGetName", "name"), ("DeviceGetMigMode", "mig")],
)  # fmt: skip
def test_what_a_driver_does_not_give_is_none(monkeypatch: pytest.MonkeyPatch, missing: str, field: str) -> None:
    Driver(monkeypatch, missing)
    [reading], _ = gpu.read_gpus()
    assert reading[field] is None
    assert reading["temperature_c"] == 51


def test_mig_instances_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    Driver(monkeypatch)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMigMode", lambda _: (1, 1))
    assert gpu.read_gpus()[0][0]["mig"] == 7


def test_processes_are_ours_by_their_ancestors_and_have_names_and_users() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        gpus: list[Json] = [{"processes": [{"pid": pid} for pid in (os.getpid(), child.pid, 1, 2**22 + 5)]}]
        describe(gpus, {os.getpid(): "engine"})
        ours, descendant, stranger, gone = gpus[0]["processes"]
        assert ours["owner"] == "engine" and ours["name"] and ours["user"]
        assert descendant["owner"] == "planner"
        assert stranger["owner"] == "" and gone == {"pid": 2**22 + 5, "name": None, "user": None, "owner": ""}
        assert owner_of(child.pid, {os.getpid(): "step 3/1"}) == "step 3/1"
    finally:
        child.communicate()


def test_our_own_processes_are_measured_without_a_gpu() -> None:
    own = OwnProcesses()
    own.read({os.getpid(): "engine"})
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    row = next(row for row in own.read({os.getpid(): "engine"}) if row["pid"] == os.getpid())
    assert row["owner"] == "engine" and row["memory"] > 1_000_000 and row["cpu_percent"] > 0


# --- a driver that hangs -----------------------------------------------------------------------------------------


async def test_a_driver_that_hangs_stops_neither_the_host_nor_the_pace(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_SECONDS", 0.2)
    hang = threading.Event()
    reads = []

    def stuck() -> tuple[list[Json], str]:
        reads.append(1)
        hang.wait(30)
        return [{"index": 0, "processes": []}], ""

    monkeypatch.setattr(probe, "read_gpus", stuck)
    one = probe.Probe(tmp_path)
    try:
        frames = [await asyncio.wait_for(one.read(), 5) for _ in range(2)]
        began = time.monotonic()
        frames += [await one.read() for _ in range(3)]
        assert time.monotonic() - began < 2
        for frame in frames:
            assert frame["gpus"] == [] and "has not answered" in frame["reason"]
            assert frame["host"]["memory_total"] > 0
        assert len(reads) == 1, "one thread at most is given to a driver that hangs"
    finally:
        hang.set()
    for _ in range(100):
        if (frame := await one.read())["gpus"]:
            break
    assert frame["gpus"][0]["index"] == 0 and frame["reason"] == ""


async def test_a_folder_that_hangs_leaves_the_last_reading_of_the_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probe, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(probe, "read_gpus", lambda: ([], "none"))
    one = probe.Probe(tmp_path)
    before = (await one.read())["host"]
    hang = threading.Event()
    monkeypatch.setattr(probe, "read_host", lambda folder: hang.wait(30))
    try:
        host = (await one.read())["host"]
    finally:
        hang.set()
    assert host["memory_total"] == before["memory_total"] and "late_seconds" in host


async def test_a_folder_that_is_gone_is_told(tmp_path: Path) -> None:
    assert (await probe.Probe(tmp_path / "gone").read())["host"]["error"]


async def test_a_reading_that_fails_is_told_and_the_next_one_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answers: list[Any] = [RuntimeError("odd"), ([{"index": 0, "processes": []}], "")]

    def read() -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(probe, "read_gpus", read)
    one = probe.Probe(tmp_path)
    assert (await one.read())["reason"] == "the GPUs can't be read: RuntimeError odd"
    assert (await one.read())["gpus"][0]["index"] == 0


def test_a_process_ends_while_its_driver_hangs(tmp_path: Path) -> None:
    code = """
        import asyncio, threading
        from pathlib import Path
        from lamdatui.hardware import probe
        probe.TIMEOUT_SECONDS = 0.1
        probe.read_gpus = lambda: threading.Event().wait()
        print(asyncio.run(probe.Probe(Path(".")).read())["reason"])
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert "has not answered" in done.stdout and done.returncode == 0


# --- recordings --------------------------------------------------------------------------------------------------


def test_the_shipped_recording_is_sound_and_has_two_gpus() -> None:
    recording = load_recording(SAMPLE)
    gpus, reason = recording()
    assert len(gpus) == 2 and reason == "" and len(recording) > 10
    owners = {item["owner"] for gpu in gpus for item in gpu["processes"]}
    assert "" in owners and "step 3/1" in owners


def test_a_recording_is_replayed_by_its_times_in_a_loop() -> None:
    now = [100.0]
    readings: list[Json] = [{"at": 5.0 + at, "gpus": [{"index": at}]} for at in (0, 1, 3)]
    recording = Recording("x", readings, clock=lambda: now[0])
    seen = []
    for _ in range(11):
        seen.append(recording()[0][0]["index"])
        now[0] += 1
    assert seen == [0, 1, 1, 3, 3, 0, 1, 1, 3, 3, 0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "empty"),
        ("\n\n", "empty"),
        ("{", "not JSON"),
        ("[]", "a reading is an object"),
        ('{"at": 0}', "a reading is an object"),
        ('{"at": "0", "gpus": []}', "number of seconds"),
        ('{"at": NaN, "gpus": []}', "number of seconds"),
        ('{"at": 1, "gpus": []}\n{"at": 1, "gpus": []}', "grows"),
        ('{"at": 0, "gpus": [], "reason": 3}', "is text"),
        ('{"at": 0, "gpus": [3]}', "index"),
        ('{"at": 0, "gpus": [{"index": 0, "util": "97%"}]}', '"util" of GPU 0'),
        ('{"at": 0, "gpus": [{"index": 0, "util": true}]}', '"util" of GPU 0'),
        ('{"at": 0, "gpus": [{"index": 0, "processes": [{"name": "x"}]}]}', '"processes" of GPU 0'),
        ("\x80", "is not text"),
    ],
)
def test_a_bad_recording_is_one_clear_error(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(LamdatuiError) as caught:
        run_profile("lab", None, "auto", None, [], True, False, tmp_path / "runs", fake_gpu=path)
    assert told in caught.value.what and str(path) in caught.value.where and caught.value.exit_code == EXIT_USAGE
    assert not (tmp_path / "runs").exists()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["at", "gpus", "index", "util", "processes", "pid", "reason"]), inner, max_size=5)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.lists(JSON, max_size=3).map(lambda rows: "\n".join(map(json.dumps, rows)).encode()))
def test_no_file_is_more_than_one_clear_error(text: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.jsonl"
        path.write_bytes(text)
        try:
            gpus, reason = load_recording(path)()
        except LamdatuiError as error:
            assert error.exit_code == EXIT_USAGE and str(path) in error.where
        else:
            assert all(isinstance(gpu["index"], int) for gpu in gpus) and isinstance(reason, str)


def test_a_recording_that_is_not_there_is_told_with_the_way_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(LamdatuiError, match="can't read the recording") as caught:
        load_recording(tmp_path / "none.jsonl")
    assert "lamdatui.hardware.record" in caught.value.fix


def test_the_engine_is_started_with_the_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert StartOptions(fake_gpu=Path("x.jsonl")).arguments() == ["--fake-gpu", str(tmp_path.resolve() / "x.jsonl")]
    assert "--fake-gpu" not in StartOptions().arguments()


async def test_recorded_gpus_are_marked_and_the_host_stays_real(tmp_path: Path) -> None:
    recording = load_recording(SAMPLE)
    frame = await probe.Probe(tmp_path, recording=recording, title=recording.title).read()
    assert frame["recorded"] == SAMPLE.name and len(frame["gpus"]) == 2
    assert frame["host"]["memory_total"] > 0
    assert "recorded" not in await probe.Probe(tmp_path).read()


def test_what_is_recorded_can_be_replayed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Driver(monkeypatch)
    path = tmp_path / "new.jsonl"
    assert record(path, seconds=0.05, every=0.02) >= 2
    gpus, _ = load_recording(path)()
    assert gpus[0]["name"] == "Test GPU" and gpus[0]["processes"][0]["name"]
    assert json.loads(path.read_text().splitlines()[0])["at"] < 0.05
    with pytest.raises(FileExistsError):
        record(path, seconds=0.05, every=0.02)


def test_a_machine_without_a_gpu_has_nothing_to_record(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lamdatui.hardware.record", str(tmp_path / "x.jsonl"), "--seconds", "1"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    if gpu.read_gpus()[0]:
        pytest.skip("this machine has a GPU")
    assert done.returncode == 1 and "no GPU to record" in done.stderr and not (tmp_path / "x.jsonl").exists()
