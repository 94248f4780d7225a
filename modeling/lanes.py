"""A batch in parts that the CPU's cores compute beside each other, inside one static graph.

OneFlow's CPU operations use one thread each; only a GEMM uses several, those of its BLAS. So a graph whose operations follow one
another leaves most cores idle outside of its GEMMs. Here the graph's function is applied to each part of the batch, a lane, and
the operations of a lane go to a stream of the engine of their own: the lanes run side by side, each with its share of the BLAS's
threads. What a lane's operations are follows from the compiled job: those that descend from the lane's inputs and from no other
lane's. What joins the lanes (sums of gradients) and what follows (clipping, the optimizer) is dealt out evenly.

The number of lanes is one for a process, as the BLAS's threads are: `plan_lanes`. Short graphs stay in one lane. Besides gaining little,
they must not keep all cores busy: OneFlow notes that a graph is running only when its inputs have been handed over, and a graph that is
done by then ends the process. It takes a scheduler thread without a core for as long as the graph lasts.
"""

import collections

from modeling.runtime import cpu_threads, flow, set_blas_threads

_MOST = 4  # a lane repeats the graph's operations, and compiling takes that much longer
_WORTH_SECONDS, _FLOPS_PER_SECOND = 0.02, 1e11  # of a forward pass, by two cores

_count, _least_tokens = 1, 0


def plan_lanes(config, batch_size, length, wanted=0):
    """Sets the lanes of this process for a model and its batches: one a core, four at most, one where a batch is soon done.

    Args:
        config: `BertConfig`.
        batch_size, length: samples that a step computes at once in this process, and their greatest length.
        wanted: a number of lanes instead, whatever a batch takes.
    Returns:
        int.
    """
    least = int(_WORTH_SECONDS * _FLOPS_PER_SECOND / (2 * config.dense_weights))
    if wanted:
        return use_lanes(min(wanted, batch_size))
    many = batch_size * length >= least
    return use_lanes(min(cpu_threads(), _MOST, batch_size) if many else 1, least)


def use_lanes(count, least_tokens=0):
    """Sets the lanes of this process and gives each its share of the BLAS's threads; batches of fewer tokens stay in one lane."""
    global _count, _least_tokens
    _count, _least_tokens = count, least_tokens
    set_blas_threads(max(1, cpu_threads() // count))
    if count > 1:
        _use_once()
    return count


def count():
    """Lanes of this process."""
    return _count


def cut(arrays, batch_size, length):
    """Cuts the arrays of a batch into the lanes' parts along the first dimension.

    Args:
        arrays: dict name -> array [B * r, ...], r rows a sample.
        batch_size, length: B, S; a batch smaller than the number of lanes has fewer.
    Returns:
        dict name -> tuple of arrays, views of the given ones.
    """
    number = min(_count, batch_size) if batch_size * length >= _least_tokens else 1
    bounds = [batch_size * lane // number for lane in range(number + 1)]
    parts = {}
    for name, array in arrays.items():
        rows = len(array) // batch_size
        parts[name] = tuple(array[start * rows : stop * rows] for start, stop in zip(bounds, bounds[1:]))
    return parts


def _use_once():
    """Uses each kind of oneDNN's primitives once, on one thread.

    Lanes come to their first permutation at the same moment. One process was seen to end there, of oneDNN's "could not create a primitive
    descriptor for a reorder primitive" (OneFlow 0.9.0). It did not come back, with or without this, so that this is a precaution.
    """
    x = flow.ones(2, 3, 4, 5).requires_grad_()
    y = flow.softmax(x.permute(0, 2, 1, 3) * 2.0 + flow.ones(5), dim=-1)
    (y + flow.tanh(y) * y).sum().backward()
    x.grad.numpy()


def deal_out(job, count):
    """Names the stream of each operation of a compiled job.

    Args:
        job: OneFlow's job, complete with backward pass and update; changed in place. Its inputs are the lanes' in turn.
        count: lanes.
    """
    operations = {operation.name: operation for operation in job.net.op}
    sizes = {name: _size(blob) for name, blob in job.helper.lbn2logical_blob_desc.items()}
    inputs = {name: _inputs(operation) for name, operation in operations.items()}
    lanes = _lanes_of(operations, inputs, count)
    loads = collections.defaultdict(lambda: [0] * count)  # by kind: the updates come behind the norm, whose lane takes half of them
    for name in _in_order(inputs):
        operation, lane = operations[name], lanes[name]
        if operation.WhichOneof("op_type") != "user_conf":
            continue
        if lane is None:
            load = loads[operation.user_conf.op_type_name]
            lane = min(range(count), key=load.__getitem__)
            load[lane] += sum(sizes.get(blob, 0) for blob in inputs[name])
        operation.stream_name_hint = f"lane-{lane}"


def _lanes_of(operations, inputs, count):
    """dict name of operation -> its lane, None for what joins lanes or belongs to none."""
    producers = {name: [_producer(blob) for blob in blobs] for name, blobs in inputs.items()}
    order = _in_order(inputs)
    entrances = [name for name in operations if operations[name].WhichOneof("op_type") == "input_conf"]
    lanes = {name: position % count for position, name in enumerate(entrances)}
    products = {}  # lane of an operation's output, where it is not the operation's own
    for name in order:
        if name in lanes:
            continue
        added_to = _added_to(operations[name])
        known = {other: products.get(other, lanes[other]) for other in producers[name]}
        all_lanes = set(known.values()) - {None}
        own = {lane for other, lane in known.items() if other not in added_to} - {None} or all_lanes
        lanes[name] = next(iter(own)) if len(own) == 1 else None
        if len(all_lanes) > 1:
            products[name] = None  # a lane's product on top of another's is both lanes' sum
    users = {}
    for name, others in producers.items():
        for other in others:
            users.setdefault(other, []).append(name)
    for name in reversed(order):  # constants and views of variables go where they are used
        if lanes[name] is None:
            found = {lanes[user] for user in users.get(name, ())}
            lanes[name] = found.pop() if len(found) == 1 else None
    return lanes


def _inputs(operation):
    kind = operation.WhichOneof("op_type")
    if kind == "user_conf":
        return [blob for blobs in operation.user_conf.input.values() for blob in blobs.s]
    return [getattr(operation.output_conf, "in")] if kind == "output_conf" else []


def _added_to(operation):
    """Names of the operations whose output this one adds its own to."""
    if operation.WhichOneof("op_type") != "user_conf" or "_add_to_output" not in operation.user_conf.input:
        return set()
    return {_producer(blob) for blob in operation.user_conf.input["_add_to_output"].s}


def _producer(blob):
    return blob.rsplit("/", 1)[0]


def _size(blob):
    size = 1
    for dimension in blob.shape.dim:
        size *= dimension
    return size


def _in_order(inputs):
    """Names of operations, each behind those that it takes from."""
    waiting = {name: len(blobs) for name, blobs in inputs.items()}
    users = {}
    for name, blobs in inputs.items():
        for blob in blobs:
            users.setdefault(_producer(blob), []).append(name)
    order = [name for name, count in waiting.items() if not count]
    for name in order:
        for user in users.get(name, ()):
            waiting[user] -= 1
            if not waiting[user]:
                order.append(user)
    return order
