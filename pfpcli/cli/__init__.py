"""The command line and nothing else: arguments in; the result to stdout, steps and warnings to stderr.

This package may import `settings`, `records` and `report`; it imports `jobs` only when a command runs, because jobs
import torch.

main       the `pfp` program: errors become text and an exit code
app        the program as typer sees it, and how commands join it
commands   one module for each command
options    groups of options that several commands have; input_options, output_options and limit_options have those
           of files and images, of outputs, and of limits for CI; pruning_options has those that compress, plan and
           sweep share
flags      single options, and how they are checked
config     the config file: defaults of options
resume     the options of a run that goes on after an interrupt
session    run a job with its steps on stderr and its result on stdout
terminal   streams in colour, and the lines of running steps
"""
