"""The parts by letter, each run in a process of its own."""

import argparse
import os


def run(part: str, arguments: argparse.Namespace, deadline: float) -> None:
    """Runs a part in this process until the deadline, a time of `time.time()`."""
    os.setpgrp()
    # Else JAX takes most of the GPU's memory, and PyTorch has none left.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(arguments.output.absolute() / "xla"))
    from experiments.gpu_suite import machine, rows

    path = arguments.output / f"{part}.jsonl"
    rows.run_part(path, measurements(part, arguments), machine.describe(), deadline)


def measurements(part: str, arguments: argparse.Namespace) -> list:
    """Returns the measurements of a part; each imports what it needs alone."""
    toy, output = arguments.toy, arguments.output
    if part == "b":
        from experiments.gpu_suite import operations

        return operations.measurements(toy)
    if part in "ef":
        from experiments.gpu_suite import host

        if part == "e":
            return host.input_pipeline(toy, output)
        return host.camvid(toy, output, arguments.camvid)
    from experiments.gpu_suite import networks

    makers = {
        "a": networks.torchvision_training,
        "c": networks.segmentation_models_training,
        "d": networks.forward_passes,
    }
    return makers[part](toy)
