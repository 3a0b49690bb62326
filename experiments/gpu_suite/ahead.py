"""Ahead-of-time compilation of kernel gradients or training steps for a GPU, without the GPU.

    python -m experiments.gpu_suite.ahead --output=FILE [--device=h200] [--step] [--toy]

Counts the GPU kernels of the compiled programs, and the bytes that these kernels write. Measures no
times. --step compiles training steps instead of gradients of single atrous kernels, and --toy uses
tiny sizes.

The packages jax-cuda13-plugin and jax-cuda13-pjrt are required, in the same version as JAX. CUDA
and a GPU are not required. After each compilation, a JSON row is written to FILE. To resume an
interrupted run, repeat the command.
"""

import argparse
import functools
import importlib
import math
import os
import re
import sys
from collections import Counter
from typing import Any

from deeplab_jax.files import as_path

DEVICES = ("h100", "h200")
# Maximum kernel width, in pixels, of the networks. If a compiled convolution has a wider window,
# XLA computes the gradient of a kernel as a convolution whose kernel is a feature map.
WIDEST_KERNEL = 9
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(\S+) = (.+?) ([a-z][\w-]*)\(")
ARRAY = re.compile(r"(f32|bf16|f16)\[([\d,]+)\]")
BYTES = {"f32": 4, "bf16": 2, "f16": 2}


def count(program: str) -> dict[str, Any]:
    """Counts the GPU kernels in the entry computation of an optimized program (HLO text).

    Returns:
      A dictionary:
      - `kernels`: number of all kernels.
      - `matrix_products`, `transposes`, `copies`: number of kernels of this kind.
      - `convolutions`: {cuDNN function: number of convolutions}.
      - `windows_of_maps`: number of convolutions whose window is a whole feature map. XLA computes
        gradients of kernels in this way.
      - `bytes_of_transposes`, `bytes_of_copies`: bytes that kernels of this kind write.
      - `bytes_written`: bytes that all kernels write as floating-point arrays.
      - `bytes_of_float32_maps`: bytes that all kernels write as float32 arrays with four
        dimensions.
    """
    entry = program[program.index("\nENTRY ") :]
    found: Counter[str] = Counter()
    convolutions: Counter[str] = Counter()
    for line in entry.splitlines():
        match = INSTRUCTION.match(line)
        if match is None or match[3] in ("parameter", "get-tuple-element", "tuple", "bitcast"):
            continue
        name, results, operation = match.groups()
        found["kernels"] += operation != "constant"
        target = re.search(r'custom_call_target="__cudnn\$(conv\w+)"', line)
        if target or operation == "convolution":
            convolutions[target[1] if target else "convolution"] += 1
            size = re.search(r"window={size=(\d+)", line)
            found["windows_of_maps"] += bool(size) and int(size[1]) > WIDEST_KERNEL
        found["matrix_products"] += "__cublas$" in line or "gemm" in name or operation == "dot"
        arrays = [
            (kind, list(map(int, sides.split(",")))) for kind, sides in ARRAY.findall(results)
        ]
        written = sum(BYTES[kind] * math.prod(sides) for kind, sides in arrays)
        found["bytes_written"] += written
        for kind in ("transpose", "copy"):
            if kind in name:
                plural = {"transpose": "transposes", "copy": "copies"}[kind]
                found[plural] += 1
                found[f"bytes_of_{plural}"] += written
        found["bytes_of_float32_maps"] += sum(
            4 * math.prod(sides) for kind, sides in arrays if kind == "f32" and len(sides) == 4
        )
    return {"convolutions": dict(convolutions), **found}


def figures(compiled: Any) -> dict[str, Any]:
    """Returns the figures of a compiled program.

    Returns:
      The result of `count` and, in the same dictionary, the compiler's estimates:
      - `flops`: floating-point operations; None if the compiler gives no estimate.
      - `bytes`: memory traffic; None if the compiler gives no estimate.
      - `planned_bytes`: peak memory.
    """
    from deeplab_jax.benchmark.networks import planned_bytes

    costs = compiled.cost_analysis() or {}
    own = {name: costs.get(key) for name, key in (("flops", "flops"), ("bytes", "bytes accessed"))}
    return count(compiled.as_text()) | own | {"planned_bytes": planned_bytes(compiled)}


def described_device(name: str) -> Any:
    """Returns the device to compile for, given its name.

    Args:
      name: `h100` or `h200`, or `here` for the first device of this machine.
    """
    import jax

    from deeplab_jax.planning.hardware import parse_topology, topology_devices

    return jax.devices()[0] if name == "here" else topology_devices(parse_topology(f"{name}:1"))[0]


def measurements(device: str, toy: bool, step: bool) -> list:
    """Returns a `rows.Measurement` for each program to compile.

    Args:
      device: device to compile for: `h100`, `h200`, or `here` for the first device of this machine.
      toy: whether to use tiny sizes.
      step: True: training steps of DeepLab v3 with ResNet-101, one for each implementation of
        kernel gradients. False: gradients of single atrous kernels, one for each implementation and
        shape.
    """
    from experiments.gpu_suite import operations
    from experiments.gpu_suite.rows import Measurement

    if step:
        side, batch = (33, 2) if toy else (513, 16)
        settings = {"work": "step of deeplabv3_resnet101", "device": device}
        settings |= {"side": side, "batch_size": batch}
        return [
            Measurement(
                settings | {"kernel_gradients": name},
                functools.partial(_step, device, side, batch, name),
            )
            for name in operations.GRADIENTS
        ]
    found = []
    for shape in operations.TOY_ATROUS if toy else operations.ATROUS:
        for name in operations.GRADIENTS:
            settings = {"work": "gradient of an atrous kernel", "shape": shape, "name": name}
            run = functools.partial(_gradient, device, name, shape)
            found.append(Measurement(settings | {"device": device}, run))
    return found


def _gradient(device: str, name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    import jax
    import jax.numpy as jnp

    from deeplab_jax.ops.xla_convolution import Window
    from experiments.gpu_suite.operations import GRADIENTS

    batch, side, channels, features, rate = shape
    placed = jax.sharding.SingleDeviceSharding(described_device(device))
    sizes = (
        (batch, side, side, channels),
        (3, 3, channels, features),
        (batch, side, side, features),
    )
    operands = [jax.ShapeDtypeStruct(size, jnp.bfloat16, sharding=placed) for size in sizes]
    window = Window(3, (rate, rate), ((rate, rate), (rate, rate)))
    program = jax.jit(functools.partial(GRADIENTS[name], window=window))
    return figures(program.lower(*operands).compile())


def _step(device: str, side: int, batch_size: int, gradient: str) -> dict[str, Any]:
    import jax

    from deeplab_jax.benchmark import networks as ours
    from deeplab_jax.training.state import with_variables
    from experiments.benchmarks import torchvision
    from experiments.benchmarks.baselines import Workload
    from experiments.gpu_suite.operations import GRADIENTS

    jax.clear_caches()
    # Imported by name, because the attribute `convolution` of the package is a function.
    convolution = importlib.import_module("deeplab_jax.ops.convolution")
    convolution.products_over_maps = GRADIENTS[gradient]
    work = Workload("deeplabv3_resnet101", (side, side), batch_size, "bfloat16")
    model = torchvision.our_network(work)
    step, optimizer = ours.make_step(model, 0.01)
    batch = ours.random_batch(batch_size, work.size, torchvision.NUM_CLASSES)
    image = batch["image"][:1, :33, :33]
    state = jax.eval_shape(
        lambda: with_variables(model.init(jax.random.key(0), image), optimizer, False)
    )
    placed = jax.sharding.SingleDeviceSharding(described_device(device))
    state, batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=placed), (state, batch)
    )
    return figures(step.lower(state, batch).compile())


def main() -> None:
    """Compiles the programs and writes a JSON row for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=as_path, required=True, help="file for the results")
    parser.add_argument("--device", default="h200", choices=[*DEVICES, "here"])
    parser.add_argument("--step", action="store_true", help="compile training steps of DeepLab v3")
    parser.add_argument("--toy", action="store_true", help="use tiny sizes")
    arguments = parser.parse_args()
    # XLA chooses between Triton and cuBLAS by measurements on the GPU. Without a GPU, choosing the
    # tiles of Triton fails for some matrix products, so Triton is disabled.
    if arguments.device != "here":
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        os.environ.setdefault("XLA_FLAGS", "--xla_gpu_enable_triton_gemm=false")
    from experiments.gpu_suite import machine, rows

    found = measurements(arguments.device, arguments.toy, arguments.step)
    rows.run_part(arguments.output, found, machine.describe(), math.inf)


if __name__ == "__main__":
    sys.exit(main())
