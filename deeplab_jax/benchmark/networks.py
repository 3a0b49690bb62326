"""Networks as the benchmarks name them: ARCHITECTURE or ARCHITECTURE/BACKBONE."""

from deeplab_jax.models import list_models


def split_network(name: str) -> tuple[str, dict[str, str]]:
    """Returns an architecture's name and the keyword that `/BACKBONE` is short for.

    Names are checked where the model is made, so that mistakes are told there.
    """
    if name in list_models() or "/" not in name:
        return name, {}
    architecture, _, backbone = name.rpartition("/")
    return architecture, {"backbone": backbone}
