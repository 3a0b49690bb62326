"""How another code names and lays out what a network here consists of."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from deeplab_jax.pretrained.name_maps.rules import Rule
from deeplab_jax.pretrained.published import PublishedWeights

# The architecture of a classifier of whole images, which `create_classifier` makes.
IMAGE_CLASSIFIER = "image_classifier"


class Identified(NamedTuple):
    """A network recognised by the names and shapes of its arrays.

    Attributes:
      architecture: a name that `list_models` tells, or `IMAGE_CLASSIFIER`.
      overrides: keywords that `create_model` takes.
    """

    architecture: str
    overrides: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Convention:
    """The names of another code.

    Attributes:
      name: of the code, for messages.
      identify: tells the network; None where the arrays are not of this code.
      rules: gives the name map of a network that `identify` told.
      leaves: our array of a module (`kernel`, `bias`, `scale`, `offset`, `mean`, `var`) → names it
        may go by, with `{convolution}` and `{norm}` for the scopes.
      norm: scope of a normalisation where a rule does not tell, with `{convolution}`.
      ignored: pattern of names that belong to no network → why they are left out.
    """

    name: str
    identify: Callable[[PublishedWeights], Identified | None]
    rules: Callable[[Identified], Sequence[Rule]]
    leaves: Mapping[str, Sequence[str]]
    norm: str = ""
    ignored: Mapping[str, str] = dataclasses.field(default_factory=dict)
