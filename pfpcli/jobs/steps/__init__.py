"""Steps that several jobs share. Each shows one line about itself on the console.

open      load the file, open the images, trace the network
score     score every channel on the scoring images
plan      measure curves, and choose what each group keeps
cut       cut the network as planned, and prove that it equals the masked one
recover   recover what the cut network lost
judge     measure the errors of layers and the quality of the network
networks  the pairs of networks that `pfp verify` compares
export    write the models, and time them
"""
