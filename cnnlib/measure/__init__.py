"""Extra: what networks and training loops cost on this machine, and how well they do.

bench         our training loop compared with another one
leaderboard   networks compared with each other
ablation      the best recipe without each of its parts
experiments   what a notebook compares, run live or read from its record
recording     finds experiments, and runs what their records are missing
baselines     what a network has to beat
statistics    which groups of runs can be told apart
figures       pictures of cost, quality and the limits of a machine
machine       the machine, its limits, and the cost of an action
records       JSON files that are written atomically and name their machine
"""
