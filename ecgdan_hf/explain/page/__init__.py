"""Figures and reports of one explained ECG."""
