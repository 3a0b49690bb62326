"""Command-line flags: definition, groups for several commands, and parsing of values."""

import math
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from absl import flags as absl_flags

from deeplab_jax import data, inference, loading, pretrained
from deeplab_jax.declarations import parse_literal
from deeplab_jax.errors import DeepLabError
from deeplab_jax.files import ENGINES
from deeplab_jax.reporter import Reporter

if TYPE_CHECKING:
    from ml_collections import ConfigDict

Number = TypeVar("Number", int, float)
MODEL_HELP = (
    "Model to load: the workdir of a training run, a model directory, a model on the Hugging Face "
    "Hub as hf://user/name, or a name that `deeplab-jax models` lists."
)
ENGINE_HELP = (
    "Runtime that executes the network: jax, onnx (ONNX Runtime) or tflite (LiteRT). With onnx and "
    "tflite, the network runs on the CPU, and the command exports it to a cached file once per "
    "image size (default: jax; if --model is an exported file, the runtime of that file)."
)
DEFINE: dict[type, Callable[..., object]] = {
    bool: absl_flags.DEFINE_bool,
    float: absl_flags.DEFINE_float,
    int: absl_flags.DEFINE_integer,
    list: absl_flags.DEFINE_list,
    str: absl_flags.DEFINE_string,
    type(None): absl_flags.DEFINE_string,
}


class _OptionalValue(absl_flags.ArgumentParser[str]):
    """Parser of a flag with an optional value: `--NAME`, `--NAME=VALUE` and `--noNAME`.

    absl passes `true` to the parser for `--NAME`, and `false` for `--noNAME`. The parser returns
    the constructor's `bare` for `true`, None for `false`, and any other text unchanged.
    """

    syntactic_help = "a value, or nothing for the default"

    def __init__(self, bare: str) -> None:
        """Creates a parser whose result for a flag without a value is `bare`."""
        self._bare = bare

    def parse(self, argument: str | None) -> str | None:
        if argument == "true":
            return self._bare
        return None if argument == "false" else argument


