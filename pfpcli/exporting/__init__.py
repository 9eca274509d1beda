"""The model files of a run.

Given: the graph of a cut network, or the user's own module. Gives back: model.onnx, model.pt2 and model.pt, each run
again and compared with the graph before it counts as written. May import `models`,
`onnx_io`, `graph` and `errors`.

    export      writes .pt2 and, with torch's exporters, ONNX files
    rebuild     gives the user's module the smaller tensors
"""
