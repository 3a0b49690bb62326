"""usage: deeplab-jax predict --model=M --output=DIR PATH… [--flag=value …]

Writes, for each image, NAME.png (a palette PNG: the class index of every pixel, of the image's
size) and NAME_overlay.png. A PATH is an image or a folder, which is searched with its subfolders;
their names are kept below DIR. M is the workdir of a training run.

All images are read before anything is written: one that is damaged stops the command, or is left
out and counted under --skip_bad. Inputs are never overwritten.

example:
  deeplab-jax predict --model=runs/camvid --output=predictions photos street.jpg
"""

from absl import flags as absl_flags

from deeplab_jax.cli.console import Console
from deeplab_jax.cli.model_flags import define_model_flags, load_predictor, required


def define_flags(flags: absl_flags.FlagValues) -> None:
    """Defines the flags of the command."""
    define_model_flags(flags)
    own = {"flag_values": flags}
    absl_flags.DEFINE_string("output", None, "Directory for the predictions.", **own)
    absl_flags.DEFINE_bool(
        "probabilities",
        False,
        "Write NAME_probabilities.npz too: probabilities, float16 [height, width, classes], and "
        "class_names.",
        **own,
    )
    absl_flags.DEFINE_bool("overwrite", False, "Replace predictions that exist.", **own)
    absl_flags.DEFINE_bool("skip_bad", False, "Leave out images that cannot be read.", **own)


def run(flags: absl_flags.FlagValues, paths: list[str], console: Console) -> None:
    """Predicts every image and says where the files are."""
    required(flags, "model", "output")
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.inference import plan_files, predict_files, readable_files

    jobs = plan_files(
        paths, flags.output, probabilities=flags.probabilities, overwrite=flags.overwrite
    )
    jobs = readable_files(jobs, skip_bad=flags.skip_bad, reporter=console)
    predict_files(load_predictor(flags), jobs, console)
    console.print(f"{len(jobs)} predictions are in {flags.output}")
