"""`Engine`: the settings that decide how graphs are computed. Other modules pass it to the functions of this package."""

from typing import NamedTuple

from modeling.engine import blas, parallel
from modeling.engine.cpu_threads import gemm_threads, set_gemm_threads
from modeling.engine.kernels import StockKernels, select_kernels
from modeling.engine.lanes.plan import Lanes, plan_lanes
from modeling.engine.runtime import flow

_active = None  # the `Engine` whose number of GEMM threads is set


class Engine(NamedTuple):
    """Device, kernels, lanes and threads of a set of graphs. Engines of one process do not change each other.

    Attributes:
        device: "cpu" or "cuda".
        lanes: `Lanes`, how a batch is divided among the cores of a CPU. The default is one lane for short graphs. `plan_engine` chooses.
    """

    device: str = "cpu"
    lanes: Lanes = Lanes(short=True)

    @property
    def kernels(self) -> StockKernels:
        """The kernels of this device, which compute the operations of the model."""
        return select_kernels(self.device)

    @property
    def ranks(self) -> int:
        """Number of processes that train together."""
        return parallel.size()

    @property
    def sums_gradients(self) -> bool:
        """Whether a batch in parts uses `GradientSums` (one process on a CPU), else OneFlow's gradient accumulation."""
        return self.device == "cpu" and self.ranks == 1

    @property
    def gemm_threads(self) -> int:
        """Number of threads per GEMM."""
        return gemm_threads(self.lanes.count, self.lanes.short)

    @property
    def blas(self) -> str:
        """Name of the BLAS that computes the GEMMs on a CPU."""
        return blas.loaded.name if blas.loaded else "OneFlow's own"

    @property
    def is_main(self) -> bool:
        """Whether this process is rank 0, the one that writes and prints."""
        return parallel.is_main()

    @property
    def version(self) -> str:
        """OneFlow's version."""
        return flow.__version__

    def activate(self, finish) -> None:
        """Sets the GEMM threads of the process to those of this engine.

        Args:
            finish: function without arguments that waits for the last graph, which may belong to another engine and still be running.
        """
        global _active
        if self == _active:
            return
        if _active is None or _active.gemm_threads != self.gemm_threads:
            finish()
            set_gemm_threads(self.gemm_threads)
        _active = self


def plan_engine(device: str, dense_weights: int, batch_size: int, length: int, wanted_lanes: int = 0) -> Engine:
    """The `Engine` for a model and its batches. The other arguments are those of `plan_lanes`."""
    return Engine(device, plan_lanes(dense_weights, batch_size, length, device, wanted_lanes))
