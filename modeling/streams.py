"""Gives each operation of a compiled job the stream of a lane (modeling/lanes.py), so that the engine runs the lanes side by side.

What a lane's operations are follows from the job: those that descend from the lane's inputs and from no other lane's. What joins the
lanes (sums of gradients) and what follows (clipping, the optimizer) is dealt out evenly. The job is OneFlow's own description of the
graph; that it may be changed before it is compiled is private to OneFlow, and tests/modeling/test_lanes.py holds it to that.
"""

import collections

_NORM = "multi_reduce_sum_pow_abs"


def deal_out(job, count):
    """Names the stream of each operation of a compiled job.

    Args:
        job: OneFlow's job, complete with backward pass and update; changed in place. Its inputs are the lanes' in turn.
        count: lanes.
    """
    sizes = {name: _size(blob) for name, blob in job.helper.lbn2logical_blob_desc.items()}
    for operation in [o for o in job.net.op if o.user_conf.op_type_name == _NORM]:
        _cut_norm(job, operation, sizes, count)
    operations = {operation.name: operation for operation in job.net.op}
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


def _cut_norm(job, operation, sizes, count):
    """Cuts the sum of powers of all gradients, for whose one operation all lanes wait, into one of each lane's share and their sum."""
    shares, load = [[] for _ in range(count)], [0] * count
    for blob in sorted(operation.user_conf.input["x"].s, key=lambda blob: -sizes[blob]):
        lane = min(range(count), key=load.__getitem__)
        shares[lane].append(blob)
        load[lane] += sizes[blob]
    whole, output = operation.name, operation.user_conf.output["y"].s[0]
    (group,) = (group for group in job.placement.placement_group if whole in group.op_set.op_name)
    views, signatures = job.job_parallel_view_conf, job.helper.op_name2arg_signature
    parts = []
    for lane, share in enumerate(filter(None, shares)):
        name = f"{whole}-part-{lane}"
        parts.append(f"{name}/{output.rsplit('/', 1)[1]}")
        part = job.net.op.add()
        part.CopyFrom(operation)
        part.name, part.user_conf.output["y"].s[0] = name, parts[-1]
        group.op_set.op_name.append(name)
        job.helper.lbn2logical_blob_desc[parts[-1]].CopyFrom(job.helper.lbn2logical_blob_desc[output])
        _take(part, share, name, whole, views, signatures)
    operation.user_conf.attr["p"].at_float = 1.0  # of sums, which are not negative
    _take(operation, parts, whole, whole, views, signatures)


def _take(operation, blobs, name, like, views, signatures):
    """Makes blobs the inputs "x" of an operation whose own entries are, or are to be, like those of another one of its kind."""
    operation.user_conf.input["x"].s[:] = blobs
    kept = {"y_0", *(f"x_{position}" for position in range(len(blobs)))}
    for entries, field in (
        (views.op_name2sbp_signature_conf, "bn_in_op2sbp_parallel"),
        (views.op_name2nd_sbp_signature_conf, "bn_in_op2nd_sbp"),
        (signatures, "bn_in_op2lbi"),
    ):
        if name != like:
            entries[name].CopyFrom(entries[like])
        of_names = getattr(entries[name], field)
        for bn in [bn for bn in of_names if bn not in kept]:
            del of_names[bn]
    for bn, blob in [("y_0", operation.user_conf.output["y"].s[0]), *((f"x_{place}", blob) for place, blob in enumerate(blobs))]:
        lbi = signatures[name].bn_in_op2lbi[bn]
        lbi.op_name, lbi.blob_name = blob.rsplit("/", 1)


def _lanes_of(operations, inputs, count):
    """dict name of operation -> its lane, None for what joins lanes or belongs to none."""
    producers = {name: [_producer(blob) for blob in blobs] for name, blobs in inputs.items()}
    order = _in_order(inputs)
    entrances = [name for name in operations if operations[name].WhichOneof("op_type") == "input_conf"]
    lanes = {name: position % count for position, name in enumerate(entrances)}
    joint = set()  # whose output is of several lanes, though a lane may compute it: its product on top of another lane's
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


def _summands(operation):
    """Names of the operations whose outputs this one adds up, or adds its own to."""
    if operation.WhichOneof("op_type") != "user_conf":
        return set()
    summands = operation.user_conf.input.get("in" if operation.user_conf.op_type_name == "add_n" else "_add_to_output")
    return {_producer(blob) for blob in summands.s} if summands else set()


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
