"""What an image shows and where: data sets that all yield the same batch."""

from xai_course.data.batch import ArrayData, Batch, Dataset, Splits, batches, fingerprint
from xai_course.data.boxes import box_iou, boxes_to_masks, masks_to_boxes
from xai_course.data.noise import asymmetric_noise, symmetric_noise
from xai_course.data.textured_digits import textured_digits

__all__ = [
    "ArrayData",
    "Batch",
    "Dataset",
    "Splits",
    "asymmetric_noise",
    "batches",
    "box_iou",
    "boxes_to_masks",
    "fingerprint",
    "masks_to_boxes",
    "symmetric_noise",
    "textured_digits",
]
