"""One training loop over a restorer's parts, on one process or many, that goes on after a stop."""
