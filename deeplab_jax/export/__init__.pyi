# Written by .ci/write_stubs.py from __init__.py, for type checkers.
from .engines import FilePredictor as FilePredictor
from .engines import load_file as load_file
from .engines import with_engine as with_engine
from .metadata import Metadata as Metadata
from .metadata import parse_metadata as parse_metadata
from .program import ExportOptions as ExportOptions
from .program import Program as Program
from .runtimes import ExportedNetwork as ExportedNetwork
from .runtimes import export as export
from .runtimes import load_exported as load_exported
from .runtimes import program_for as program_for
from .verification import Verification as Verification
from .verification import cases as cases
from .verification import verify as verify
from .web import find_runtime as find_runtime
from .web import write_page as write_page
