"""Parts of the GPU benchmark suite; each part has a letter and runs in a separate process."""

import argparse
import os


def run(part: str, arguments: argparse.Namespace, deadline: float) -> None:
    """Runs the measurements of a part in this process.

    Args:
      part: letter of the part, `a` to `f`.
      arguments: command-line arguments of `python -m experiments.gpu_suite`.
      deadline: value of `time.time()` after which no measurement starts.
    """
    os.setpgrp()
    # Otherwise JAX allocates most of the GPU's memory, which PyTorch needs.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(arguments.output.absolute() / "xla"))
    from experiments.gpu_suite import machine, rows

    path = arguments.output / f"{part}.jsonl"
    rows.run_part(path, measurements(part, arguments), machine.describe(), deadline)


def measurements(part: str, arguments: argparse.Namespace) -> list:
    """Returns the measurements of a part, and imports only the modules that this part requires.

    Args:
      part: letter of the part, `a` to `f`.
      arguments: command-line arguments of `python -m experiments.gpu_suite`.
    """
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
