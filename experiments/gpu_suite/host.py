"""Parts e and f of the suite: the input pipeline, and a complete training run."""

import functools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from deeplab_jax.benchmark.pipeline import cores_to_feed, measure_pipeline
from deeplab_jax.errors import DeepLabError
from deeplab_jax.parallel.chips import cores
from experiments.gpu_suite.rows import Measurement, read

CLASSES = 11
TOY_FRAMES = {"train": 6, "val": 2}
TOY_OVERRIDES = {
    "augmentation.crop_size": "(33,33)",
    "training.batch_size": "2",
    "evaluation.batch_size": "2",
}


def input_pipeline(toy: bool, output: Path) -> list[Measurement]:
    """Returns the measurements of part e: throughput of the input pipeline.

    The pipeline makes 513 × 513 crops of synthetic JPEG images of 500 × 500 pixels, with threads
    and with processes.

    Args:
      toy: whether to use smaller and fewer images, and threads only.
      output: directory of the results of the suite, to which the images are written.
    """
    size, images = (64, 16) if toy else (500, 200)
    found = []
    for workers in (0,) if toy else (0, max(1, cores() - 2)):
        run = functools.partial(_pipeline, output, size, images, workers)
        settings = {"work": "input pipeline", "side": size, "images": images, "workers": workers}
        found.append(Measurement(settings, run))
    return found


def _pipeline(output: Path, size: int, images: int, workers: int) -> dict[str, Any]:
    from deeplab_jax.data import Augmentation, open_dataset
    from deeplab_jax.data.builders.shapes import Shapes
    from deeplab_jax.data.preparation import prepare
    from deeplab_jax.reporter import Reporter

    folder = output / f"images_{size}"
    numbers = {"num_train": images, "num_val": 2, "size": size}
    prepare(functools.partial(Shapes, data_dir=folder, **numbers), reporter=Reporter())
    dataset = open_dataset("shapes", folder, "train")
    crop = (size + 13, size + 13)
    figures = measure_pipeline(dataset, Augmentation(crop), num_images=images, workers=workers)
    needed = _steps_images_per_second(output, least=size // 2)
    per_core = figures["images_per_second_per_core"]
    required = {name: cores_to_feed(speed, per_core) for name, speed in needed.items()}
    return figures | {
        "cores": cores(),
        "step_images_per_second": needed,
        "cores_to_feed_the_step": required,
    }


def _steps_images_per_second(output: Path, least: int) -> dict[str, float]:
    """Returns the throughput of training steps in images per second, by network.

    The throughputs are read from the results of parts a and c in the directory `output`.

    Args:
      output: directory of the results of the suite.
      least: smallest height and width, in pixels, of the images of a step. Results with smaller
        images, such as those of --toy, are ignored.
    """
    rows = [row for part in "ac" for row in read(output / f"{part}.jsonl")]
    return {
        row["settings"]["network"]: row["figures"]["images_per_second"]
        for row in rows
        if row["status"] == "measured"
        and "images_per_second" in row["figures"]
        and min(row["settings"]["size"]) >= least
    }


def camvid(toy: bool, output: Path, source: Path | None) -> list[Measurement]:
    """Returns the measurement of part f: training with `configs/camvid.py` from random weights.

    Args:
      toy: whether to train only two steps, on random images.
      output: directory of the results, to which dataset and workdir are written.
      source: directory of the raw CamVid images and masks. None: the measurement is skipped,
        unless `toy` is set.
    """
    config = "camvid:cpu,steps=2" if toy else "camvid"
    run = functools.partial(_camvid, config, toy, output.absolute(), source)
    return [Measurement({"work": "training on CamVid", "config": config}, run)]


def _camvid(config: str, toy: bool, output: Path, source: Path | None) -> dict[str, Any]:
    if toy:
        source = _toy_frames(output / "camvid_source")
    if source is None:
        raise DeepLabError(
            "part f requires --camvid=DIR, the directory of CamVid with train/, trainannot/, …"
        )
    # The toy run has other data and another config, which the complete run must not resume.
    name = "camvid_toy" if toy else "camvid"
    data, workdir = output / f"{name}_data", output / name
    _command("prepare", "camvid", f"--source={source}", f"--data_dir={data}")
    changes = {"data.data_dir": str(data)} | (TOY_OVERRIDES if toy else {})
    flags = [f"--config.{name}={value}" for name, value in changes.items()]
    started = time.time()
    _command("train", f"--config={config}", f"--workdir={workdir}", *flags)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    last: dict[str, Any] = {}
    for line in lines:
        last |= json.loads(line)
    figures = {name: value for name, value in last.items() if _is_number(value)}
    return {"seconds_of_the_last_call": time.time() - started, "last": figures}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _command(*arguments: str) -> None:
    """Runs a command of deeplab-jax; raises RuntimeError if its exit status is not 0."""
    line = [sys.executable, "-m", "deeplab_jax.cli.main", *arguments]
    answer = subprocess.run(line, env=os.environ, check=False)
    if answer.returncode:
        raise RuntimeError(f"{' '.join(line[2:])} failed with exit status {answer.returncode}")


def _toy_frames(folder: Path) -> Path:
    """Writes small random frames and labels in the directory layout of CamVid."""
    import cv2

    random = np.random.default_rng(0)
    for split, count in TOY_FRAMES.items():
        for kind in ("", "annot"):
            (folder / f"{split}{kind}").mkdir(parents=True, exist_ok=True)
        for index in range(count):
            name = f"{split}{index}.png"
            image = random.integers(0, 256, (36, 48, 3), np.uint8)
            label = np.repeat(random.integers(0, CLASSES, (36, 4), np.uint8), 12, axis=1)
            cv2.imwrite(str(folder / split / name), image)
            cv2.imwrite(str(folder / f"{split}annot" / name), label)
    return folder
