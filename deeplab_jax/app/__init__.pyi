# Written by .ci/write_stubs.py from __init__.py, for type checkers.
from .page import build_page as build_page
from .page import serving as serving
from .service import Answer as Answer
from .service import Limits as Limits
from .service import LoadingError as LoadingError
from .service import SegmentationService as SegmentationService
