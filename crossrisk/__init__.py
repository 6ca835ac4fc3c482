"""The library of the trade: config, labels, feature plan, metrics, gate, registry. No Prefect, no TensorFlow."""
