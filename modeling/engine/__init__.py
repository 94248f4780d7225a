"""OneFlow: how it is loaded, how functions become static graphs, kernels by device, ranks, lanes. The only room that imports it."""
