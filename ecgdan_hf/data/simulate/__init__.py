"""Simulated data with known truth: synthetic ECGs, follow-up, premature beats."""
