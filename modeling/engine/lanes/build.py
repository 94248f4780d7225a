"""Builds a graph with several lanes: replicates the traced lane in the graph's job, and assigns a stream to each operation.

Other modules reach the private interfaces of OneFlow that lanes need only through this module. A graph with one lane does not use it.
"""

from modeling.engine.lanes.job import CompiledJob
from modeling.engine.lanes.plan import by_lane
from modeling.engine.lanes.replicate import replicate_lane
from modeling.engine.lanes.streams import assign_streams
from modeling.engine.lanes.sums import replace_gradients, update_momenta
from modeling.engine.runtime import flow


def have_one_shape(parts) -> bool:
    """Whether the inputs of all lanes have the same shapes, so that it is enough to trace one lane.

    Args:
        parts: list with the inputs of each lane.
    """
    return len({tuple(tuple(tensor.shape) for tensor in part) for part in parts}) == 1


def build_graph(graph, inputs, count, trains, sums_gradients=False):
    """Replaces `oneflow.nn.Graph.build_graph` in graphs with several lanes, and in those that add gradients to sums.

    Args:
        graph: the `nn.Graph`.
        inputs: the graph's inputs for all lanes, in the order of `interleave`.
        count: number of lanes.
        trains: whether the graph has a backward pass.
        sums_gradients: whether the graph updates the momenta of its optimizer in place of the variables.
    """
    built = flow.nn.Graph.build_graph(graph, *inputs)
    job = CompiledJob(graph._full_graph_proto)
    if sums_gradients:
        update_momenta(job)
    if count > 1:
        if have_one_shape(by_lane(inputs, count)):
            replicate_lane(job, count, trains)
        assign_streams(job, count)
    graph._full_graph_proto = job.proto
    return built


def build_update_graph(graph, sums, count):
    """Replaces `oneflow.nn.Graph.build_graph` in a graph that updates variables from sums of gradients.

    Args:
        graph: the `nn.Graph`, without inputs.
        sums: dict of variable's name in the job -> name of the variable that contains the sum of its gradients.
        count: number of lanes.
    """
    built = flow.nn.Graph.build_graph(graph)
    job = CompiledJob(graph._full_graph_proto)
    replace_gradients(job, sums)
    if count > 1:
        assign_streams(job, count)
    graph._full_graph_proto = job.proto
    return built