class Flags(absl_flags.FlagValues):
    """Flags of one command, with methods that define and read groups of flags."""

    def define(
        self,
        name: str,
        default: Any,
        help: str,
        *,
        choices: Sequence[str] = (),
        least: int | None = None,
        bare: str = "",
    ) -> None:
        """Defines a flag.

        Args:
          name: name of the flag.
          default: default value, which determines the type of the flag (None: text). A type (bool,
            float, int or list) as `default` defines a flag of this type with the default None.
          help: description with unit and range, printed by --help.
          choices: legal values; empty: all values of the type.
          least: smallest legal integer.
          bare: value of the flag if it is given without a value; empty: a value is required.
        """
        if bare:
            parser = _OptionalValue(bare)
            serializer: absl_flags.ArgumentSerializer[str] = absl_flags.ArgumentSerializer()
            flag = absl_flags.Flag(parser, serializer, name, default, help, boolean=True)
            absl_flags.DEFINE_flag(flag, flag_values=self)
            return
        if choices:
            absl_flags.DEFINE_enum(name, default, choices, help, flag_values=self)
            return
        bound = {} if least is None else {"lower_bound": least}
        kind, value = (default, None) if isinstance(default, type) else (type(default), default)
        DEFINE[kind](name, value, help, flag_values=self, **bound)

    def define_repeatable(self, name: str, help: str) -> None:
        """Defines a text flag that may be given several times; its value is the list of all texts.

        Args:
          name: name of the flag.
          help: description, printed by --help.
        """
        absl_flags.DEFINE_multi_string(name, [], help, flag_values=self)
        # absl appends a sentence to the description.
        self[name].help = help

    def require(self, *names: str) -> None:
        """Checks that flags are given.

        Raises:
          DeepLabError: flags are missing. The message names them.
        """
        missing = [f"--{name}" for name in names if not self[name].value]
        if missing:
            raise DeepLabError(f"{', '.join(missing)} must be given; --help shows an example")

    def refuse(self, command: str, arguments: Sequence[str], instead: str = "") -> None:
        """Checks that the command line contains only flags.

        Args:
          command: name of the command.
          arguments: arguments of the command line that are not flags.
          instead: advice for the message.

        Raises:
          DeepLabError: an argument is not a flag.
        """
        if arguments:
            instead = instead or f"see deeplab-jax {command} --help"
            raise DeepLabError(f"{command} takes only flags, not {arguments[0]!r}; {instead}")

    def numbers(
        self, name: str, kind: type[Number], example: str, least: float = -math.inf
    ) -> tuple[Number, ...]:
        """Parses a flag with numbers, such as 0.5,0.75,1; returns () if the flag is not given.

        Args:
          name: name of the flag.
          kind: int or float.
          example: legal value of the flag, for the error message.
          least: smallest legal number.

        Raises:
          DeepLabError: the value is not a list of numbers, or a number is too small.
        """
        text = self[name].value
        try:
            numbers = tuple(map(kind, text.split(","))) if text is not None else ()
            if all(number >= least for number in numbers):
                return numbers
        except ValueError:
            pass
        bound = "" if least == -math.inf else f" of at least {least}"
        raise DeepLabError(
            f"--{name}={text} is not legal; give numbers{bound}, separated by commas, "
            f"as in {example}"
        )

    def define_model(self, engine: bool = False) -> None:
        """Defines --model, --checkpoint and --ema.

        Args:
          engine: whether to also define --engine, and to accept exported files as --model.
        """
        exported = " Also a .onnx, .tflite or .stablehlo file that `export` wrote."
        self.define("model", None, MODEL_HELP + (exported if engine else ""))
        self.define(
            "checkpoint",
            "best",
            "Checkpoint to load from a workdir: best, last or the number of a training step.",
        )
        self.define(
            "ema",
            bool,
            "Use the exponential moving average of the parameters (default: true if the training "
            "run stored it).",
        )
        if engine:
            self.define("engine", None, ENGINE_HELP, choices=list(ENGINES))

    def load_predictor(
        self, reporter: Reporter
    ) -> "inference.Predictor | inference.ImageClassification":
        """Loads the model that --model, --checkpoint, --ema and --engine select.

        Raises:
          DeepLabError: --model is missing or is not a model, or there is no such checkpoint.
        """
        self.require("model")
        if "engine" not in self:
            pretrained.check_reference(self.model)
        engine = self.engine if "engine" in self else None
        return loading.load(self.model, self.checkpoint, self.ema, reporter, engine)

    def define_config(self) -> None:
        """Defines --config and --override.

        `main` rewrites --config.FIELD=VALUE to --override=FIELD=VALUE before flags are parsed.
        """
        self.define(
            "config",
            None,
            "Path or name of a config, with optional arguments after a colon, as in camvid:cpu or "
            "deeplab_v3:dataset=cityscapes.",
        )
        self.define_repeatable(
            "override",
            "Value of a config field, as FIELD=VALUE; repeat the flag for several fields. "
            "--config.FIELD=VALUE has the same effect.",
        )

    def read_config(self) -> "ConfigDict":
        """Loads the config that --config names and applies each --config.FIELD=VALUE.

        Raises:
          DeepLabError: there is no such config or field, or a value is of the wrong type.
        """
        # The import is local, because most commands do not need ml_collections.
        from deeplab_jax import config

        return self.override_config(config.load(self.config))

    def override_config(self, config: "ConfigDict") -> "ConfigDict":
        """Applies each --config.FIELD=VALUE to a config, and returns the config.

        Raises:
          DeepLabError: there is no such field, or a value is of the wrong type.
        """
        from deeplab_jax.config import override

        for assignment in self.override:
            field, _, value = assignment.partition("=")
            override(config, field, value)
        return config

    def define_dataset(self, split: str, limit: int | type[int] = int) -> None:
        """Defines --dataset, --split, --data_dir, --size, --limit, --batch_size and --workers.

        Args:
          split: default of --split.
          limit: default of --limit. The type `int` means no default: all images are used.
        """
        self.define("dataset", None, "Name of a prepared dataset.")
        self.define("split", split, "Dataset split or a part of a split, as in val or val[50%:].")
        self.define("data_dir", None, "Directory of the prepared datasets.")
        self.define(
            "size",
            None,
            "Height x width in pixels to which images are padded, as in 513x513 (default: depends "
            "on the size of each image).",
        )
        default = "" if isinstance(limit, int) else " (default: all)"
        self.define(
            "limit",
            limit,
            f"Maximum number of images, from the start of the split{default}.",
            least=1,
        )
        self.define("batch_size", 8, "Number of images per batch, across all devices.", least=1)
        self.define(
            "workers",
            0,
            "Number of data-loading processes. With 0, threads of this process load the data.",
            least=0,
        )

    def open_split(self) -> "data.Dataset":
        """Opens the dataset split that --dataset, --data_dir and --split select.

        Raises:
          DeepLabError: the dataset or split does not exist, or the dataset has no images, masks or
            class names.
        """
        return data.open_dataset(self.dataset, self.data_dir, self.split)

    def split_settings(self) -> dict[str, Any]:
        """Returns --size, --batch_size, --workers and --limit as keywords of `evaluate`.

        Raises:
          DeepLabError: the size is not legal.
        """
        settings = {name: self[name].value for name in ("batch_size", "workers", "limit")}
        return settings | {"size": parse_size(self.size)}

    def check_sources(self) -> None:
        """Checks that the model and the dataset exist, before the slow import of JAX.

        Raises:
          DeepLabError: there is no such model or dataset.
        """
        pretrained.check_reference(self.model)
        data.prepared_directory(self.dataset, self.data_dir)

    def define_inference(self, scales: str = "1", flip: bool = False) -> None:
        """Defines --output_stride, --scales, --flip, --tile, --overlap and --crf.

        Args:
          scales, flip: defaults of the flags.
        """
        self.define(
            "output_stride",
            int,
            "Output stride of the encoder: 4, 8, 16 or 32 (default: as trained).",
        )
        self.define(
            "scales",
            scales,
            "Scale factors of the image, separated by commas, as in 0.5,0.75,1. The results at all "
            "scales are fused.",
        )
        self.define("flip", flip, "Also predict the mirrored image, and fuse the results.")
        self.define(
            "tile",
            None,
            "Height x width in pixels of the tiles into which images are divided, as in 513x513 "
            "(default: whole images).",
        )
        self.define(
            "overlap",
            0.25,
            "Margin at each side of a tile, as a fraction in [0, 0.5) of the side length of the "
            "tile. Margins are context for the network; predictions inside them are discarded.",
        )
        self.define(
            "crf",
            None,
            "Refine the result with a dense CRF. --crf uses the published parameters of the "
            "architecture (v3, v3+: those of v2). --crf=NAME uses published parameters by name. "
            "--crf=FILE.json uses the parameters in a file that `crf-search` wrote.",
            bare="default",
        )

    def inference_options(self) -> "inference.InferenceOptions":
        """Returns the inference options that the flags select.

        Raises:
          DeepLabError: a value is illegal. The message states the legal values.
        """
        scales = self.numbers("scales", float, "0.5,0.75,1")
        if not self["overlap"].using_default_value and not self.tile:
            raise DeepLabError("--overlap requires tiles; give --tile, as in --tile=513x513")
        is_file = self.crf is not None and self.crf.endswith(".json")
        return inference.InferenceOptions(
            output_stride=self.output_stride,
            scales=scales,
            flip=self.flip,
            tile=parse_size(self.tile),
            overlap=self.overlap,
            crf=inference.read_crf_parameters(self.crf) if is_file else self.crf,
        )


