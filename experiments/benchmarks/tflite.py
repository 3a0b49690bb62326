"""Baseline: published TFLite file of DeepLab v3 with MobileNetV2 of half width, run by LiteRT."""

import importlib

import numpy as np

from deeplab_jax.benchmark import networks as ours
from deeplab_jax.benchmark.networks import Contender
from deeplab_jax.errors import DeepLabError
from deeplab_jax.parallel.chips import cores
from deeplab_jax.pretrained import convert, find_pretrained
from deeplab_jax.pretrained.location import fetch
from deeplab_jax.reporter import LoggingReporter
from experiments.benchmarks.baselines import Match, Workload, relative_difference

NAME = "TFLite (XNNPACK)"
WEIGHTS = {"mobilenet_v2": "deeplabv3_mobilenetv2_dm05_voc_tflite"}


def forward(work: Workload) -> Match:
    """Returns forward passes of deeplab_jax and of the TFLite file, ready to be timed.

    The input of the TFLite file has a fixed batch size and a fixed image size of 257 × 257 pixels.
    Both networks return logits at image size. The memory of the baseline is not measured.

    Raises:
      DeepLabError: LiteRT is not installed, the file cannot be downloaded, or `work` does not have
        the image size and batch size of the TFLite file's input.
    """
    file = fetch(find_pretrained(WEIGHTS[work.network]), LoggingReporter())
    interpreter = _interpreter(str(file))
    wanted = tuple(int(length) for length in interpreter.get_input_details()[0]["shape"][:3])
    if wanted != (work.batch_size, *work.size):
        legal = f"--size={wanted[1]}x{wanted[2]} --batch_size={wanted[0]}"
        raise DeepLabError(f"{file.name} has a fixed image size and batch size; give {legal}")
    conversion = convert(file)
    model = conversion.description.create_model()
    image = ours.random_batch(work.batch_size, work.size, model.architecture.num_classes)["image"]
    pixels = image.astype(np.float32) / 127.5 - 1

    def run() -> np.ndarray:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    mine = ours.forward(model, conversion.variables, image)
    return Match(
        f"published DeepLab v3 0.5 {work.title('forward')}",
        mine,
        Contender(NAME, run),
        ours.forward_operations(model, image),
        relative_difference(mine.run(), run()),
    )


def _interpreter(file: str) -> object:
    try:
        library = importlib.import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        raise DeepLabError(
            f"this baseline requires LiteRT ({error}); run pip install 'deeplab_jax[test]'"
        ) from None
    interpreter = library.Interpreter(file, num_threads=cores())
    interpreter.allocate_tensors()
    return interpreter
