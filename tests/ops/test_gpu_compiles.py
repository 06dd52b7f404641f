"""Every Triton kernel compiles for the GPUs it is meant for; the interpreter proves arithmetic, not
compilation.

`gpu_compilation.py` runs in a process of its own, because the interpreter replaces the compiler where it is
chosen.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="triton is not installed")

SCRIPT = Path(__file__).with_name("gpu_compilation.py")
SOURCE = SCRIPT.parents[2] / "src"

# Bytes of shared memory that a program may have: A100, H100 and MI300.
SHARED = {"cuda:80": 163 * 1024, "cuda:90": 227 * 1024, "hip:gfx942": 64 * 1024}
# Bytes that a thread may keep in local memory. More than that means a register allocation that went wrong;
# the scan's gradients park addresses there around their loop, which costs a few instructions in ten thousand.
SPILLED = 768


CASES = [
    (operator, target)
    for operator in ("scan", "convolution", "transport", "discrepancy")
    for target in ("cuda:90", "hip:gfx942")
]


# Between NVIDIA's generations it is the matrix instructions that differ.
@pytest.mark.parametrize(
    ("operator", "target"), [*CASES, ("transport", "cuda:80"), ("discrepancy", "cuda:80")]
)
def test_every_kernel_compiles(operator: str, target: str, tmp_path: Path) -> None:
    oldest = (3, 3) if target.startswith("cuda") else (3, 6)  # before that, ROCm's own linker was needed
    if tuple(int(part) for part in triton.__version__.split(".")[:2]) < oldest:
        pytest.skip(
            f"compiling for an absent {target} needs triton {oldest[0]}.{oldest[1]} or newer, found"
            f" {triton.__version__}"
        )
    backend = {"cuda": "nvidia", "hip": "amd"}[target.partition(":")[0]]
    if not (Path(triton.__file__).parent / "backends" / backend).is_dir():
        pytest.skip(f"this triton has no compiler for {target}")
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"PYTHONPATH": str(SOURCE), "TRITON_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-W", "ignore", str(SCRIPT), target, operator]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    kernels = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(kernels) >= 5
    for kernel in kernels:
        assert kernel["spilled"] <= SPILLED, kernel
        assert kernel["shared"] <= SHARED[target], kernel
        # A thread that owns its channel has nothing to exchange; a compiler that lays the states out
        # otherwise would show here.
        if (
            operator == "scan"
            and kernel["kernel"] != "gradients_kernel"
            and "state 256" not in kernel["case"]
        ):
            assert kernel["shared"] == 0, kernel
