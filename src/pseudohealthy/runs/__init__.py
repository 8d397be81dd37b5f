"""Runs: what a training leaves behind."""
