"""Jobs: one module per command, which runs the steps of the command in order and returns its record.

In: the settings of a command and a console that shows its steps. Out: a record, and a run folder where the command
writes one. A job may import every package but `cli`. A command is the file of the same name here, in `settings` and in
`cli/commands`.

compress, sparsify, finetune        write a run folder
sweep                               writes several run folders
plan                                writes plan.json
compare_criteria                    writes a table and a chart
inspect, score, certify, verify     write nothing
steps                               steps that several jobs share
recorded                            networks, plans and machines as plain values for the record
warnings                            what a user should know about a run that went through
step_store                          what the finished steps of a run came to, until it is written
cache                               scores and curves, kept by the content they were made of
finished                            what a job that writes a folder returns
"""
