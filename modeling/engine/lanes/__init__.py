"""Lanes: parts of a batch that the cores of a CPU compute at the same time. Only this package changes OneFlow's compiled jobs."""
