# Written by .ci/write_stubs.py from __init__.py, for type checkers.
from .batch_norm import refuse_single_values as refuse_single_values
from .conv_norm import ConvNorm as ConvNorm
from .conv_norm import Form as Form
from .conv_norm import Normalization as Normalization
from .conv_norm import SeparableConvNorm as SeparableConvNorm
from .conv_norm import check_widths as check_widths
from .convolution import Classifier as Classifier
from .convolution import Convolution as Convolution
from .convolution import is_convolution as is_convolution
from .convolution import record_inputs as record_inputs
from .residual import GlobalResponseNorm as GlobalResponseNorm
from .residual import LayerNorm as LayerNorm
from .residual import SqueezeExcitation as SqueezeExcitation
from .residual import StochasticDepth as StochasticDepth
from .residual import depth_rates as depth_rates
