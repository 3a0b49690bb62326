"""usage: deeplab-jax models

Lists the architectures, the backbones with their keywords, and the pretrained weights. For
pretrained weights, the list states network, classes, published accuracy and license. Other commands
accept the name of pretrained weights as --model; `convert` accepts it as SOURCE.

example:
  deeplab-jax models
"""

from deeplab_jax import pretrained
from deeplab_jax.cli.console import Console
from deeplab_jax.cli.flags import Flags
from deeplab_jax.named_architectures import BACKBONE_KEYWORDS, list_models


def define_flags(flags: Flags) -> None:
    """Defines no flags; the command has only the flags that all commands have."""


def run(flags: Flags, paths: list[str], console: Console) -> None:
    """Prints the architectures, the backbones and the pretrained weights."""
    flags.refuse("models", paths)
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
