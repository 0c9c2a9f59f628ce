"""Measurements of an ECG: delineation, intervals, axes, voltages."""
