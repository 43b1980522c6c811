"""Types of images, labels, logits and batches, shared by the whole package."""

from advprop.shapes.batch import Batch as Batch
from advprop.shapes.batch import Images as Images
from advprop.shapes.batch import Labels as Labels
from advprop.shapes.batch import Logits as Logits
from advprop.shapes.batch import LogitsFn as LogitsFn
from advprop.shapes.batch import StoredImages as StoredImages
from advprop.shapes.batch import correct_predictions as correct_predictions
from advprop.shapes.batch import in_bytes as in_bytes
from advprop.shapes.batch import unit_range as unit_range
from advprop.shapes.versions import AugMixed as AugMixed
from advprop.shapes.versions import Redrawn as Redrawn
from advprop.shapes.versions import Version as Version
