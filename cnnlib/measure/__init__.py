"""Extra: what networks and training loops cost on this machine, and how well they do.

bench         our training loop beside another one
leaderboard   networks beside each other
ablation      each part of the best recipe left out
figures       pictures of cost, quality and the limits of a machine
machine       what the machine is, its limits, and what an action costs
records       JSON files that are whole and name their machine
"""