@overload
def parse_size(text: str) -> tuple[int, int]: ...
@overload
def parse_size(text: None) -> None: ...
def parse_size(text: str | None) -> tuple[int, int] | None:
    """Parses a size such as 513x513 to (height, width); returns None for None.

    Raises:
      DeepLabError: the text is not height x width.
    """
    if text is None:
        return None
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise DeepLabError(f"size {text!r} is not legal; give height x width, as in 513x513")
    return int(height), int(width)


def parse_keywords(text: str, separator: str = ",") -> dict[str, Any]:
    """Parses pairs KEY=VALUE into a dict; values are Python literals or strings.

    Args:
      text: KEY=VALUE pairs; may be empty.
      separator: character between pairs; inside brackets it is part of the value.

    Raises:
      DeepLabError: a part is not KEY=VALUE, a key is repeated, or a value in brackets is not a
        Python literal.
    """
    keywords: dict[str, Any] = {}
    # A separator that is not followed by KEY= is part of a value.
    parts = re.split(rf"{separator}(?=\s*\w+\s*=)", text) if text.strip() else []
    for part in parts:
        key, _, value = (piece.strip() for piece in part.partition("="))
        is_sequence = value[:1] in ("(", "[", "{")
        if not (key.isidentifier() and value) or (separator in value and not is_sequence):
            raise DeepLabError(
                f"{part.strip()!r} must be KEY=VALUE; write tuples in brackets, as in "
                "atrous_rates=(12,24,36)"
            )
        if key in keywords:
            raise DeepLabError(f"{key} is given twice; give each key once")
        keywords[key] = parse_literal(value)
        if keywords[key] == value and re.search(r"[()\[\]{}]", value):
            raise DeepLabError(
                f"{value!r} is not a Python literal; close every bracket, and write only numbers, "
                "True, False, None or quoted text inside brackets"
            )
    return keywords
