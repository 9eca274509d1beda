"""Input fit: check that the images or arrays of a folder fit the input of a network. Only headers are read."""

from __future__ import annotations

from pfpcli.errors import CalibrationError
from pfpcli.images.folder import ImageSet
from pfpcli.images.preprocess import PRESETS, Preprocess, count_text, shape_text

#: The numbers of channels that an image input may have.
TAKEN_CHANNELS = (1, 3, 4)
# Channels of an image as stored -> what to call the image.
_KINDS = {1: "greyscale", 2: "greyscale with alpha", 3: "colour", 4: "colour with alpha"}


def common_size(images: ImageSet) -> tuple[int, ...] | None:
    """The common shape (C, H, W) of all samples, for a model file without an input size; None if the shapes differ.

    For images, C is 1 if all images are greyscale, otherwise 3. For arrays, the shape is that of one sample, channels
    first; it is None if both channels first and channels last are plausible.
    """
    shapes = {source.shape for source in images.sources}
    if not images.arrays:
        sides = {shape[1:] for shape in shapes}
        channels = 1 if all(shape[0] <= 2 for shape in shapes) else 3
        return (channels, *sides.pop()) if len(sides) == 1 else None
    if len(shapes) != 1:
        return None
    shape = shapes.pop()
    if len(shape) == 3 and shape[2] in TAKEN_CHANNELS:
        return None if shape[0] in TAKEN_CHANNELS else (shape[2], shape[0], shape[1])
    return shape


def check_fits(images: ImageSet, size: tuple[int, ...], preprocess: Preprocess, convert: bool) -> None:
    """Check that a network can take the samples of a folder.

    Args:
        images: the scanned folder.
        size: the shape of the model's input without the batch, e.g. (C, H, W).
        preprocess: the preprocessing of the samples.
        convert: whether all images may be converted to the model's number of channels. Without it, some may be.

    Raises:
        CalibrationError: the model's input is no image; all images have another number of channels; an array has
            another shape; mean or std has another number of channels; the resize is smaller than the input; or floating
            point arrays meet a preset for values 0..255.
    """
    for what, values in (("mean", preprocess.mean), ("std", preprocess.std)):
        if values and len(values) != size[0]:
            raise CalibrationError(
                f"{preprocess.name}: {what} has {count_text(len(values), 'value')}, "
                f"the model's input has {count_text(size[0], 'channel')}",
                f"give `--mean` and `--std` with {count_text(size[0], 'number')} each, or use `--preprocess unit`",
            )
    if images.arrays:
        _check_arrays(images, size, preprocess)
    else:
        _check_channels(images, size, convert)
        _check_resize(images, size, preprocess)


def _check_arrays(images: ImageSet, size: tuple[int, ...], preprocess: Preprocess) -> None:
    expected = shape_text(size)
    for source in images.sources:
        if source.shape != size and not channels_last(source.shape, size):
            found = f"found samples of shape {shape_text(source.shape)}, the model expects {expected}"
            if len(size) == 3 and source.shape == (*size[1:], size[0]):
                found += "; their channels may be first or last"
            raise CalibrationError(f"{source.name}: {found}", f"save the samples as N×{expected}, channels first")
        if source.floating and preprocess.scale != 1 and preprocess.name in PRESETS:
            raise CalibrationError(
                f"{source.name}: holds floating-point values, {preprocess.name} divides by 255",
                "take them as they are with `--preprocess none`, or save 0..255 values as uint8",
            )


def channels_last(shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether samples of this shape are H×W×C beyond doubt."""
    return len(size) == 3 and size[0] in TAKEN_CHANNELS and size[0] != size[1] and shape == (*size[1:], size[0])


def _check_channels(images: ImageSet, size: tuple[int, ...], convert: bool) -> None:
    if len(size) != 3 or size[0] not in TAKEN_CHANNELS:
        raise CalibrationError(
            f"{images.name}: holds images, the model's input is {shape_text(size)}",
            f"save the samples as .npy files of shape N×{shape_text(size)}",
        )
    wanted = size[0]
    misfits = [source for source in images.sources if source.shape[0] != wanted]
    expected = f"the model expects {count_text(wanted, 'channel')}"
    if misfits and wanted == 4:
        raise CalibrationError(
            f"{images.name}: {misfits[0].name} has {count_text(misfits[0].shape[0], 'channel')}, {expected}",
            f"use RGBA images only, or .npy files of shape N×{shape_text(size)}",
        )
    if convert or len(misfits) < len(images.sources):
        return
    kinds = {source.shape[0] for source in misfits}
    found = " or ".join(f"{_KINDS[channels]} ({count_text(channels, 'channel')})" for channels in sorted(kinds))
    all_are = f"all {len(misfits)} images are" if len(misfits) > 1 else "the only image is"
    raise CalibrationError(
        f"{images.name}: {all_are} {found}, {expected}", f"to {_remedy(kinds, wanted)}, add --convert"
    )


def _remedy(found: set[int], wanted: int) -> str:
    """What `--convert` will do, for a hint."""
    if wanted == 1:
        return "drop the alpha channel" if found == {2} else "turn them grey"
    steps = {"repeat the grey channel": {1, 2}, "drop the alpha channel": {2, 4}}
    return " and ".join(step for step, needed_by in steps.items() if found & needed_by)


def _check_resize(images: ImageSet, size: tuple[int, ...], preprocess: Preprocess) -> None:
    crop = size[1:]
    for source in images.sources:
        new = preprocess.resized(source.shape[1:], crop)
        if new[0] < crop[0] or new[1] < crop[1]:
            large = max(crop) if len(preprocess.target) == 1 else f"{crop[0]}x{crop[1]}"
            raise CalibrationError(
                f"--resize {preprocess.resize}: {source.name} becomes {shape_text(new)}, "
                f"smaller than the model's input of {shape_text(crop)}",
                f"use `--resize {large}` or more, or leave it out",
            )
