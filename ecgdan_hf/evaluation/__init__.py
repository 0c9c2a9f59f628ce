"""Evaluation: metrics with intervals over patients, baselines to compare with, predictions for files."""
