# Written by .ci/write_stubs.py from __init__.py, for type checkers.
from .conventions import CONVENTIONS as CONVENTIONS
from .rules import IMAGE_CLASSIFIER as IMAGE_CLASSIFIER
from .rules import Convention as Convention
from .rules import Identified as Identified
from .rules import Rule as Rule
from .rules import Scopes as Scopes
from .rules import translate as translate
