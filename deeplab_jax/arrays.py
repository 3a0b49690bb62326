"""Array types with named axes, such as `Float[Array, "N H W C"]`.

Within one call, axes with the same name have the same size; the tests check this at run time. The
types come from jaxtyping. If jaxtyping is not installed, they are plain array types without axes.
"""

import importlib.util
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:
    from jax import Array
else:
    # Functions also accept NumPy arrays, as JAX does.
    Array = jax.Array | np.ndarray
if TYPE_CHECKING or importlib.util.find_spec("jaxtyping"):
    from jaxtyping import Bool, Float, Float32, Int32, Integer, Num, Shaped, UInt8, UInt16
else:

    class Shaped:
        """Substitute for the types of jaxtyping: `Shaped[Array, "N C"]` is `Array`."""

        def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
            """Returns the array type in `item`, a pair (array type, axes)."""
            return item[0]

    Bool = Float = Float32 = Int32 = Integer = Num = UInt8 = UInt16 = Shaped

__all__ = [
    "Array",
    "Bool",
    "Float",
    "Float32",
    "Int32",
    "Integer",
    "Num",
    "Shaped",
    "UInt8",
    "UInt16",
]
