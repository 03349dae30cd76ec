"""A search space: the contents of a file of search_spaces/, checked against `TrialConfig`, and its hash.

[fixed]                                    # every trial has these values
kimg = 100
[search]                                   # drawn for every trial
lr_g = { float = [1e-5, 1e-2], log = true }
width_g = { int = [8, 64], log = true }
loss = { choice = ["hinge", "nonsaturating"] }
gamma = { float = [0.1, 10.0], log = true, when = { penalty = ["r1", "gp"] } }
[[enqueue]]                                # tried first, in this order; what is missing is drawn
recipe = "sngan"                           # a published point; the space must search or fix all it sets
lr_g = 2e-4                                # replaces the recipe's value
"""
