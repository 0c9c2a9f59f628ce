"""What every training run shares: the Accelerate loop, batching, optimisation, the run folder."""
