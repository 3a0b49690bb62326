"""Measurements during training: throughput, waiting for input, utilization, slow hosts."""

import contextlib
import itertools
import math
import queue
import statistics
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from deeplab_jax.models.summary import summarize
from deeplab_jax.parallel.chips import matrix_rate, published_peak
from deeplab_jax.training.goodput import INPUT
from deeplab_jax.training.optimizers import factors
from deeplab_jax.training.setup import Run

# Side of the square matrices whose product measures the rate of a CPU, in about 0.1 s.
CPU_MATRIX = 1024
# Names of the utilization in `metrics.jsonl`, relative to a published and to a measured peak rate.
UTILIZATION, CPU_UTILIZATION = "flops_utilization", "flops_utilization_of_measured_rate"


class StepClock:
    """Measures when the devices finish each step.

    A separate thread waits for the devices, so the training loop does not have to wait.
    """

    def __init__(self) -> None:
        """Starts the thread."""
        self._waiting: queue.Queue[Any] = queue.Queue()
        self._ends: list[float] = []
        threading.Thread(target=self._run, name="step clock", daemon=True).start()

    def _run(self) -> None:
        while (loss := self._waiting.get()) is not None:
            # The training loop reports a failure of the devices.
            with contextlib.suppress(Exception):
                jax.block_until_ready(loss)
            del loss
            self._ends.append(time.perf_counter())
            self._waiting.task_done()

    def dispatched(self, loss: jax.Array) -> None:
        """Adds a step that was passed to the devices. The step ends when `loss` is ready."""
        self._waiting.put(loss)

    def close(self) -> None:
        """Ends the thread."""
        self._waiting.put(None)

    def finish(self) -> list[float]:
        """Waits for the steps added since the last call, and returns their end times.

        The times are values of `time.perf_counter`.
        """
        self._waiting.join()
        ends, self._ends = self._ends, []
        return ends


