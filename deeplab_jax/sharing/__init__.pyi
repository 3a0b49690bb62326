# Written by .ci/write_stubs.py from __init__.py, for type checkers.
from .model_card import CardNotes as CardNotes
from .directory import write_shared_directory as write_shared_directory
from .upload import check_upload as check_upload
from .upload import is_shared_model as is_shared_model
from .upload import upload_model as upload_model
