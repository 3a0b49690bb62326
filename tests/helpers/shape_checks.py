"""Checks at run time of the array types that functions declare."""

import functools
import inspect
from collections.abc import Callable
from types import UnionType
from typing import Any, Union, get_args, get_origin

import jaxtyping
import numpy as np


def check_shapes(function: Callable) -> Callable:
    """Decorates a function whose arguments and results must be of the array types it declares.

    Other declared types are not checked. See the argument `typechecker` of `jaxtyping.jaxtyped`.

    Raises:
      TypeError: in a call, an array has another type, number of axes or size.
    """
    signature = inspect.signature(function)
    declared = {name: each.annotation for name, each in signature.parameters.items()}

    @functools.wraps(function)
    def checked(*arguments: Any, **keywords: Any) -> Any:
        for name, value in signature.bind(*arguments, **keywords).arguments.items():
            _check(name, value, declared[name])
        result = function(*arguments, **keywords)
        _check("the result", result, signature.return_annotation)
        return result

    return checked


def _check(name: str, value: Any, declared: Any) -> None:
    if get_origin(declared) is tuple:
        for each, one in zip(get_args(declared), value, strict=False):
            _check(name, one, each)
        return
    legal = get_args(declared) if get_origin(declared) in (Union, UnionType) else (declared,)
    classes = [one for one in legal if isinstance(one, type)]
    if not any(issubclass(one, jaxtyping.AbstractArray) for one in classes):
        return
    # One by one: a union compares types alone.
    if not any(isinstance(value, one) for one in classes):
        raise TypeError(f"{name} must be {declared}, got {np.shape(value)}")
