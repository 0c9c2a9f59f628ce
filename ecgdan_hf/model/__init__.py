"""Networks, losses and the signal contract: code that travels with the weights, so the folder stays flat."""
