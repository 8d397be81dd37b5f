"""One loop over a restorer's parts; checkpoints that survive; the same words on one process or
many."""
