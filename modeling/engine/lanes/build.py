"""Builds a graph whose batch comes in lanes: completes the job of one lane, or of all, and gives every operation its stream.

The only door to the private interfaces of OneFlow that lanes need. A graph in one lane never comes here.
"""

from modeling.engine.lanes.job import CompiledJob
from modeling.engine.lanes.plan import by_lane
from modeling.engine.lanes.replicate import replicate_lane
from modeling.engine.lanes.streams import assign_streams
from modeling.engine.runtime import flow


def have_one_shape(parts) -> bool:
    """Whether one lane can be traced for all: the inputs of all lanes have the same shapes.

    Args:
        parts: list per lane of its inputs.
    """
    return len({tuple(tuple(tensor.shape) for tensor in part) for part in parts}) == 1


def build_graph(graph, inputs, count, trains):
    """Stands in for `oneflow.nn.Graph.build_graph` where a batch comes in lanes.

    Args:
        graph: the `nn.Graph`.
        inputs: its inputs, of all lanes, as `interleave` orders them.
        count: lanes.
        trains: whether the graph has a backward pass.
    """
    built = flow.nn.Graph.build_graph(graph, *inputs)
    job = CompiledJob(graph._full_graph_proto)
    if have_one_shape(by_lane(inputs, count)):
        replicate_lane(job, count, trains)
    assign_streams(job, count)
    graph._full_graph_proto = job.proto
    return built
