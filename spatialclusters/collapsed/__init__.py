"""The collapsed posterior: NUTS over hyperparameters, everything Gaussian integrated out."""
