"""What a model has to beat: age and sex, ECG measurements, a randomly initialised encoder."""
