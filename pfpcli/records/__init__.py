"""Records: what commands write down and reports show, as dataclasses that are JSON.

This package is given plain values and returns documents, JSON text, and the documents of files it reads. It also names
and makes run folders. It imports only modules below it, and no torch.

document         the base of all documents: `json()`
runs             the record of a run: run.json of compress, sparsify and finetune
parts            the parts of such a record
details          details.json: scores, curves and changed images of a run
searched         the part about the search of a network whose quality falls by at most so much
precision        the part about files of lower precisions
robustness       the part about damaged images
reading          run.json -> record, with all types checked
inspection       the document of `pfp inspect`
ranking          the document of `pfp score`
comparison       the document of `pfp compare-criteria`
planned          the document of `pfp plan`
certified        the document of `pfp certify`
verified         the document of `pfp verify`
sources          the part about what a run was made from beside its model
provenance       which of several runs came from which
compared_runs    the document of `pfp compare`
measures         the numbers of a run by name, and limits for them
folders          run folders: their files, the newest one, and how a new one is written
started          what was typed, from the start of a run until it is written
unfinished       folders of several runs, which go on after an interrupt
reused_settings  settings that a later command takes from the run it works on
"""
