"""What the notebooks share.

The core, all that blocks and trainings need:

arithmetic   sizes, cost, receptive field, HDC: pure Python
trace        what each layer of any network does to the shape, and costs
blocks       a block is a figure of a paper
models       a model is a table of a paper; MODELS lists all, with their usual recipes
weights      published weights into these models; files of weights read safely
data         Fashion-MNIST on the device, scenes made of it, the synthetic stand-in
train        fit, evaluate, History, optimisers and schedules; preflight is what fit looks at first
backend      device, precision, memory format, processes;  progress  the bar and the live curve
plots        pictures of results and of architectures
check        predictions and answers to exercises

Two extras, which the core does not import: explore, kernels that slide step by step, and measure,
training loops, networks and recipes beside each other.
"""
