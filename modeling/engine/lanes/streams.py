"""Assigns each operation of a compiled job to the stream of a lane (modeling/engine/lanes/plan.py), so that the lanes run in parallel.

The operations of a lane are those that depend on the inputs of this lane and of no other lane. The operations that join lanes (sums of
gradients) and those that follow (clipping, the optimizer) are distributed evenly among the streams.
"""

import collections

from oneflow.core.framework.user_op_attr_pb2 import AttrValue

from modeling.engine.lanes.job import NORM, in_order, producer
from modeling.engine.lanes.plan import lane_of


def assign_streams(job, count):
    """Assigns a stream to each operation of a job.

    Args:
        job: `CompiledJob`, changed in place. It has the inputs of all lanes, in the order of `interleave`.
        count: number of lanes.
    """
    for operation in job.of_kind(NORM):
        _cut_norm(job, operation, count)
    operations, inputs = job.operations, job.inputs()
    lanes = _lanes_of(operations, inputs, count)
    loads = collections.defaultdict(lambda: [0] * count)  # by operation type, so that the updates are distributed evenly by themselves
    for name in in_order(inputs):
        operation, lane = operations[name], lanes[name]
        if operation.WhichOneof("op_type") != "user_conf":
            continue
        if lane is None:
            load = loads[operation.user_conf.op_type_name]
            lane = min(range(count), key=load.__getitem__)
            load[lane] += sum(job.size(blob) for blob in inputs[name])
        operation.stream_name_hint = f"lane-{lane}"


def _cut_norm(job, norm, count):
    """Splits the sum of powers of all gradients into one partial sum per lane and their total, since all lanes wait for it."""
    parts, load = [[] for _ in range(count)], [0] * count
    for blob in sorted(norm.user_conf.input["x"].s, key=lambda blob: -job.size(blob)):
        lane = min(range(count), key=load.__getitem__)
        parts[lane].append(blob)
        load[lane] += job.size(blob)
    sums = [job.put(norm, f"{norm.name}-part-{lane}", part) for lane, part in enumerate(parts) if part]
    job.put(norm, norm.name, sums, p=AttrValue(at_float=1.0))  # the total: partial sums are not negative


def _lanes_of(operations, inputs, count):
    """dict of operation name -> its lane; None for an operation that joins lanes or belongs to none."""
    producers = {name: [producer(blob) for blob in blobs] for name, blobs in inputs.items()}
    order = in_order(inputs)
    entrances = [name for name in operations if operations[name].WhichOneof("op_type") == "input_conf"]
    lanes = {name: lane_of(position, count) for position, name in enumerate(entrances)}
    joint = set()  # operations that depend on several lanes. One lane may compute them: a GEMM that adds to another lane's product
    for name in order:
        if name in lanes:
            continue
        summands = _summands(operations[name])
        known = {other: None if other in joint else lanes[other] for other in producers[name]}
        every = set(known.values()) - {None}
        own = {lane for other, lane in known.items() if other not in summands} - {None}
        if len(every) > 1 or joint & (summands if own else set(known)):
            joint.add(name)
        found = own or (every if name not in joint else ())
        lanes[name] = next(iter(found)) if len(found) == 1 else None
    users = {}
    for name, others in producers.items():
        for other in others:
            users.setdefault(other, []).append(name)
    for name in reversed(order):  # constants and views of variables belong to the lane that uses them
        if lanes[name] is None:
            found = {lanes[user] for user in users.get(name, ())}
            lanes[name] = found.pop() if len(found) == 1 else None
    return lanes


def _summands(operation):
    """Names of the operations whose outputs this operation sums, or adds to its own product."""
    if operation.WhichOneof("op_type") != "user_conf":
        return set()
    summands = operation.user_conf.input.get("in" if operation.user_conf.op_type_name == "add_n" else "_add_to_output")
    return {producer(blob) for blob in summands.s} if summands else set()
