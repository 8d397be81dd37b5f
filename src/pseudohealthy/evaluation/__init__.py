"""Evaluation: exact curves, thresholds with a source, patient bootstrap, the strict protocol, plots."""
