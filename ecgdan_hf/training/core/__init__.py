"""The parts that all training runs share: the skeleton, the Accelerate loop, batching, optimisation, folders."""
