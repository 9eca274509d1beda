"""Scoring: a score for each unit that says how much it matters.

Scoring is given a `Task` (a network, its images and the layers that read channels) and the name of a criterion. It
returns `Scores`; a larger score means that dropping the unit does more harm. It may import `activations`, `channels`
and what is below them; it drops nothing.

score       scores every unit by a criterion
scores      Scores: the scores of units, and the sensitivities at each layer
pfp         the sensitivity of Provable Filter Pruning, its error bounds and sample counts
criteria    the table of criteria, without torch, and one module for each kind of criterion
kernel      the innermost loop of the sensitivity in C++
"""
