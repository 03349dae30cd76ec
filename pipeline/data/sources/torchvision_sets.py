"""torchvision's data sets: their training parts, downloaded or put into the download folder by hand."""

from __future__ import annotations

import importlib
import logging
import socket
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pipeline.data.arrays.array_rows import ArrayRows
from pipeline.data.source_types import ImageSource, Pixels, RawImages, SourceRequest
from pipeline.data.sources.image_files import file_images
from pipeline.errors import DataError

log = logging.getLogger(__name__)

DOWNLOAD_TIMEOUT_SEC = 60.0


def torchvision_source(
    request: SourceRequest,
    *,
    class_name: str,
    files: str,
    options: Mapping[str, object] = {},
    transposed: bool = False,
    folder: str = "",
    default_size: int = 0,
) -> ImageSource:
    """One of torchvision's sets; torchvision unpickles the CIFAR batches, after checking their MD5 sums.

    class_name: in `torchvision.datasets`; all of them default to the training part. files: where it lies
    below the download folder, for people who put it there by hand. transposed: its files hold each image
    transposed. folder: of image files, below the download folder; empty = the images are one array.
    default_size: side of the images of `folder` in pixels if none is asked for.

    Raises:
        DataError: from `read`: it cannot be downloaded or read.
    """
    downloads, size = request.downloads, request.options.size or default_size

    def read() -> RawImages:
        log.info(f"reading {request.name} (downloads go to {downloads})")
        timeout = socket.getdefaulttimeout()
        socket.setdefaulttimeout(DOWNLOAD_TIMEOUT_SEC)  # torchvision sets none: a dead network would hang
        try:
            downloads.mkdir(parents=True, exist_ok=True)
            kind = getattr(importlib.import_module("torchvision.datasets"), class_name)
            found = kind(root=str(downloads), download=True, **options)
        except Exception as error:  # no network, no disk, no gdown, a damaged file: all the same to the user
            rule = f"torchvision downloads it, or reads it offline from {downloads}/{files}"
            fix = "put the files there, or use --data mnist5k"
            seen = f"{type(error).__name__}: {error}"
            raise DataError(f"{request.name} cannot be read", rule=rule, seen=seen, fix=fix) from error
        finally:
            socket.setdefaulttimeout(timeout)
        if folder:
            return file_images(downloads / folder, found.filename, replace(request.options, size=size))
        labels = np.asarray(getattr(found, "targets", getattr(found, "labels", None)), np.int64)
        images = _to_nhwc(np.asarray(found.data, np.uint8), transposed)
        names = getattr(found, "classes", ())
        return RawImages(images=ArrayRows(images, request.options), labels=labels, names=names)

    return ImageSource([request.name, str(downloads.absolute())], read)


def _to_nhwc(images: npt.NDArray[np.uint8], transposed: bool) -> Pixels:
    """torchvision's (N,H,W), (N,3,H,W) or (N,H,W,3) -> uint8 (N,H,W,C)."""
    if images.ndim == 4:
        return images.transpose(0, 2, 3, 1) if images.shape[1] == 3 else images
    return (images.transpose(0, 2, 1) if transposed else images)[..., None]
