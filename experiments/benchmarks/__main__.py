"""Times deeplab_jax and a baseline alternately, on the same work.

usage: python -m experiments.benchmarks KIND [--flag=value …]

forward    forward pass; the baseline is another codebase (--baseline), and both use its weights if
           these can be converted
training   training step; the baseline is another codebase (--baseline)
pipeline   processor time of the input pipeline; the baseline is torchvision's transforms in a
           DataLoader
fast_paths each fast path of `deeplab_jax.ops`; the baseline is its reference implementation

examples:
  python -m experiments.benchmarks forward --baseline=torchvision --network=deeplabv3_resnet50
  python -m experiments.benchmarks training --baseline=straightforward --size=257x257 --batch_size=4
  python -m experiments.benchmarks fast_paths --repetitions=15
  python -m experiments.benchmarks pipeline --dataset=voc_segmentation --data_dir=data
"""

import argparse
import json
import os
import sys
from typing import Any

from deeplab_jax.cli.benchmark import TRAINING_BATCH
from deeplab_jax.cli.entry import use_huge_pages
from deeplab_jax.cli.flags import parse_size
from deeplab_jax.errors import DeepLabError

NETWORKS = ("baseline", "network", "size", "batch_size", "dtype", "compiled", "repetitions")
# Flags that each kind of benchmark reads.
READ = {
    "forward": NETWORKS,
    "training": NETWORKS,
    "pipeline": ("dataset", "data_dir", "size", "num_images", "repetitions"),
    "fast_paths": ("path", "repetitions"),
}


def main(words: list[str]) -> int:
    """Runs one benchmark, prints the result as JSON and returns the exit status."""
    parser = argparse.ArgumentParser(
        "experiments.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("kind", choices=tuple(READ))
    parser.add_argument(
        "--baseline", default="straightforward", help="name of the baseline (default: %(default)s)"
    )
    parser.add_argument(
        "--network", default="", help="network of the baseline (default: its first one)"
    )
    parser.add_argument(
        "--size",
        default="513x513",
        help="height x width of images, in pixels (default: %(default)s)",
    )
    parser.add_argument(
        "--batch_size",
        type=int,
        help=f"images per batch (default: forward 1, training {TRAINING_BATCH})",
    )
    parser.add_argument(
        "--dtype", default="float32", help="float32 or bfloat16 (default: %(default)s)"
    )
    parser.add_argument("--compiled", action="store_true", help="run PyTorch with torch.compile")
    parser.add_argument(
        "--repetitions", type=int, default=5, help="number of timed runs (default: %(default)s)"
    )
    parser.add_argument("--path", default="", help="fast_paths: name of a fast path (default: all)")
    parser.add_argument("--dataset", help="pipeline: name of a prepared dataset")
    parser.add_argument("--data_dir", help="pipeline: directory of the prepared datasets")
    parser.add_argument(
        "--num_images",
        type=int,
        default=400,
        help="pipeline: number of images per run (default: %(default)s)",
    )
    flags = parser.parse_args(words)
    # Otherwise JAX allocates most of the accelerator's memory, which PyTorch needs.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        _check(flags, words)
        figures = {"pipeline": _pipeline, "fast_paths": _fast_paths}.get(flags.kind, _networks)(
            flags
        )
    except DeepLabError as error:
        print(error, file=sys.stderr)
        return 2
    from deeplab_jax.benchmark.machine import describe_machine

    print(json.dumps(figures | {"machine": describe_machine()}, indent=2))
    return 0


def _check(flags: argparse.Namespace, words: list[str]) -> None:
    """Checks that the benchmark reads all flags in `words`, and that counts are at least 1."""
    given = [word.partition("=")[0][2:] for word in words if word.startswith("--")]
    unread = [name for name in given if name not in READ[flags.kind]]
    if unread:
        legal = ", ".join(f"--{name}" for name in READ[flags.kind])
        raise DeepLabError(
            f"--{unread[0]} has no effect on the benchmark {flags.kind}; its flags are {legal}"
        )
    for name in ("repetitions", "batch_size", "num_images"):
        value = getattr(flags, name)
        if value is not None and value < 1:
            raise DeepLabError(f"--{name}={value} must be at least 1")


def _networks(flags: argparse.Namespace) -> dict[str, Any]:
    from deeplab_jax.benchmark.machine import measure_peaks
    from experiments.benchmarks.baselines import Workload, make_match, measure

    size = parse_size(flags.size)
    training = flags.kind == "training"
    batch_size = flags.batch_size
    if batch_size is None:
        batch_size = TRAINING_BATCH if training else 1
    work = Workload(flags.network, size, batch_size, flags.dtype, flags.compiled)
    match = make_match(flags.baseline, work, training)
    return measure(match, flags.repetitions) | measure_peaks(flags.dtype)


def _fast_paths(flags: argparse.Namespace) -> dict[str, Any]:
    from experiments.benchmarks.fast_paths import measure_paths

    return measure_paths(flags.path, flags.repetitions)


def _pipeline(flags: argparse.Namespace) -> dict[str, Any]:
    from deeplab_jax.data import Augmentation, open_dataset
    from experiments.benchmarks.torchvision_data import measure_pipeline

    if not flags.dataset or not flags.data_dir:
        raise DeepLabError("the benchmark pipeline requires --dataset and --data_dir; see --help")
    dataset = open_dataset(flags.dataset, flags.data_dir, "train")
    if not dataset.descriptor.bands.are_rgb:
        raise DeepLabError(
            f"the images of {flags.dataset} are not 8-bit RGB, which the baseline requires; give "
            "another --dataset, or use `deeplab-jax benchmark pipeline`"
        )
    return measure_pipeline(
        dataset,
        Augmentation(parse_size(flags.size)),
        num_images=flags.num_images,
        repetitions=flags.repetitions,
    )


if __name__ == "__main__":
    # Both programs then run like the commands of deeplab_jax.
    use_huge_pages()
    sys.exit(main(sys.argv[1:]))
