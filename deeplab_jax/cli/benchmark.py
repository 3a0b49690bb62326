"""usage: deeplab-jax benchmark inference|training|pipeline|shapes|crf [--flag=value …]

inference  a forward pass beside another code's, in turns, with the same weights where they convert
training   a training step beside another code's, in turns
pipeline   training crops a second, for each core and in all, and how many cores feed an accelerator
shapes     the demo's task: DeepLab v3+, the same net at output stride 32 without decoder, and a
           classifier of single pixels, trained and compared (10 minutes on two cores)
crf        seconds that the dense CRF of an image takes, beside pydensecrf, and where they go

examples:
  deeplab-jax benchmark inference --peer=torchvision --network=deeplabv3_resnet50 --size=513x513
  deeplab-jax benchmark training --peer=straightforward --size=257x257 --batch_size=4
  deeplab-jax benchmark pipeline --dataset=voc_segmentation --data_dir=data
  deeplab-jax benchmark shapes --data_dir=runs/demo/data --workdir=runs/shapes_task
  deeplab-jax benchmark crf --image=photo.jpg --num_classes=21 --crf=deeplab_largefov
"""

import json
import pathlib

from absl import flags as absl_flags

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.model_flags import parse_size, required
from deeplab_jax.errors import DeepLabError, unknown_name

BENCHMARKS = ("inference", "training", "pipeline", "shapes", "crf")


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags of the command."""
    own = {"flag_values": flags}
    absl_flags.DEFINE_string("peer", "straightforward", "The code to measure beside.", **own)
    absl_flags.DEFINE_string("network", None, "One of the peer's (default: its first).", **own)
    absl_flags.DEFINE_string("size", "513x513", "Of images: height x width in pixels.", **own)
    absl_flags.DEFINE_integer("batch_size", 1, "Images at once.", lower_bound=1, **own)
    absl_flags.DEFINE_string("dataset", None, "pipeline: name of a prepared data set.", **own)
    absl_flags.DEFINE_string("data_dir", None, "Directory of the prepared data sets.", **own)
    absl_flags.DEFINE_string("crop", "513x513", "pipeline: height x width in pixels.", **own)
    absl_flags.DEFINE_float(
        "consumes", 600.0, "pipeline: images a second that an accelerator trains on.", **own
    )
    absl_flags.DEFINE_string("workdir", None, "shapes: where the two runs are written.", **own)
    absl_flags.DEFINE_string("image", None, "crf: a file (default: an image that is made).", **own)
    absl_flags.DEFINE_string("crf", "deeplab_largefov", "crf: published parameters.", **own)
    absl_flags.DEFINE_integer("num_classes", 21, "crf: of the scores.", lower_bound=2, **own)
    absl_flags.DEFINE_integer("repetitions", 5, "For the medians.", lower_bound=1, **own)
    absl_flags.DEFINE_bool("json", False, "Print JSON instead of text.", **own)
    count = {"lower_bound": 0, "flag_values": flags}
    absl_flags.DEFINE_integer("num_images", 400, "pipeline: to make for each figure.", **count)
    absl_flags.DEFINE_integer("workers", 0, "pipeline: processes that read ahead.", **count)


def run(flags: absl_flags.FlagValues, paths: list[str], console: Console) -> None:
    """Runs one benchmark and prints its figures."""
    if len(paths) != 1:
        raise DeepLabError(f"benchmark takes one of: {', '.join(BENCHMARKS)}")
    if paths[0] not in BENCHMARKS:
        raise unknown_name("benchmark", paths[0], BENCHMARKS)
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.benchmark.machine import describe_machine

    measures = {"inference": _inference, "training": _training}
    measures |= {"pipeline": _pipeline, "shapes": _shapes, "crf": _crf}
    figures = measures[paths[0]](flags, console)
    if flags.json:
        console.print(json.dumps(figures | {"machine": describe_machine()}, indent=2))
        return
    for name, value in figures.items():
        console.print(f"{name.replace('_', ' '):<34}{_text(value)}")


def _text(value: object) -> str:
    if isinstance(value, int | float):
        return f"{value:>10.3f}" if abs(value) < 1e6 else f"{value:>10.3e}"
    if isinstance(value, list):
        return " to ".join(_text(item).strip() for item in value)
    return "not known" if value is None else str(value)


def _inference(flags: absl_flags.FlagValues, console: Console) -> dict[str, object]:
    return _beside_peer(flags, console, training=False)


def _training(flags: absl_flags.FlagValues, console: Console) -> dict[str, object]:
    return _beside_peer(flags, console, training=True)


def _beside_peer(
    flags: absl_flags.FlagValues, console: Console, training: bool
) -> dict[str, object]:
    from deeplab_jax.benchmark.contenders import measure
    from deeplab_jax.benchmark.peaks import measure_peaks
    from deeplab_jax.benchmark.peers import find_peer

    peer, network = find_peer(flags.peer, flags.network, training)
    prepare = peer.training if training else peer.forward
    match = prepare(network, parse_size(flags.size), flags.batch_size)
    console.message(f"{match.work}: ours and {match.theirs.name} in turns")
    return measure(match, flags.repetitions) | measure_peaks()


def _pipeline(flags: absl_flags.FlagValues, console: Console) -> dict[str, float]:
    required(flags, "dataset", "data_dir")
    from deeplab_jax.benchmark.pipeline import cores_to_feed, measure_pipeline
    from deeplab_jax.data import Augmentation, open_dataset

    dataset = open_dataset(flags.dataset, flags.data_dir, "train")
    augmentation = Augmentation(parse_size(flags.crop), scale_step=0.25)
    figures = measure_pipeline(
        dataset, augmentation, num_images=flags.num_images, workers=flags.workers
    )
    per_core = figures["images_per_second_per_core"]
    return figures | {
        "accelerator_images_per_second": flags.consumes,
        "cores_to_feed_it": cores_to_feed(flags.consumes, per_core),
    }


def _shapes(flags: absl_flags.FlagValues, console: Console) -> dict[str, float]:
    required(flags, "data_dir", "workdir")
    from deeplab_jax.benchmark.shapes_task import network_mean_iou, per_pixel_mean_iou
    from deeplab_jax.data import open_dataset

    workdir, data_dir = pathlib.Path(flags.workdir), pathlib.Path(flags.data_dir)
    splits = [open_dataset("shapes", data_dir, split) for split in ("train", "val")]
    return {
        "per_pixel_mean_iou": per_pixel_mean_iou(*splits),
        "deeplab_v3plus_mean_iou": network_mean_iou(workdir / "v3plus", data_dir, console),
        "stride_32_no_decoder_mean_iou": network_mean_iou(
            workdir / "stride_32", data_dir, console, output_stride=32, decoder="none"
        ),
    }


def _crf(flags: absl_flags.FlagValues, console: Console) -> dict[str, float]:
    from deeplab_jax.benchmark.crf import made_image, made_logits, measure_crf
    from deeplab_jax.crf import crf_parameters
    from deeplab_jax.data.images import read_image

    parameters = crf_parameters(flags.crf)
    image = read_image(pathlib.Path(flags.image)) if flags.image else made_image()
    console.message(f"{image.shape[1]} x {image.shape[0]} pixels, {flags.num_classes} classes")
    logits = made_logits(image.shape[:2], flags.num_classes)
    return measure_crf(image, logits, parameters, repetitions=flags.repetitions)
