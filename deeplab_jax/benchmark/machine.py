"""What a figure was measured on."""

import datetime
import importlib.metadata
import os
import pathlib
import platform

PACKAGES = ("deeplab_jax", "jax", "numpy", "opencv-python-headless", "grain")


def describe_machine() -> dict[str, object]:
    """Returns processor, cores, versions and date, JSON-ready."""
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
