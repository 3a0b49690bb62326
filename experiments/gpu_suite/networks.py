"""Parts a, c and d of the GPU suite: training steps and forward passes, compared with PyTorch."""

import dataclasses
import functools
import importlib
import statistics
import time
from typing import Any

import jax

from deeplab_jax.benchmark import networks as ours
from deeplab_jax.benchmark.machine import measure_peaks
from deeplab_jax.benchmark.networks import Contender
from deeplab_jax.models import DeepLab
from experiments.benchmarks.baselines import Workload, make_match, measure
from experiments.gpu_suite.profile import profile
from experiments.gpu_suite.rows import Measurement

REPETITIONS, TOY_REPETITIONS = 10, 2
SEGMENTATION_MODELS = ("resnet101", "tu-xception65", "mobilenet_v2", "resnet50")


def torchvision_training(toy: bool) -> list[Measurement]:
    """Returns the measurements of part a: the training step of DeepLab v3 with ResNet-101.

    The step is measured alone, alternately with torchvision, and with a profiler. If `toy` is True,
    the backbone is MobileNetV3, and the images are tiny.
    """
    network, size, batch = "deeplabv3_resnet101", 513, 16
    if toy:
        network, size, batch = "deeplabv3_mobilenet_v3_large", 33, 2
    work = Workload(network, (size, size), batch, "bfloat16", compiled=True)
    settings = _settings("torchvision", work, "training step")
    profiled = functools.partial(_profile, "torchvision", work)
    return [
        _alone("torchvision", work, True, toy),
        _beside("torchvision", work, True, toy),
        Measurement(settings | {"measure": "profile"}, profiled),
    ]


def segmentation_models_training(toy: bool) -> list[Measurement]:
    """Returns the measurements of part c: training steps of DeepLab v3+.

    The steps are measured alone and alternately with segmentation_models_pytorch. If `toy` is True,
    there is one network, with tiny images.
    """
    size, batch = (32, 2) if toy else (512, 16)
    found = []
    for network in SEGMENTATION_MODELS[2:3] if toy else SEGMENTATION_MODELS:
        work = Workload(network, (size, size), batch, "bfloat16", compiled=True)
        for make in (_alone, _beside):
            found.append(make("segmentation_models", work, True, toy))
    return found


def forward_passes(toy: bool) -> list[Measurement]:
    """Returns the measurements of part d: forward passes with folded batch normalization.

    The passes are measured alone and alternately with PyTorch. If `toy` is True, there is one
    network, with tiny images.
    """
    networks = [("torchvision", "deeplabv3_resnet101", 513)]
    networks += [("segmentation_models", name, 512) for name in SEGMENTATION_MODELS]
    batches, dtypes = (16, 1), ("bfloat16", "float32")
    if toy:
        networks = [("torchvision", "deeplabv3_mobilenet_v3_large", 33)]
        batches, dtypes = (2, 1), ("float32",)
    return [
        make(baseline, Workload(network, (size, size), batch, dtype, True, True), False, toy)
        for baseline, network, size in networks
        for dtype in dtypes
        for batch in batches
        for make in (_alone, _beside)
    ]


def _settings(baseline: str, work: Workload, kind: str) -> dict[str, Any]:
    return {"work": kind, "baseline": baseline, **dataclasses.asdict(work), "size": list(work.size)}


def _alone(baseline: str, work: Workload, training: bool, toy: bool) -> Measurement:
    settings = _settings(baseline, work, "training step" if training else "forward")
    run = functools.partial(_measure_alone, baseline, work, training, _repetitions(toy))
    return Measurement(settings | {"measure": "alone"}, run)


def _beside(baseline: str, work: Workload, training: bool, toy: bool) -> Measurement:
    settings = _settings(baseline, work, "training step" if training else "forward")
    run = functools.partial(_measure_beside, baseline, work, training, _repetitions(toy))
    return Measurement(settings | {"measure": "beside the baseline"}, run)


def _repetitions(toy: bool) -> int:
    return TOY_REPETITIONS if toy else REPETITIONS


def _measure_alone(
    baseline: str, work: Workload, training: bool, repetitions: int
) -> dict[str, Any]:
    model, contender = _ours(baseline, work, training)
    contender.run()
    seconds = []
    for _ in range(repetitions):
        started = time.perf_counter()
        contender.run()
        seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds)
    image = ours.random_batch(work.batch_size, work.size, 2)["image"]
    operations = ours.forward_operations(model, image) * (3 if training else 1)
    figures = {
        "seconds": median,
        "images_per_second": work.batch_size / median,
        "operations_per_second": operations / median,
        "compile_seconds": contender.compile_seconds,
        "planned_bytes": contender.peak_bytes,
        "peak_bytes_in_use": _peak_bytes_in_use(),
    }
    return figures | _utilization(figures["operations_per_second"], work.dtype)


def _measure_beside(
    baseline: str, work: Workload, training: bool, repetitions: int
) -> dict[str, Any]:
    figures = measure(make_match(baseline, work, training), repetitions)
    return figures | _utilization(figures["operations_per_second"], work.dtype)


def _profile(baseline: str, work: Workload) -> dict[str, Any]:
    return profile(_ours(baseline, work, True)[1].run)


@functools.lru_cache(maxsize=1)
def _ours(baseline: str, work: Workload, training: bool) -> tuple[DeepLab, Contender]:
    """Returns the network of deeplab_jax, and its compiled training step or forward pass.

    PyTorch is not imported.
    """
    module = importlib.import_module(f"experiments.benchmarks.{baseline}")
    model = module.our_network(work)
    variables = ours.made_variables(model)
    batch = ours.random_batch(work.batch_size, work.size, module.NUM_CLASSES)
    if training:
        return model, ours.training_step(model, variables, batch)
    return model, ours.forward(model, variables, batch["image"], work.folded)


def _utilization(operations_per_second: float, dtype: str) -> dict[str, float]:
    """Returns the utilization of the device, and its measured peak throughputs.

    Args:
      operations_per_second: floating-point operations per second of the measured program.
      dtype: data type of the program.

    Returns:
      A dictionary:
      - `mfu`: `operations_per_second`, divided by the peak rate of matrix products.
      - `matrix_flops_per_second` and `memory_bytes_per_second`: see `measure_peaks`.
    """
    peaks = _peaks(dtype)
    return peaks | {"mfu": operations_per_second / peaks["matrix_flops_per_second"]}


_peaks = functools.cache(measure_peaks)


def _peak_bytes_in_use() -> int | None:
    """Returns the peak device memory of JAX in this process, in bytes; None: unknown."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
