"""A search space: what a file of search_spaces/ says, checked against `TrialConfig`, and its hash.

[fixed]                                    # every trial has these
kimg = 100
[search]                                   # every trial draws these
lr_g = { float = [1e-5, 1e-2], log = true }
width_g = { int = [8, 64], log = true }
loss = { choice = ["hinge", "nonsaturating"] }
gamma = { float = [0.1, 10.0], log = true, when = { penalty = ["r1", "gp"] } }
[[enqueue]]                                # tried first, in this order; what is left out is drawn
recipe = "sngan"                           # a published point; the space searches or fixes what it sets
lr_g = 2e-4                                # goes before the recipe's
"""
