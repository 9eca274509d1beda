"""ONNX in and out.

Given: an ONNX file. Gives back: a network that torch runs and traces, and for a cut of that network the same file with
smaller tensors. Nodes that pfp has no rule for, nodes that select by the order of values, and all nodes after them stay
untouched. May import `graph`, `images` (the usual numbers of channels) and `errors`.

    network         from a file to an OnnxNetwork
    nodes           the nodes that a network computes, and their constants
    untouched       the nodes that pfp leaves untouched
    tensor_names    dotted names of the tensors of a network
    ops             the rules of all ONNX ops
    rewrite         from a cut network to the changed nodes of its original's file
    write           writes that file and compares it with torch
    runtime         runs files in onnxruntime
    file            the protobuf message of a model: reading, checking, changing
"""
