"""Steps that several jobs share. Each shows one line about itself on the console.

open          load the file, open the images, trace the network
budget        what is asked for, as a keep ratio; plans whose written file meets a size or a latency
score         score every channel on the scoring images
plan          measure curves, and choose what each group keeps
replay        take a plan from a file
cut           cut the network as planned, and prove that it equals the masked one
recover       recover what the cut network lost
network       all of plan, cut, verify and recover, for several budgets
search        the smallest network whose quality falls by at most so much
gate          a metric of the user, and how far the quality may fall
judge         measure the errors of layers and the quality of the network
networks      the pairs of networks that `pfp verify` compares
export        write the models, and time them
precision     write the network as int8 and float16 files, and measure them beside the float file
robustness    measure the quality on damaged images
"""
