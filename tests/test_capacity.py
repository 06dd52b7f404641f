"""Memory that is left, and refusals of what does not fit into it."""

import resource
from pathlib import Path

import pytest

from alignmamba import capacity
from alignmamba.capacity import available_bytes, refuse_beyond_memory
from alignmamba.errors import CheckpointError

GB = 10**9


@pytest.fixture(name="machine")
def _machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One with 8 GB left, without control groups."""
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {8 * GB // 1024} kB\n")
    (proc / "self" / "statm").write_text("1000 500 0 0 0 0 0\n")
    monkeypatch.setattr(capacity, "_PROC", proc)
    moved = [(groups / root.relative_to(capacity._GROUPS), *rest) for root, *rest in capacity._GROUP_FILES]
    monkeypatch.setattr(capacity, "_GROUP_FILES", moved)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    return tmp_path


def group(machine: Path, own: str, *, limit: str, used: int, files: int = 0, version: int = 2) -> None:
    limit_file, use_file = (
        ("memory.max", "memory.current")
        if version == 2
        else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    )
    place = machine / "cgroup" / ("" if version == 2 else "memory") / own
    place.mkdir(parents=True, exist_ok=True)
    (place / limit_file).write_text(f"{limit}\n")
    (place / use_file).write_text(f"{used}\n")
    prefix = "" if version == 2 else "total_"
    (place / "memory.stat").write_text(f"anon 5\n{prefix}inactive_file {files}\n{prefix}active_file 1\n")


def test_this_machine_has_some() -> None:
    assert 2**24 < available_bytes() < 2**50


@pytest.mark.usefixtures("machine")
def test_what_the_system_says() -> None:
    assert available_bytes() == 8 * GB // 1024 * 1024


@pytest.mark.parametrize("version", [1, 2])
def test_a_control_group_leaves_less(machine: Path, version: int) -> None:
    lines = {2: "0::/job/step\n", 1: "7:cpu,cpuacct:/x\n4:memory:/job/step\n0::/\n"}
    (machine / "proc" / "self" / "cgroup").write_text(lines[version])
    group(machine, "job/step", limit=str(1 << 62) if version == 1 else "max", used=GB, version=version)
    group(machine, "job", limit=str(3 * GB), used=2 * GB, files=GB // 2, version=version)
    assert available_bytes() == 3 * GB - 2 * GB + GB // 2 + 1


def test_in_a_container_the_group_of_the_process_is_the_root(machine: Path) -> None:
    (machine / "proc" / "self" / "cgroup").write_text("0::/docker/1234\n")
    group(machine, "", limit=str(2 * GB), used=3 * GB)
    assert available_bytes() == 0


@pytest.mark.usefixtures("machine")
def test_a_limit_of_addresses_leaves_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (GB, GB))
    assert available_bytes() == GB - 1000 * resource.getpagesize()


@pytest.mark.usefixtures("machine")
def test_what_does_not_fit_is_refused() -> None:
    refuse_beyond_memory(7 * GB, "x", "y")
    said = r"^model\.safetensors: opening needs 9\.00 GB of memory, 8\.00 GB are available; lower d_model$"
    with pytest.raises(CheckpointError, match=said):
        refuse_beyond_memory(9 * GB, "model.safetensors: opening", "lower d_model", error=CheckpointError)
