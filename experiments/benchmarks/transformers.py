"""Baseline: DeepLab v3 with MobileNetV2 of Hugging Face transformers.

The network of deeplab_jax has the same weights.
"""

from typing import Any

from deeplab_jax.benchmark import networks as ours
from experiments.benchmarks.baselines import Match, Workload, relative_difference
from experiments.benchmarks.pytorch import import_library, open_pytorch
from experiments.benchmarks.weights import converted

NAME = "transformers"
NUM_CLASSES = 21
OUTPUT_STRIDE = 16


def forward(work: Workload) -> Match:
    """Returns forward passes of deeplab_jax and of transformers, ready to be timed.

    transformers returns logits at the resolution of the head. The baseline resizes them to the
    image size, as the post-processing of transformers does, because deeplab_jax also resizes its
    logits.
    """
    pytorch = open_pytorch(work)
    library = import_library("transformers")
    configuration = library.MobileNetV2Config(
        output_stride=OUTPUT_STRIDE, num_labels=NUM_CLASSES, tf_padding=True
    )
    theirs = pytorch.placed(library.MobileNetV2ForSemanticSegmentation(configuration))
    image = ours.random_batch(work.batch_size, work.size, NUM_CLASSES)["image"]
    overrides = {"dtype": work.dtype, "output_stride": OUTPUT_STRIDE, "align_corners": False}
    model, variables = converted(pytorch.torch, theirs, **overrides)
    resize = pytorch.torch.nn.functional.interpolate

    def logits(pixels: Any) -> Any:
        return resize(theirs(pixels).logits, size=work.size, mode="bilinear", align_corners=False)

    mine = ours.forward(model, variables, image)
    other = pytorch.forward(NAME, theirs, logits, pytorch.pixels(image, (0.5,) * 3, (0.5,) * 3))
    return Match(
        f"DeepLab v3 {work.title('forward')}",
        mine,
        other,
        ours.forward_operations(model, image),
        relative_difference(mine.run(), pytorch.numpy(other.run())),
    )
