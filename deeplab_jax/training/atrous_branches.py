"""Names of ASPP's branches where a run goes on at another output stride."""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any

from deeplab_jax.models.atrous_branches import branch_rates, rename_branches

Path = tuple[str, ...]


def at_rates_of(given: Mapping[Path, Any], wanted: Iterable[Path]) -> Mapping[Path, Any]:
    """Returns arrays under the names that their branches have at another output stride.

    A branch is named by its rate, and rates keep their extent in the image: all of them double when
    the output stride halves. Where rates differ in another way, they are other branches.

    Args:
      given: arrays by path, as trained.
      wanted: paths in the network to train.

    Source: DeepLab v3, section 3.3.
    """
    old, new = branch_rates(given), branch_rates(wanted)
    if len(old) != len(new) or len({Fraction(b, a) for a, b in zip(old, new, strict=True)}) != 1:
        return given
    return rename_branches(given, dict(zip(old, new, strict=True)))
