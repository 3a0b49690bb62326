"""Builders of the built-in diagnostic datasets, which consist of synthetic images."""

from typing import Any

from deeplab_jax.data.builders.base import LoadedExample
from deeplab_jax.data.builders.shapes import SPLITS, Shapes
from deeplab_jax.data.codecs import encode_png
from deeplab_jax.data.diagnostics import DIAGNOSTICS, draw_diagnostic


class _Diagnostic(Shapes):
    """Base class of the builders of diagnostic tasks; stores synthetic images as PNG."""

    def __init__(self, *, distance: int | None = None, **kwargs: Any) -> None:
        self._distance = distance
        super().__init__(**kwargs)
        # Raises an error for an illegal size or distance before anything is written.
        draw_diagnostic(self.name, 0, 0, 0, self._size, distance)

    def load(self, split: str, image_id: str) -> LoadedExample:
        image, label = draw_diagnostic(
            self.name, self._seed, SPLITS.index(split), int(image_id), self._size, self._distance
        )
        return LoadedExample(encode_png(image), label)


class DiagnosticDistance(_Diagnostic):
    """Diagnostic dataset in which a cue at a given distance determines the class of an object."""

    descriptor = DIAGNOSTICS["diagnostic_distance"].descriptor


class DiagnosticScales(_Diagnostic):
    """Diagnostic dataset with objects of very different sizes."""

    descriptor = DIAGNOSTICS["diagnostic_scales"].descriptor


class DiagnosticGlobal(_Diagnostic):
    """Diagnostic dataset in which one distant cue determines the class of all objects."""

    descriptor = DIAGNOSTICS["diagnostic_global"].descriptor


class DiagnosticThin(_Diagnostic):
    """Diagnostic dataset with thin lines."""

    descriptor = DIAGNOSTICS["diagnostic_thin"].descriptor


class DiagnosticRare(_Diagnostic):
    """Diagnostic dataset with rare classes."""

    descriptor = DIAGNOSTICS["diagnostic_rare"].descriptor


class DiagnosticOutlines(_Diagnostic):
    """Diagnostic dataset of objects whose wavy outlines are void."""

    descriptor = DIAGNOSTICS["diagnostic_outlines"].descriptor


BUILT_IN = (
    DiagnosticDistance,
    DiagnosticScales,
    DiagnosticGlobal,
    DiagnosticThin,
    DiagnosticRare,
    DiagnosticOutlines,
)
