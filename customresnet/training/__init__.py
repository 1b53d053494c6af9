"""Train and evaluate: the Lightning module, the LR range test, callbacks and the Trainer."""
