# Written by .ci/write_stubs.py from __init__.py, for type checkers.
from .published_models import PretrainedModel as PretrainedModel
from .published_models import find_pretrained as find_pretrained
from .published_models import list_pretrained as list_pretrained
from .conversion import Conversion as Conversion
from .conversion import convert as convert
from .hub import HubAddress as HubAddress
from .location import check_reference as check_reference
from .location import convert_source as convert_source
from .location import locate as locate
