"""How a network is run privately: replicas, sites, outputs, scores and their gradients."""