class Pace:
    """Measures the mean loss, the throughput, and the time for which devices wait for input.

    The throughput excludes the time of evaluations and of saving checkpoints.

    Attributes:
      totals: seconds that each activity (`input_seconds`, `checkpoint_seconds` and
        `validation_seconds`) took since the first step.
    """

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._clock = StepClock()
        self.totals: dict[str, float] = {}
        self.start()

    def close(self) -> None:
        """Ends the measurements; must be called after the last step."""
        self._clock.close()

    def start(self) -> None:
        """Resets all measurements except `totals`; call this just before the first step.

        The throughput is measured from this call on.
        """
        self._losses: list[jax.Array] = []
        self._batches: list[tuple[float, float]] = []
        self._intervals: list[float] = []
        self._before: float | None = None
        self._input = 0.0
        self._started = time.perf_counter()
        self._paused = 0.0

    def add(self, metrics: Mapping[str, jax.Array]) -> None:
        """Adds the metrics of a step that was passed to the devices."""
        self._losses.append(metrics["loss"])
        self._clock.dispatched(metrics["loss"])

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Measures the time of the `with` block, which must read the batch of the next step."""
        started = time.perf_counter()
        yield
        self._batches.append((started, time.perf_counter()))

    @contextlib.contextmanager
    def pausing(self, activity: str) -> Iterator[None]:
        """Excludes the `with` block from the throughput; adds its time to `totals[activity]`."""
        self.settle()
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self._paused += seconds
            self._before = None
            self.totals[activity] = self.totals.get(activity, 0.0) + seconds

    def settle(self) -> None:
        """Waits until all added steps have finished, and adds their times to the measurement."""
        ends = self._clock.finish()
        # The devices wait for a batch from the end of the previous step until the batch is read.
        waited = sum(
            max(0.0, read - max(started, end))
            for end, (started, read) in zip(ends, self._batches, strict=False)
        )
        self._batches = []
        self._input += waited
        self.totals[INPUT] = self.totals.get(INPUT, 0.0) + waited
        first = [] if self._before is None else [self._before]
        known = [*first, *ends]
        self._intervals += [after - before for before, after in itertools.pairwise(known)]
        self._before = known[-1] if known else None

    def summarize(self, metrics: Mapping[str, jax.Array], steps_left: int) -> dict[str, float]:
        """Summarizes the steps since the last summary; waits until the last step has finished.

        Args:
          metrics: metrics of the last step.
          steps_left: number of steps until the end of training.

        Returns:
          Dict with the metrics:
          * `loss`: mean over the steps.
          * `learning_rate` and `gradient_norm`: values of the last step.
          * `images_per_second`: throughput.
          * `seconds_left`: estimated time until the end of training.
          * `step_seconds`: mean duration of a step.
          * `step_seconds_deviation`: standard deviation of the duration. It is missing if fewer
            than two durations were measured, for example with fewer than three steps.
          * `input_wait_fraction`: fraction of the time for which the devices waited for a batch.
        """
        loss = sum(float(loss) for loss in self._losses) / len(self._losses)
        self.settle()
        elapsed = time.perf_counter() - self._started - self._paused
        seconds_per_step = elapsed / len(self._losses)
        summary = {
            "loss": loss,
            "learning_rate": float(metrics["learning_rate"]),
            "gradient_norm": float(metrics["gradient_norm"]),
            "images_per_second": self._batch_size / seconds_per_step,
            "seconds_left": seconds_per_step * steps_left,
            "step_seconds": seconds_per_step,
            "input_wait_fraction": min(1.0, self._input / elapsed) if elapsed > 0 else 0.0,
        }
        if len(self._intervals) >= 2:
            summary["step_seconds_deviation"] = statistics.pstdev(self._intervals)
        self.start()
        return summary


def step_flops(run: Run) -> float:
    """Returns the floating-point operations of a training step, over all devices.

    The number is 2 · multiply-adds per image · passes · images per batch, summed over all
    convolutions, without rematerialization. A convolution has up to three passes: the forward pass;
    the gradient of the kernel, unless the kernel's learning-rate multiplier is 0; and the gradient
    of the input, if this or an earlier convolution is trained.
    """
    layers = summarize(run.model, run.augmentation.crop_size).layers
    kernels = [(*layer.name.split("/"), "kernel") for layer in layers]
    multipliers = run.config.optimizer.multipliers
    factor_of = flatten_dict(factors(unflatten_dict(dict.fromkeys(kernels, 0)), multipliers))
    trained, macs = False, 0
    for layer, kernel in zip(layers, kernels, strict=True):
        own = factor_of[kernel] > 0
        trained = trained or own
        macs += layer.macs * (1 + own + trained)
    return 2.0 * macs * run.config.training.batch_size


class Utilization:
    """Model FLOP/s utilization: FLOP/s of the training step divided by the peak of all devices.

    For known chips, the peak is the published bfloat16 rate. On CPUs, it is the rate of a matrix
    product, which is measured when the run starts.
    """

    def __init__(self, run: Run) -> None:
        """Starts a thread that counts the operations while the training step is compiled."""
        self._flops: float | None = None
        self._peak: float | None = None
        self._mesh = run.mesh
        self._counting = threading.Thread(target=self._count, args=(run,), daemon=True)
        self._counting.start()

    def _count(self, run: Run) -> None:
        # If the operations of a network cannot be counted, training continues without this metric.
        with contextlib.suppress(Exception):
            self._flops = step_flops(run)

    def describe_peak(self) -> str:
        """Finds the peak rate of all devices, and returns a message about it."""
        devices = list(self._mesh.devices.flat)
        kind = devices[0].device_kind
        if devices[0].platform == "cpu":
            # The devices of a process share its cores.
            rate = matrix_rate(CPU_MATRIX, repetitions=3)
            self._name, self._peak = CPU_UTILIZATION, rate * jax.process_count()
            return (
                f"FLOP/s utilization is relative to {rate / 1e9:.0f} GFLOP/s, measured on this CPU "
                "with a matrix product"
            )
        found = published_peak(kind)
        if found is None:
            return f"no FLOP/s utilization is reported: the peak rate of {kind} is unknown"
        peak, chip = found
        self._name, self._peak = UTILIZATION, peak * len(devices)
        return f"FLOP/s utilization is relative to {peak / 1e12:.0f} TFLOP/s per {chip} (bfloat16)"

    def at(self, step_seconds: float) -> dict[str, float]:
        """Returns the utilization for a given duration of a step.

        Args:
          step_seconds: duration of a training step.

        Returns:
          {name of the metric: utilization}; {} if the number of operations or the peak rate is
          unknown.
        """
        if self._flops is None or self._peak is None:
            return {}
        return {self._name: self._flops / step_seconds / self._peak}


def peak_memory(mesh: Mesh) -> dict[str, float]:
    """Returns {"peak_memory_bytes": maximum over this process's devices}; {} if unknown."""
    found = [device.memory_stats() or {} for device in mesh.local_devices]
    peaks = [stats["peak_bytes_in_use"] for stats in found if "peak_bytes_in_use" in stats]
    return {"peak_memory_bytes": max(peaks)} if peaks else {}


# A host is slow if its devices wait for input for more than SLOW_FRACTION of a step, and for more
# than SLOW_FACTOR times the median of all other hosts.
SLOW_FRACTION, SLOW_FACTOR = 0.1, 3.0


def slow_host(times: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Returns the element of `times` for the slow host, or None if no host is slow.

    A host is slow if its devices wait for input for more than 10 % of the time, and for more than 3
    times the median of the other hosts.

    All hosts finish a step together, because gradients are summed. If a host reads its images late,
    its devices wait for input, and the devices of the other hosts wait for the sum of the
    gradients. Slow devices and slow connections are not detected, because they do not cause
    waiting for input.

    Args:
      times: a mapping for each process. `input_wait_fraction` is the fraction of the time for which
        the devices of the process wait for input; other keys are ignored.
    """
    if len(times) < 2:
        return None
    slowest = max(times, key=lambda one: one["input_wait_fraction"])
    others = [one["input_wait_fraction"] for one in times if one is not slowest]
    limit = max(SLOW_FRACTION, SLOW_FACTOR * statistics.median(others))
    waits = slowest["input_wait_fraction"]
    return slowest if math.isfinite(waits) and waits > limit else None


def slow_host_warning(times: Mapping[str, Any]) -> str:
    """Returns a warning about a slow host; `times` is the result of `slow_host`."""
    return (
        f"process {times['process']} on {times['host']} is slow: its devices wait for input for "
        f"{times['input_wait_fraction']:.0%} of a step of {times['step_seconds']:.3g} s, and all "
        "other processes wait for it; check its storage and processor, or raise data.workers"
    )
