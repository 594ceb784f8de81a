"""The machine that a result was recorded on, as far as it can be told without a library."""

import os
import platform
from pathlib import Path
from typing import Any

CPU_INFO, GPUS = Path("/proc/cpuinfo"), Path("/proc/driver/nvidia/gpus")


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory in GiB, GPUs by name, system, Python."""
    pages, page_len = (os.sysconf(name) for name in ("SC_PHYS_PAGES", "SC_PAGE_SIZE"))
    return {
        "processor": _value(CPU_INFO, "model name") or platform.processor() or platform.machine(),
        "num_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(pages * page_len / 2**30),
        "gpus": [_value(path, "Model") or path.parent.name for path in sorted(GPUS.glob("*/information"))],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def words_of(found: dict[str, Any]) -> str:
    """For people."""
    gpus = f"; {', '.join(found['gpus'])}" if found["gpus"] else "; no GPU"
    return (
        f"{found['processor']}, {found['num_cores']} cores, {found['memory_gib']} GiB{gpus}; {found['system']}, "
        f"Python {found['python']}"
    )


def _value(path: Path, name: str) -> str | None:
    """Of the first line "name: value" of a file; None where there is none."""
    if not path.exists():
        return None
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return next((value.strip() for key, _, value in lines if key.strip() == name), None)
