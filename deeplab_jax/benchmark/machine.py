"""What a figure was measured on."""

import datetime
import importlib.metadata
import os
import pathlib
import platform

import jax

PACKAGES = ("deeplab_jax", "jax", "numpy", "opencv-python-headless", "grain")


def describe_machine() -> dict[str, object]:
    """Returns processor, cores, JAX's devices, versions and date, JSON-ready."""
    devices = jax.devices()
    return {
        "date": datetime.date.today().isoformat(),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "devices": f"{len(devices)} × {devices[0].device_kind}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    """Returns a package's version; None: it is imported from a place where none is told."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    cpuinfo = pathlib.Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
