"""What the notebooks share.

arithmetic   sizes, cost, receptive field, HDC: pure Python
trace        the per-layer shape trace of any network; fields follows what a value sees
blocks       a block is a figure of a paper
models       a model is a table of a paper;  weights  published ones into them
data         Fashion-MNIST on the device, scenes made of it, a drawn stand-in
train        fit, evaluate, History; engine is what makes a step fast or parallel
recipes      how each model is trained; bench measures fit beside other loops,
             leaderboard the models beside each other, ablation each part of the best recipe
plots        pictures;  check  predictions and exercise answers
"""
