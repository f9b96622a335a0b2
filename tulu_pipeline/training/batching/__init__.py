"""From tokens to the micro-batches of each step: order, layouts, packing, the weight of each token."""
