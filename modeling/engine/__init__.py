"""OneFlow: import, static graphs from functions, kernels by device, ranks, lanes. Only this package imports OneFlow."""
