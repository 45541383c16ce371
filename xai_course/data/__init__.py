"""What an image shows and where: data sets that all yield the same batch."""

from xai_course.data.batch import ArrayData, Batch, Dataset, Splits, batches, fingerprint
from xai_course.data.boxes import box_iou, boxes_to_masks, masks_to_boxes
from xai_course.data.fetch import DataError
from xai_course.data.folders import FolderData, in_memory
from xai_course.data.image_sets import coco, cub, cub5, dtd, glas, imagenet, isic2017, nuclei, pets, tiny_imagenet
from xai_course.data.noise import asymmetric_noise, symmetric_noise, with_label_noise
from xai_course.data.textured_digits import textured_digits
from xai_course.data.textured_mnist import textured_mnist
from xai_course.data.vision import cifar10, cifar10_jpeg, cifar100, fashion_mnist, mnist, svhn

__all__ = [
    "ArrayData",
    "Batch",
    "DataError",
    "Dataset",
    "FolderData",
    "Splits",
    "asymmetric_noise",
    "batches",
    "box_iou",
    "boxes_to_masks",
    "cifar10",
    "cifar10_jpeg",
    "cifar100",
    "coco",
    "cub",
    "cub5",
    "dtd",
    "fashion_mnist",
    "fingerprint",
    "glas",
    "imagenet",
    "in_memory",
    "isic2017",
    "masks_to_boxes",
    "mnist",
    "nuclei",
    "pets",
    "svhn",
    "symmetric_noise",
    "textured_digits",
    "textured_mnist",
    "tiny_imagenet",
    "with_label_noise",
]
