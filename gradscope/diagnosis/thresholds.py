"""Every number a rule compares with, and why it is that number.

A rule has no literal of its own: whoever doubts a verdict finds the line it was drawn at here.
Knows nothing of runs or rules.
"""

from __future__ import annotations

# --- how much of a long run is looked at -------------------------------------------------------
DENSE_STEPS = 200
"""Runs of up to this many steps are read step by step; longer ones as min, mean and max of so
many buckets, in which no peak is lost. Keeps a diagnosis at some tenths of a second."""

SCALAR_STEPS = 20_000
"""Scalars are read whole up to this step; beyond, in `SCALAR_SLICES` evenly spaced slices."""

SCALAR_SLICES = 50
SCALAR_SLICE_STEPS = 200

# --- gradient by depth -------------------------------------------------------------------------
MIN_SITES = 5
"""A slope over fewer points says more about single layers than about depth."""

DECADES_WARNING = 3.0
"""A factor 1000 between input and loss: under one learning rate the far end takes 1000 steps for
one of the near end. Healthy networks stay well inside: residual nets measured from 18 to 110
layers lie within 1.2 decades, global average pooling costs at most about 1.7 in rms."""

DECADES_CRITICAL = 6.0
"""Float32 resolves 1.2e-7 of a sum: six decades down, a gradient is lost beside any other term."""

END_SHARE = 0.05
"""Share of the sites taken as `the input end` and `the loss end`; medians, so that one odd layer
decides nothing."""

LASTING_SHARE = 0.2
"""Seen in less than this share of the steps and not at the end: a transient, told as a remark.
Batch-normalised plain networks start exploding and settle in some tens of steps (Yang et al.
2019, arXiv 1902.08129), which is worth a line but no alarm."""

END_OF_RUN_SHARE = 0.1
"""The last tenth of the recorded steps is `the end of the run`."""

CONVERGED_SHARE = 1e-4
"""Steps whose gradient at the loss end is below this share of the run's median carry no signal
to propagate (everything is classified right): they are left out of every flow verdict."""

EDGE_SHARE = 0.5
"""When one pair of neighbouring sites makes more than half of the whole change, that pair is
named as the cause instead of depth."""

# --- peaks in time -----------------------------------------------------------------------------
SPIKE_FACTOR = 10.0
"""Gradient norm against the largest of all earlier steps. Stochastic gradients of healthy runs
exceed their own running maximum by a factor 2 to 3 at most once the first steps are over."""

SPIKE_HISTORY = 20
"""Steps that must precede a spike before `largest so far` means anything."""

# --- dead units --------------------------------------------------------------------------------
WHOLE_LAYER_DEAD = 0.99
"""No channel lets anything through: no gradient either, for this layer and all that feed it."""

DEAD_CHANCE = 0.5
"""A unit whose input hardly varies between samples (squeeze-and-excitation after global pooling)
is off for all of them with probability 1/2 by symmetry of its initial weights: no fault."""

DEAD_SIGMAS = 4.0
"""Standard deviations of that coin toss, over the layer's channels, that the share of dead ones
must exceed. With 64 channels: more than 0.75. CS231n mentions 0.4 as the share lost to a learning
rate too high; healthy squeeze layers exceed that, so it is not used as a line."""

DEAD_WINDOWS = 3
"""Sampled steps in which a unit must be dead in a training run; one batch may be unlucky."""

# --- no gradient -------------------------------------------------------------------------------
NO_GRADIENT_STEPS = 5
"""Steps without gradient before it is told: zero-initialised gates (the last normalisation of a
residual unit, LoRA) hold back gradients at the first step or two by design."""

# --- updates -----------------------------------------------------------------------------------
UPDATE_LARGE = 0.1
"""Norm of update / norm of weights, as the median over steps. Folk rule: about 1e-3 (CS231n,
`ratio of weights:updates`); a tenth of a weight matrix replaced at every step is a hundred times
that, and the network forgets within ten steps what it knew."""

UPDATE_SMALL = 1e-6
"""Largest median-over-layers ratio in the run. A thousand times under the folk rule: 10,000 steps
move a layer by 1 %. The maximum over the run is judged, so warm-up and decay raise no alarm."""

UPDATE_WINDOWS = 10
"""Samples of the ratio before it is judged."""

# --- loss --------------------------------------------------------------------------------------
LOSS_STEPS = 50
"""Logged values of the loss before its course is judged."""

LOSS_PARTS = 10
"""The course of the loss is judged by the medians of so many equal parts of the run."""

DIVERGED_NOISE = 6.0
"""The last part must lie above the first and the best one by this many times the batch-to-batch
noise (1.4826 x median absolute deviation), and by `DIVERGED_SHARE` of the first level."""

DIVERGED_SHARE = 0.2

PLATEAU_STEPS = 200
"""Steps without any progress before a flat loss is told."""

PLATEAU_SHARE = 0.02
"""No part of the run better than the first by this share of it: flat from the start."""

# --- clipping ----------------------------------------------------------------------------------
CLIPPED_STEPS_SHARE = 0.9
"""Clipping meant for rare peaks (Pascanu et al. 2013, arXiv 1211.5063) that acts on nine steps of
ten is a second learning rate."""

CLIPPED_HARD = 0.01
"""Median factor at which gradients are cut to a hundredth: the learning rate means nothing."""

# --- half precision ----------------------------------------------------------------------------
FLOAT16_SMALLEST = -24
"""Binary exponent of float16's smallest subnormal (IEEE 754 binary16)."""

FLOAT16_NORMAL = -14
FLOAT16_LARGEST = 15
BFLOAT16_SMALLEST = -133
BFLOAT16_NORMAL = -126

UNDERFLOW_SHARE = 0.05
"""The share of gradient elements lost to zero at which training in that type needs loss scaling:
Micikevicius et al. 2018 (arXiv 1710.03740) lost accuracy in a network whose gradients were 5 %
between 2^-24 and 2^-27."""
