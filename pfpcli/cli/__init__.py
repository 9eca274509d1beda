"""The command line and nothing else: arguments in; the result to stdout, steps and warnings to stderr.

This package may import `settings`, `records` and `report`; it imports `jobs` only when a command runs, because jobs
import torch.

main       the `pfp` program: errors become text and an exit code
app        the program as typer sees it, and how commands join it
commands   one module for each command
options    groups of options that several commands have; input_options and output_options have those of files,
           images and outputs
flags      single options, and how they are checked
session    run a job with its steps on stderr and its result on stdout
terminal   streams in colour, and the lines of running steps
"""
