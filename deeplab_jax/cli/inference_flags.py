"""The flags that say how a model is applied to images."""

from typing import TYPE_CHECKING

from absl import flags as absl_flags

from deeplab_jax.cli.model_flags import parse_size
from deeplab_jax.errors import DeepLabError

if TYPE_CHECKING:
    from deeplab_jax.inference import InferenceOptions


class _NameParser(absl_flags.ArgumentParser):
    """Reads --crf, --crf=NAME and --nocrf; absl says `true` and `false` where no value is given."""

    syntactic_help = "a name, or nothing for the default"

    def parse(self, argument: str | None) -> str | None:
        return {"true": "default", "false": None}.get(argument, argument)


def define_inference_flags(flags: absl_flags.FlagValues) -> None:
    """Defines --output_stride, --scales, --flip, --tile, --overlap and --crf."""
    own = {"flag_values": flags}
    absl_flags.DEFINE_integer(
        "output_stride", None, "Of the encoder's map (default: as trained).", **own
    )
    absl_flags.DEFINE_string(
        "scales", "1", "Sizes of the image whose results are fused, as in 0.5,0.75,1.", **own
    )
    absl_flags.DEFINE_bool("flip", False, "Fuse the mirrored image's result, too.", **own)
    absl_flags.DEFINE_string(
        "tile", None, "Height x width of tiles, as in 513x513 (default: whole images).", **own
    )
    absl_flags.DEFINE_float(
        "overlap",
        0.25,
        "Share of a tile, on each side, that only serves as surroundings; below 0.5.",
        **own,
    )
    help_text = (
        "Refine by a dense CRF; --crf=NAME takes another published set of parameters, "
        "--crf=FILE.json those of crf-search."
    )
    absl_flags.DEFINE_flag(
        absl_flags.Flag(
            _NameParser(),
            absl_flags.ArgumentSerializer(),
            "crf",
            None,
            help_text,
            boolean=True,
        ),
        **own,
    )


def parse_options(flags: absl_flags.FlagValues) -> "InferenceOptions":
    """Returns the options that the flags ask for.

    Raises:
      DeepLabError: a value is illegal; says what is legal.
    """
    scales = parse_numbers(flags.scales, "scales", float)
    if not flags["overlap"].using_default_value and not flags.tile:
        raise DeepLabError("--overlap is of tiles; give --tile, too, as in --tile=513x513")
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.inference import InferenceOptions, read_crf_parameters

    is_file = flags.crf is not None and flags.crf.endswith(".json")
    return InferenceOptions(
        output_stride=flags.output_stride,
        scales=scales,
        flip=flags.flip,
        tile=parse_size(flags.tile),
        overlap=flags.overlap,
        crf=read_crf_parameters(flags.crf) if is_file else flags.crf,
    )


def parse_numbers(text: str | None, name: str, kind: type) -> tuple:
    """Returns the numbers of a flag such as 0.5,0.75,1; of None none.

    Raises:
      DeepLabError: the text is something else.
    """
    try:
        return tuple(kind(part) for part in (text.split(",") if text else ()))
    except ValueError:
        example = "0.5,0.75,1" if kind is float else "1,5,10"
        raise DeepLabError(
            f"--{name}={text} is not legal; give numbers with commas between, as in {example}"
        ) from None
