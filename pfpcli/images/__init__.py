"""Images: calibration images as batches for a network.

The package is given a folder of images or arrays, the size of the network's input and the preprocessing. It gives back
batches of float32[B, *size] with their labels, and the division of the images into images that score channels, that fit
and check a recovery, and that judge the result. It imports only `processes` and `errors`.

    preprocess      presets, flags and TOML files of the preprocessing, and its arithmetic
    sample_files    one file of a folder: its header, its format, why it cannot be read
    folder          scan a folder: its files, labels and classes
    class_names     the classes of a network in the order of its outputs
    input_fit       check that the images of a folder fit the network's input
    split           a random split that keeps the proportions of the classes
    corruptions     damage to pixels at five strengths
    decode          read samples, batch by batch
    calibration     the images of a run and their division
"""
