"""The model files of a run.

Given: the graph of a cut network, or the user's own module. Gives back: model.onnx, model.pt2 and model.pt, each run
again and compared with the graph before it counts as written. May import `models`,
`onnx_io`, `graph` and `errors`.

    export          writes .pt2 and, with torch's exporters, ONNX files
    converted       a program in calls that have ONNX functions
    program         a graph as a program of torch
    lifted          the same, without tracing the graph again
    repeats         what torch's exporter does anew for each file although it is there already
    rebuild         gives the user's module the smaller tensors

Files of a lower precision are made from model.onnx by onnxruntime's tools.

    lower_precision  a float network as int8 and float16, with any of its nodes in float32
    int8             8-bit weights and activations
    in_8_bits        networks that take the time of their int8 files
    fp16             16-bit floats
    ranges           the smallest and the largest number of each tensor, measured on images
    float_blocks     the search for the blocks that stay in float32
    silence          nothing of what the tools say reaches the terminal
"""
