"""From a file, or a module in memory, to a network that can be called.

Given: the path of a file and what the user says about it, or an `nn.Module`. Gives back: a `LoadedModel` on the CPU in
eval mode, or an InputError that says what the file is instead. No code of an untrusted file runs, and nothing is
downloaded. May import `onnx_io`, `graph` and `errors`.

    load            the table of input formats; `load` reads a file, `from_module` takes a module in memory
    names           checks the names of modules and tensors
    loaded_model    the class LoadedModel and the check of its weights
    runnable        a network of any format that computes its outputs, in torch or onnxruntime
    artefact        a file before its format is known, and how each format is recognised
    checkpoint      files of torch.save: modules, state dicts, checkpoints
    program         .pt2 files of torch.export.save
    arch            builds the network of a state dict from --arch
    pickles         which pickles and .pt2 archives are safe to load
    scripts         which TorchScript archives are safe to load
    torchscript     from a TorchScript module to a graph of ATen ops
    row_counts      which sizes in a traced TorchScript graph follow the batch
"""
