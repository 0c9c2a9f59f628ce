"""Training on Accelerate: pretraining, fine-tuning and probing, each with arguments, an objective and a `main()`."""
