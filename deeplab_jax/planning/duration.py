"""Estimated duration of a training run: steps, validations, checkpoints and start-up.

The time of a step is a lower bound, computed from the compiled program. All other times are
estimates that have not been compared with a run on the hardware.
"""

import dataclasses
import math

from ml_collections import ConfigDict

# Estimated bytes per second that a host copies from its chips, and that it writes to a bucket or
# shared file system.
COPY_BANDWIDTH, WRITE_BANDWIDTH = 8e9, 200e6
# Estimated seconds per save in which the hosts wait for each other.
SAVE_SECONDS = 1.0
# Forward and backward pass of training take this many times as long as the forward pass.
PASSES = 3
# Estimated seconds from the start of a process to the compilation, for imports and the checkpoint.
START_SECONDS = 15.0
# Seconds of one core per image of 513 × 513, for reading, decoding and augmentation
# (docs/benchmarks.md), and the number of pixels of this image.
INPUT_SECONDS, INPUT_PIXELS = 1.98e-3, 513 * 513


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Settings of a training run that determine its duration.

    Attributes:
      num_steps: number of training steps.
      global_batch: number of images per training step.
      validations: number of validations.
      validation_images: number of images per validation; None: the number is unknown, and the time
        of validations is estimated as 0.
      saves: number of checkpoints that are saved.
      num_hosts: number of hosts.
      workers: number of processes per host that read and augment images; 0: threads read and
        augment images, and are assumed to be fast enough.
      pixels: number of pixels of a training image.
    """

    num_steps: int
    global_batch: int
    validations: int
    validation_images: int | None
    saves: int
    num_hosts: int
    workers: int
    pixels: int

    @classmethod
    def of(
        cls,
        config: ConfigDict,
        crop_size: tuple[int, int],
        num_hosts: int,
        validation_images: int | None = None,
    ) -> "Schedule":
        """Returns the schedule of a config.

        Args:
          config: see deeplab_jax/config_fields.py.
          crop_size: height and width of a training image.
          num_hosts: number of hosts.
          validation_images: number of images of the validation split; None: unknown. The number
            of images per validation is the smaller of this number and `evaluation.limit`, or the
            one that is not None.
        """
        limit = config.evaluation.limit
        if validation_images is not None and limit is not None:
            limit = min(limit, validation_images)
        steps = config.training.num_steps
        validated, saved = (
            {*range(every, steps, every), steps}
            for every in (config.evaluation.every_steps, config.checkpoint.every_steps)
        )
        return cls(
            num_steps=steps,
            global_batch=config.training.batch_size,
            validations=len(validated),
            validation_images=validation_images if limit is None else limit,
            # The loop also saves after each validation.
            saves=len(validated | saved),
            num_hosts=num_hosts,
            workers=config.data.workers,
            pixels=math.prod(crop_size),
        )


@dataclasses.dataclass(frozen=True)
class Duration:
    """Estimated duration of the parts of a training run, in seconds.

    Attributes:
      steps: training steps, without waiting for input.
      validations: all validations.
      saves: time during which saving checkpoints blocks training.
      start_up: imports, reading the initial checkpoint, and compilation.
      input: time during which the chips wait for images.
      cores: minimum number of cores per host with which the chips do not wait for images.
      bound: what limits the speed of a step: `input` if the chips wait for images, otherwise
        `Estimate.bound`, the part that takes most of the estimated step time.
    """

    steps: float
    validations: float
    saves: float
    start_up: float
    input: float
    cores: int
    bound: str

    @property
    def total(self) -> float:
        """Duration of the whole run."""
        return self.steps + self.validations + self.saves + self.start_up + self.input

    @property
    def goodput(self) -> float:
        """Fraction of the time after start-up in which the chips train or validate."""
        return (self.steps + self.validations) / (self.total - self.start_up)


def estimate_duration(
    schedule: Schedule,
    *,
    step_seconds: float,
    bound: str,
    state_bytes: int,
    compile_seconds: float,
) -> Duration:
    """Estimates the duration of a run.

    The first host copies the state from its chips while training waits, and writes it to storage
    during the next steps. If writing takes longer than the steps up to the next checkpoint,
    training waits. Validation images are assumed to be as large as training images.

    Args:
      schedule: settings of the run.
      step_seconds: time of a training step, in seconds.
      bound: name of the part that takes most of `step_seconds`, see `Estimate.bound`.
      state_bytes: size of a checkpoint, in bytes.
      compile_seconds: time of compilation, in seconds.
    """
    steps = schedule.num_steps * step_seconds
    between = steps / max(schedule.saves, 1)
    waiting = max(0.0, state_bytes / WRITE_BANDWIDTH - between)
    saves = schedule.saves * (SAVE_SECONDS + state_bytes / COPY_BANDWIDTH + waiting)
    per_image = step_seconds / PASSES / schedule.global_batch
    validated = schedule.validations * (schedule.validation_images or 0)
    reading = INPUT_SECONDS * schedule.pixels / INPUT_PIXELS * schedule.global_batch
    per_host = reading / schedule.num_hosts
    limited = per_host / schedule.workers if schedule.workers else 0.0
    return Duration(
        steps=steps,
        validations=validated * per_image,
        saves=saves,
        start_up=START_SECONDS + compile_seconds,
        input=schedule.num_steps * max(0.0, limited - step_seconds),
        cores=math.ceil(per_host / step_seconds),
        bound="input" if limited > step_seconds else bound,
    )
