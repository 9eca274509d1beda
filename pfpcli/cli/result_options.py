"""Options about further results: files of a lower precision, quality on damaged images.

As in `options`, each option is written once.
"""

from __future__ import annotations

from typing import Annotated, Any

from pfpcli.cli.flags import OUTPUT, switch
from pfpcli.cli.input_options import IMAGES
from pfpcli.settings import CompressSettings


def precisions(
    int8: Annotated[
        bool,
        switch(
            OUTPUT,
            "Also write model-int8.onnx: 8-bit weights and activations, calibrated on --calib. Layers that lose too "
            "much stay in float. With --keep 1 nothing is pruned.",
            "--int8",
        ),
    ] = CompressSettings.int8,
    fp16: Annotated[
        bool,
        switch(
            OUTPUT,
            "Also write model-fp16.onnx: 16-bit floats inside, 32-bit inputs and outputs.",
            "--fp16",
        ),
    ] = CompressSettings.fp16,
) -> dict[str, Any]:
    """The precisions that are written beside float32."""
    return {"int8": int8, "fp16": fp16}


def damage(
    robustness: Annotated[
        bool,
        switch(
            IMAGES,
            "Also measure the quality on images with noise, blur, more brightness, less contrast and JPEG, at five "
            "strengths (ImageNet-C; CIFAR-10-C for small inputs).",
            "--robustness",
        ),
    ] = CompressSettings.robustness,
) -> dict[str, Any]:
    """What quality is measured on, besides undamaged images."""
    return {"robustness": robustness}
