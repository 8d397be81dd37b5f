"""Evaluation: exact curves, thresholds with a source, patient bootstrap, protocols, plots."""
