"""Planning: which channels are dropped, so that the cut network costs what was asked for.

Planning is given the groups of a network, the scores of their units and a budget. It returns a `Plan`: which labels
stay alive and what they cost. It may import `scoring`, `activations`, `channels` and what is below them; it cuts
nothing.

plan          Budget and Plan, the values; the check of a plan
planner       Planner: makes the plans that meet a budget
outlook       how much to keep, so that less is lost
portfolio     the best of several plans, measured
choices       for each group: the order in which its units are dropped, and how many have to stay
allocations   the table of allocators, without torch
allocators    how many units each group keeps, as a function of one number
search        the number for which the cut network costs what was asked for
curves        what the network loses when one group is narrowed
select        which units stay, once their number is known: the best, or a random sample
refusals      the errors of planning
"""
