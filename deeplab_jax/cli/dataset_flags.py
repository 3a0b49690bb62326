"""The flags that say which images of which data set a command goes through."""

from absl import flags as absl_flags


def define_dataset_flags(
    flags: absl_flags.FlagValues, split: str, limit: int | None = None
) -> None:
    """Defines --dataset, --split, --data_dir, --size, --limit, --batch_size and --workers.

    Args:
      flags: of the command.
      split, limit: defaults of the flags.
    """
    own = {"flag_values": flags}
    absl_flags.DEFINE_string("dataset", None, "Name of a prepared data set.", **own)
    absl_flags.DEFINE_string("split", split, "Split of the data set.", **own)
    absl_flags.DEFINE_string("data_dir", None, "Directory of the prepared data sets.", **own)
    absl_flags.DEFINE_string(
        "size", None, "Height x width that images are padded to, as in 513x513.", **own
    )
    count = {"lower_bound": 1, "flag_values": flags}
    absl_flags.DEFINE_integer("limit", limit, "Only the first so many images.", **count)
    absl_flags.DEFINE_integer("batch_size", 8, "Images at a time, over all devices.", **count)
    absl_flags.DEFINE_integer("workers", 0, "Processes that read ahead.", lower_bound=0, **own)
