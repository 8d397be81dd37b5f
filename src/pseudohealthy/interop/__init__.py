"""Published checkpoints and hub models, with the settings and parameter names of our networks."""
