"""The package that the notebooks share.

The core, which is all that blocks and training need:

arithmetic   sizes, cost, receptive field, HDC: pure Python
trace        what each layer of any network does to the shape, and costs
blocks       a block is a figure of a paper
models       a model is a table of a paper; MODELS lists all of them with their usual recipes
weights      load published weights into these models, and read weight files safely
data         Fashion-MNIST on the device, scenes made of it, the synthetic stand-in
train        fit, evaluate, History, optimisers and schedules; preflight holds the first checks
backend      device, precision, memory format, processes; progress holds the bar and the live curve
plots        pictures of results and of architectures

Three extras, which the core does not import: check answers predictions and exercises, explore shows
kernels that slide step by step, and measure compares training loops, networks and recipes.
"""
