# Written by .ci/write_stubs.py from __init__.py, for type checkers.
from .augmentation import Augmentation as Augmentation
from .datasets import ArrayDataset as ArrayDataset
from .datasets import Dataset as Dataset
from .datasets import Example as Example
from .descriptors import Bands as Bands
from .descriptors import Descriptor as Descriptor
from .descriptors import read_class_names as read_class_names
from .folds import duplicated as duplicated
from .crops import MEAN_PIXEL as MEAN_PIXEL
from .pipeline import Batch as Batch
from .pipeline import evaluation_batches as evaluation_batches
from .pipeline import evaluation_order as evaluation_order
from .pipeline import training_batches as training_batches
from .prepared import open_dataset as open_dataset
from .prepared import prepared_directory as prepared_directory
from .prepared import prepared_names as prepared_names
