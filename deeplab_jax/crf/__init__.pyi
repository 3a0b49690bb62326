# Written by .ci/write_stubs.py from __init__.py, for type checkers.
from .dense import DIRECT_PIXELS as DIRECT_PIXELS
from .dense import dense_crf as dense_crf
from .dense import dense_crf_of_weights as dense_crf_of_weights
from .lattice import Lattice as Lattice
from .lattice import build_lattice as build_lattice
from .mean_field import AllPairs as AllPairs
from .mean_field import Kernel as Kernel
from .mean_field import bilateral_features as bilateral_features
from .mean_field import normalized as normalized
from .mean_field import position_features as position_features
from .parameters import PARAMETERS as PARAMETERS
from .parameters import CRFParameters as CRFParameters
from .parameters import check_parameters as check_parameters
from .parameters import crf_parameters as crf_parameters
