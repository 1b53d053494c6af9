"""Train and evaluate: the Lightning module, its schedule, the LR range test and the Trainer that joins them."""
