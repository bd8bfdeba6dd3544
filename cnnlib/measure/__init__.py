"""Extra: what networks and training loops cost on this machine, and how well they do.

bench         our training loop beside another one
leaderboard   networks beside each other
ablation      each part of the best recipe left out

Nothing else in the package imports it but the command line.
"""
