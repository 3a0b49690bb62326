"""Types of arrays with their axes, as in `Float[Array, "N H W C"]`.

Axes of the same name have the same size within one call. The tests check the annotations at run
time. jaxtyping defines the types; without it, they are types of arrays of any shape.
"""

import importlib.util
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

if TYPE_CHECKING:
    from jax import Array
else:
    # JAX takes NumPy's arrays, too.
    Array = jax.Array | np.ndarray
if TYPE_CHECKING or importlib.util.find_spec("jaxtyping"):
    from jaxtyping import Bool, Float, Float32, Int32, Integer, Num, Shaped, UInt8, UInt16
else:

    class Shaped:
        """The type of the arrays of a library, whatever their shape."""

        def __class_getitem__(cls, item: tuple[Any, str]) -> Any:
            """Returns the first of (type of the arrays, axes)."""
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
