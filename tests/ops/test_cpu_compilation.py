"""Kernels where nothing can be kept on disk, and in the worker processes of a data loader."""

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from numba.core.caching import FunctionCache
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import alignmamba
from alignmamba.ops import causal_conv, match_tokens, selective_scan
from alignmamba.ops.cpu import compilation

NOT_KEPT = "compiled kernels are not kept on disk, every process compiles them anew"


def double(x: np.ndarray) -> None:
    for i in range(x.size):
        x[i] += x[i]


def doubled() -> list[float]:
    """By a kernel that nobody has compiled in this process."""
    x = np.array([1.0, 2.0])
    compilation.kernel(double)(x)
    return x.tolist()  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _nothing_said_yet() -> None:
    compilation._say_not_kept.cache_clear()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path / "kept"))
    return tmp_path / "kept"


def test_what_is_compiled_is_kept_and_read_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []
    load = FunctionCache.load_overload
    monkeypatch.setattr(
        FunctionCache, "load_overload", lambda *given: loaded.append(load(*given)) or loaded[-1]
    )
    assert doubled() == [2, 4]
    assert list(cache.rglob("*.nbc"))
    assert doubled() == [2, 4]
    assert [found is not None for found in loaded] == [False, True]


def test_without_a_directory_it_says_so_once_and_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.core.caching.CacheImpl._locator_classes", [])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        assert doubled() == doubled() == [2, 4]
    assert [str(warning.message) for warning in said] == [
        f"{NOT_KEPT}: there is no directory that may be written"
    ]


def test_a_directory_lost_before_the_first_call_stops_nothing(cache: Path) -> None:
    """Chosen and writable when the kernel was made; a regular file in its place fails for the superuser
    too.
    """
    x = np.array([1.0, 2.0])
    made = compilation.kernel(double)
    shutil.rmtree(cache)
    cache.write_text("in the way")
    with pytest.warns(RuntimeWarning, match=NOT_KEPT):
        made(x)
    made(x)
    assert x.tolist() == [4, 8]


def test_a_full_disk_stops_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "a name that is another each time")

    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile._save_data", full)
    with pytest.warns(RuntimeWarning, match=f"^{NOT_KEPT}: No space left on device$"):
        assert doubled() == [2, 4]
    assert not list(cache.rglob("*.nbc"))


@pytest.mark.parametrize("content", [b"", b"\x80 no pickle"], ids=["empty", "garbage"])
@pytest.mark.parametrize("pattern", ["*.nbi", "*.nbc"])
def test_a_damaged_cache_is_made_anew(pattern: str, content: bytes, cache: Path) -> None:
    assert doubled() == [2, 4]
    (damaged,) = cache.rglob(pattern)
    damaged.write_bytes(content)
    assert doubled() == [2, 4]
    assert damaged.read_bytes() != content


READ_ONLY = """
import torch

from alignmamba.ops import causal_conv, selective_scan

ones = torch.ones(1, 3, 2)
print(causal_conv(ones, ones[0], ones[0, 0], backend="numba").sum().item())
# Its kernels are made when the first ones have been compiled.
selective_scan(ones, ones, -ones[0, :2], ones, ones, backend="numba")
"""


def test_an_installation_that_cannot_be_written_computes_and_says_so_once(tmp_path: Path) -> None:
    """Every place where numba would keep machine code is under a regular file, which refuses the superuser
    too.
    """
    package = tmp_path / "site" / "alignmamba"
    shutil.copytree(Path(alignmamba.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (package / "ops" / "cpu", tmp_path):
        (folder / "__pycache__").write_text("in the way")
    blocked = str(tmp_path / "__pycache__" / "below")
    paths = {
        "NUMBA_CACHE_DIR": blocked,
        "HOME": blocked,
        "XDG_CACHE_HOME": blocked,
        "PYTHONPATH": str(tmp_path / "site"),
    }
    run = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", READ_ONLY],
        env={**os.environ, **paths, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    expected = torch.nn.functional.silu(torch.tensor([2.0, 3.0, 4.0])).sum() * 2
    assert float(run.stdout) == pytest.approx(float(expected), rel=1e-5)
    assert run.stderr.count(f"RuntimeWarning: {NOT_KEPT}") == 1, run.stderr


def test_tensors_seen_by_a_kernel_may_be_resized_afterwards() -> None:
    """FSDP resizes parameters so, which `Tensor.numpy` forbids."""
    given = [
        torch.rand(shape)
        for shape in ((1, 3, 4), (1, 3, 4), (4, 2), (1, 3, 2), (1, 3, 2), (4,), (1, 3, 4), (4,))
    ]
    outputs = [selective_scan(*given), causal_conv(given[0], given[0][0].clone(), given[5])]
    for tensor in given + outputs:
        tensor.untyped_storage().resize_(0)


def test_an_array_of_a_tensor_shares_its_memory_and_keeps_it_alive() -> None:
    tensor = torch.arange(6.0).view(2, 3)
    seen = compilation.array(tensor)
    seen[1, 2] = 7
    assert float(tensor[1, 2]) == 7
    del tensor
    assert seen.tolist() == [[0, 1, 2], [3, 4, 7]]
    for dtype in (torch.float32, torch.float64, torch.int64, torch.bool):
        for size in (0, 2):
            assert (
                compilation.array(torch.ones(size, dtype=dtype)).dtype
                == torch.ones(1, dtype=dtype).numpy().dtype
            )


# Worker processes


class Aligned(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Samples that the kernels make."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(number)
        x, y = torch.randn(1, 300, 128, generator=generator), torch.randn(1, 200, 128, generator=generator)
        masks = (torch.ones(side.shape[:2], dtype=torch.bool) for side in (x, y))
        index, similarity = match_tokens(x, y, *masks, time_weight=1.0)
        scanned = selective_scan(x, x, -torch.ones(128, 16), x[..., :16], x[..., 16:32])
        return scanned[0], index[0], similarity[0]


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_workers_compute_what_their_parent_computed_with_threads() -> None:
    """Threads of the parent that the workers would wait for in vain end with each call of a kernel."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        dataset = Aligned()
        here = [dataset[number] for number in range(len(dataset))]
        loader = DataLoader(
            dataset, batch_size=None, num_workers=2, multiprocessing_context="fork", timeout=60
        )
        there = list(loader)
    finally:
        torch.set_num_threads(before)
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])
        torch.testing.assert_close(one[2], other[2])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("NUMBA_NUM_THREADS", "0", "Number of threads specified must be > 0"),
        ("NUMBA_OPT", "fast", "'NUMBA_OPT' .* 'fast' could not be"),
    ],
)
def test_settings_that_numba_cannot_use_are_one_line(name: str, value: str, said: str) -> None:
    program = (
        "from alignmamba.ops import causal_conv; import torch; causal_conv(torch.ones(1, 4, 3), torch.ones(4,"
        " 3), torch.ones(3))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    *_, last = run.stderr.splitlines()
    assert re.fullmatch(
        rf"alignmamba\.errors\.BackendError: numba cannot start: .*{said}.*look at NUMBA_NUM_THREADS and .*",
        last,
    )
