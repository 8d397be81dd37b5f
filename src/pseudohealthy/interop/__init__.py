"""Published checkpoints and hub models, brought to the settings and parameter names of our
networks."""
