"""Memory that this machine has left, asked before anything large is put into it."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch

from alignmamba.errors import AlignMambaError

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_GROUP_FILES: Final = (
    (_GROUPS, "memory.max", "memory.current", ""),
    (_GROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)
"""Control groups of version 2 and 1: their place, their limit, their use, and what the names of their sums
begin with."""


def available_bytes(device: str = "cpu") -> int:
    """Memory that can be taken now without pushing anything else out: main memory, or that of the GPU.

    Of main memory, a control group (a container, a job of a cluster) and ``ulimit -v`` may leave a process
    less than there is.
    """
    if device == "cuda":
        return torch.cuda.mem_get_info()[0]
    return max(0, min(_free_bytes(), *_left_by_groups(), _left_of_addresses()))


def refuse_beyond_memory(
    needed_bytes: int,
    what: str,
    cure: str,
    *,
    device: str = "cpu",
    error: type[AlignMambaError] = AlignMambaError,
) -> None:
    """Refuse what does not fit, before it is begun: a process that takes more than there is may be killed
    without a word.

    Args:
        needed_bytes: What has to fit at the same time.
        what: What it is for, the beginning of the message.
        cure: What to change, its end.
        device: Where it has to fit.
        error: Type of what is raised.

    Raises:
        AlignMambaError: Of the given type, with what is needed and what is available.
    """
    available = available_bytes(device)
    if needed_bytes > available:
        where = "of GPU memory" if device == "cuda" else "of memory"
        raise error(
            f"{what} needs {needed_bytes / 1e9:,.2f} GB {where}, {available / 1e9:,.2f} GB are available;"
            f" {cure}"
        )


def _free_bytes() -> int:
    path = _PROC / "meminfo"
    if path.exists():
        for line in path.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable"):
                return 1024 * int(line.split()[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _left_by_groups() -> Iterator[int]:
    """Bytes that each control group of this process, and each one around it, may still take."""
    path = _PROC / "self" / "cgroup"
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        _, controllers, own = line.split(":", 2)
        root, limit_file, use_file, prefix = _GROUP_FILES[0 if not controllers else 1]
        if controllers and "memory" not in controllers.split(","):
            continue
        # In a container the path may be that of the host; the container's own group is then the root.
        place = root / own.strip("/")
        for group in (place, *place.parents):
            if not group.is_relative_to(root):
                break
            try:
                limit = (group / limit_file).read_text(encoding="ascii").strip()
                used = int((group / use_file).read_text(encoding="ascii"))
                sums = dict(
                    each.split() for each in (group / "memory.stat").read_text(encoding="ascii").splitlines()
                )
                # Pages of files count as used and are given up when they are needed.
                files = sum(int(sums.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))
                if limit != "max":
                    yield int(limit) - used + files
            except (OSError, ValueError):
                continue  # the root of version 2 has no limit, and a group may be somebody else's to read


def _left_of_addresses() -> int:
    """Bytes that ``ulimit -v`` leaves."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    sizes = _PROC / "self" / "statm"
    if limit == resource.RLIM_INFINITY or not sizes.exists():
        return 1 << 62
    return limit - int(sizes.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
