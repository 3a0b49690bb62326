# Written by .ci/write_stubs.py from __init__.py, for type checkers.
from .aspp import ASPP as ASPP
from .aspp import ImagePooling as ImagePooling
from .aspp import LargeFOV as LargeFOV
from .aspp import SpatialPyramidPooling as SpatialPyramidPooling
from .aspp import SummedASPP as SummedASPP
from .auxiliary import AuxiliaryHead as AuxiliaryHead
from .decoder import Decoder as Decoder
from .decoder import MultiScaleFeatures as MultiScaleFeatures
from .decoder import TwoStageDecoder as TwoStageDecoder
from .dense_prediction_cell import DensePredictionCell as DensePredictionCell
from .lite_reduced_aspp import LiteReducedASPP as LiteReducedASPP
