"""Latency: the time that a network takes in onnxruntime, measured and predicted.

- `operators`: what the layers of a graph are for a runtime, at any widths.
- `small_models`: small ONNX models of operators.
- `conversion`: the precision in which a network is timed.
- `stopwatch`: times the operators of small models. It needs numpy and onnxruntime alone, so it runs on other machines.
- `table`: the measured times, kept by machine.
- `prediction`: the time of a plan, from the table.
- `pack`: the small models and the stopwatch in one file, for another machine.
- `files`: the time of whole ONNX files, and how sure their speed-up is.
"""
