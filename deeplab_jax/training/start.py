"""What a run says of itself before its first step."""

from collections.abc import Iterator

import jax

from deeplab_jax.training.run import Run
from deeplab_jax.training.state import TrainState


def describe_start(
    run: Run, state: TrainState, compiled: jax.stages.Compiled, seconds: float
) -> Iterator[str]:
    """Yields lines on devices, mesh, data, parameters and the compiled step's memory."""
    devices = list(run.mesh.devices.flat)
    shape = " × ".join(f"{axis}={size}" for axis, size in run.mesh.shape.items())
    hosts = "" if jax.process_count() == 1 else f" in {jax.process_count()} processes"
    yield f"devices: {len(devices)} × {devices[0].device_kind}{hosts}, mesh {shape}"
    yield (
        f"data: {run.train.name}, {len(run.train)} training images, "
        f"{len(run.validation)} for validation, {len(run.description.class_names)} classes"
    )
    options = run.model.architecture
    count = sum(leaf.size for leaf in jax.tree.leaves(state.variables["params"]))
    yield (
        f"model: {run.description.architecture} on {options.backbone}, output stride "
        f"{options.output_stride}, {count:,} parameters"
    )
    yield f"step compiled in {seconds:.1f} s; {_memory(compiled)}"


def _memory(compiled: jax.stages.Compiled) -> str:
    analysis = compiled.memory_analysis()
    if analysis is None:
        return "this platform does not tell its memory"
    mebibytes = {
        "arguments": analysis.argument_size_in_bytes,
        "outputs": analysis.output_size_in_bytes - analysis.alias_size_in_bytes,
        "temporaries": analysis.temp_size_in_bytes,
    }
    parts = ", ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in mebibytes.items())
    return f"memory a device: {parts}"
