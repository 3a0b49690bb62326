"""usage: deeplab-jax models

Lists the architectures, the backbones that each of them runs on, and the pretrained weights that
--model and convert take by name, a line each: network, classes, published figure, licence.

example:
  deeplab-jax models
"""

from absl import flags as absl_flags

from deeplab_jax.cli.console import Console
from deeplab_jax.errors import DeepLabError


def define_flags(flags: absl_flags.FlagValues) -> None:
    """The command has no flags of its own."""


def run(flags: absl_flags.FlagValues, paths: list[str], console: Console) -> None:
    """Prints the list."""
    if paths:
        raise DeepLabError(f"models takes no argument {paths[0]!r}")
    # Imported late, so that --help and mistakes answer at once.
    from deeplab_jax.backbones import BACKBONES
    from deeplab_jax.models import list_models
    from deeplab_jax.pretrained import list_pretrained

    console.print("architectures:")
    for name, summary in list_models().items():
        console.print(f"  {name:<42}{summary}")
    console.print("backbones:")
    for name, entry in BACKBONES.items():
        options = f" (takes {', '.join(entry.options)})" if entry.options else ""
        console.print(f"  {name}{options}")
    console.print("pretrained weights:")
    for name, published in list_pretrained().items():
        console.print(f"  {name:<50}{published}")
