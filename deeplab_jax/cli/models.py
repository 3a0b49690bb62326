"""usage: deeplab-jax models

Lists the architectures, the backbones that each of them runs on, and the pretrained weights that
--model and convert take by name, a line each: network, classes, published figure, licence.

example:
  deeplab-jax models
"""

from deeplab_jax import pretrained
from deeplab_jax.architecture import BACKBONE_KEYWORDS, list_models
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags, refuse_arguments


def define_flags(flags: Flags) -> None:
    """The command has no flags of its own."""


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Prints the list."""
    refuse_arguments("models", paths)
    console.print("architectures:")
    for name, summary in list_models().items():
        console.print(f"  {name:<42}{summary}")
    console.print("backbones:")
    for name, keywords in BACKBONE_KEYWORDS.items():
        takes = f" (takes {', '.join(keywords)})" if keywords else ""
        console.print(f"  {name}{takes}")
    console.print("pretrained weights:")
    for name, published in pretrained.list_pretrained().items():
        console.print(f"  {name:<50}{published}")
