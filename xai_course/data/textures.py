"""Photo textures that come with installed packages: twenty classes cut from real photographs, no download.

Ten classes fill the background and ten fill the digit. Each class is one region of one photograph from scikit-image's
or scikit-learn's wheel. The region is cut into three bands, one per split, so that no test pixel is ever seen in
training; the bands are unfolded by mirroring into square sheets from which crops are cut.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from .fetch import DataError

SHEET = 128  # side of a sheet in pixels: room for a 64-pixel crop anywhere
BANDS = (0.0, 0.5, 0.7, 1.0)  # where the longer side of a region is cut: train, validation, test


class Texture(NamedTuple):
    """One region ``rows y0:y1, columns x0:x1`` of one photo, resized by ``zoom``; a tint where it is grey.

    Example:
        >>> BACKGROUNDS[1]
        Texture(name='grass', photo='grass', region=(0, 512, 0, 512), zoom=0.5, tint=(-22, 20, -36))
    """

    name: str
    photo: str
    region: tuple[int, int, int, int]
    zoom: float
    tint: tuple[int, int, int] = (0, 0, 0)


# Tints give the grey photographs the colour that the thing has in nature; they are ours, not the photographs'.
BACKGROUNDS = (
    Texture("brick", "brick", (0, 512, 0, 512), 0.5, (60, -14, -28)),
    Texture("grass", "grass", (0, 512, 0, 512), 0.5, (-22, 20, -36)),
    Texture("gravel", "gravel", (0, 512, 0, 512), 0.5, (6, 0, -8)),
    Texture("stars", "hubble_deep_field", (0, 872, 0, 1000), 0.4),
    Texture("tissue", "immunohistochemistry", (0, 512, 0, 512), 0.4),
    Texture("coins", "coins", (20, 303, 10, 384), 0.6, (26, 4, -50)),
    Texture("print", "page", (0, 155, 5, 380), 0.7, (-8, 0, 14)),
    Texture("fur", "chelsea", (4, 80, 60, 330), 0.7),
    Texture("wood", "coffee", (40, 400, 0, 76), 0.6),
    Texture("retina", "retina", (250, 1150, 300, 1150), 0.3),
)
DIGITS = (
    Texture("moon", "moon", (0, 512, 0, 512), 0.5, (-10, 0, 22)),
    Texture("handwriting", "text", (20, 172, 0, 448), 0.5, (14, 2, -18)),
    Texture("lawn", "camera", (372, 512, 392, 512), 1.0, (-24, 16, -20)),
    Texture("engine", "motorcycle", (230, 380, 130, 480), 0.5),
    Texture("foliage", "china", (280, 427, 330, 560), 0.7),
    Texture("petals", "flower", (100, 345, 190, 440), 0.5),
    Texture("pagoda", "china", (100, 340, 110, 300), 0.5),
    Texture("suit", "astronaut", (290, 512, 50, 145), 0.5),
    Texture("gantry", "rocket", (0, 330, 0, 130), 0.5),
    Texture("ripples", "cell", (0, 280, 0, 550), 0.35, (20, -12, 20)),
)


@lru_cache(maxsize=1)
def sheets() -> tuple[np.ndarray, np.ndarray]:
    """Lightness and colour of every class in every split.

    Returns:
        ``light [3, 20, 128, 128]`` float32: mean about 0 and standard deviation about 1 over the class's region, slow
        illumination removed, clipped to [-2.5, 2.5]. ``colour [3, 20, 128, 128, 3]`` float32: deviation of R, G, B from
        the luma, in [-1, 1]. First axis: train, validation, test. Second: ten backgrounds, then ten digit textures.

    Example:
        >>> light, colour = sheets()
        >>> light.shape, colour.shape
        ((3, 20, 128, 128), (3, 20, 128, 128, 3))
    """
    pairs = [_sheets_of(texture) for texture in BACKGROUNDS + DIGITS]
    light, colour = (np.stack(part, axis=1).astype(np.float32) for part in zip(*pairs))
    return light, colour


def _photo(name: str) -> np.ndarray:
    """``[H, W, 3]`` uint8.

    Raises:
        DataError: this installation of the package came without its photos.
    """
    package = "scikit-learn" if name in ("china", "flower") else "scikit-image"
    try:
        if package == "scikit-learn":
            from sklearn.datasets import load_sample_image

            return load_sample_image(f"{name}.jpg")
        import skimage.data

        photo = skimage.data.stereo_motorcycle()[0] if name == "motorcycle" else getattr(skimage.data, name)()
    except (AttributeError, OSError, ValueError, ModuleNotFoundError) as error:
        raise DataError(f"{package} has no photo {name!r} ({error}): install it again from its wheel") from error
    return np.repeat(photo[..., None], 3, axis=-1) if photo.ndim == 2 else photo[..., :3]


def _sheets_of(texture: Texture) -> tuple[list[np.ndarray], ...]:
    from PIL import Image
    from scipy.ndimage import gaussian_filter

    y0, y1, x0, x1 = texture.region
    crop = Image.fromarray(_photo(texture.photo)[y0:y1, x0:x1])
    size = (round((x1 - x0) * texture.zoom), round((y1 - y0) * texture.zoom))
    rgb = np.asarray(crop.resize(size, Image.Resampling.BOX), np.float64)
    luma = rgb @ (0.299, 0.587, 0.114)
    light = luma - gaussian_filter(luma, 12)
    light = np.clip(light / light.std(), -2.5, 2.5)
    colour = (rgb - luma[..., None] + texture.tint) / 255
    axis = int(size[0] > size[1])  # the longer side
    cuts = [round(cut * luma.shape[axis]) for cut in BANDS[1:-1]]
    return tuple([_unfold(band) for band in np.split(part, cuts, axis)] for part in (light, colour))


def _unfold(band: np.ndarray) -> np.ndarray:
    """``[h, w, ...]`` mirrored over its borders until it fills ``[SHEET, SHEET, ...]``."""
    rows, columns = (np.pad(np.arange(n), (0, max(0, SHEET - n)), mode="symmetric")[:SHEET] for n in band.shape[:2])
    return band[rows][:, columns]
