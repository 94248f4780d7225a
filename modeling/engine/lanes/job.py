"""A job, OneFlow's description of a graph: adds and replaces operations before OneFlow compiles the job to a plan.

This uses private interfaces of OneFlow; tests/modeling/engine/lanes/test_lanes.py checks that they still work. An operation has entries in
five places of a job, which only this module knows. It supports jobs of one process only: every blob is complete on the one device.
"""

import math

UPDATE = "_update"  # suffix of the types of OneFlow's update operations
NORM = "multi_reduce_sum_pow_abs"  # operation type: sum of powers of all gradients, for their clipping
_ADDED = "_add_to_output"  # argument of a GEMM: a blob that the GEMM adds to its product
# OneFlow 0.8.0 starts the backward pass with this operation: ones in the shape of the loss. 0.9.0 has an ordinary operation for it. The
# shape is the same in all lanes, so `CompiledJob.inputs` leaves out the loss
_CONSTANT_LIKE = "constant_like_conf"


class CompiledJob:
    """A complete job, with backward pass and update.

    Args:
        proto: OneFlow's job, a protobuf message; changed in place.
    """

    def __init__(self, proto):
        self.proto = proto
        self.operations = {operation.name: operation for operation in proto.net.op}
        self._groups = None

    def of_kind(self, kind):
        """The operations of OneFlow's type `kind`, in the order of the job."""
        return [operation for operation in self.operations.values() if operation.user_conf.op_type_name == kind]

    def size(self, blob):
        """Number of elements of a blob ("operation/output")."""
        return math.prod(self.proto.helper.lbn2logical_blob_desc[blob].shape.dim)

    def inputs(self):
        """dict of operation name -> list of its input blobs."""
        return {name: _inputs(operation) for name, operation in self.operations.items()}

    def put(self, like, name, inputs, **attributes):
        """Adds a copy of an operation with other inputs, or changes the operation itself if `name` is its name.

        Args:
            like: an operation with one argument and one output.
            name: name of the new operation.
            inputs: list of input blobs, which replace those of `like`.
            attributes: name -> attribute value of OneFlow, for attributes that differ.
        Returns:
            the output, a blob of the same shape as that of `like`.
        """
        new = like if name == like.name else self._add(like, name)
        (argument,) = new.user_conf.input
        new.user_conf.input[argument].s[:] = inputs
        for key, value in attributes.items():
            new.user_conf.attr[key].CopyFrom(value)
        self._describe(new)
        ((_, blobs),) = new.user_conf.output.items()
        return blobs.s[0]

    def repeat(self, like, name, renamed):
        """Adds a copy of an operation.

        Args:
            like: an operation.
            name: name of the copy.
            renamed: dict of input blob of `like` -> input blob of the copy. Blobs that are not in it stay the same.
        Returns:
            dict of output blob of `like` -> output blob of the copy.
        """
        new = self._add(like, name)
        self.take(name, [renamed.get(blob, blob) for blob in _inputs(new)])
        theirs, ours = (
            [blob for argument in sorted(operation.user_conf.output) for blob in operation.user_conf.output[argument].s]
            for operation in (like, new)
        )
        return dict(zip(theirs, ours))

    def add_up(self, blobs, name):
        """Adds an operation that sums blobs of one shape; returns its output blob."""
        new = self._copy(self.operations[producer(blobs[0])], name)
        new.user_conf.Clear()
        new.user_conf.op_type_name = "add_n"
        new.user_conf.input["in"].s[:] = blobs
        new.user_conf.output["out"].s.append(f"{name}/out_0")
        new.user_conf.input_order.append("in")
        new.user_conf.output_order.append("out")
        (blob,) = new.user_conf.output["out"].s
        self.proto.helper.lbn2logical_blob_desc[blob].CopyFrom(self.proto.helper.lbn2logical_blob_desc[blobs[0]])
        self._describe(new)
        return blob

    def add_to(self, product, blob):
        """Lets the GEMM with output `product` add its product to a blob of the same shape.

        Returns:
            False if `product` is not the output of a GEMM, or if the GEMM adds to a blob already; else True.
        """
        operation = self.operations[producer(product)]
        if operation.user_conf.op_type_name != "matmul" or _ADDED in operation.user_conf.input:
            return False
        operation.user_conf.input[_ADDED].s.append(blob)
        operation.user_conf.input_order.append(_ADDED)
        self._describe(operation)
        return True

    def take(self, name, blobs):
        """Replaces the input blobs of the operation `name`, in the order of `inputs`."""
        operation = self.operations[name]
        if operation.WhichOneof("op_type") == "output_conf":
            (blob,) = blobs
            setattr(operation.output_conf, "in", blob)
        else:
            blobs = iter(blobs)
            for taken in operation.user_conf.input.values():
                taken.s[:] = [next(blobs) for _ in taken.s]
        self._describe(operation)

    def change_kind(self, operation, kind, inputs, attributes):
        """Changes the type of an operation without outputs.

        Args:
            operation: an operation of this job.
            kind: the new type.
            inputs: dict of argument -> blob, all inputs of the new type in its order.
            attributes: names of the attributes to keep.
        """
        conf = operation.user_conf
        conf.op_type_name = kind
        conf.input.clear()
        conf.input_order[:] = list(inputs)
        for argument, blob in inputs.items():
            conf.input[argument].s.append(blob)
        for name in set(conf.attr) - set(attributes):
            del conf.attr[name]
        self._describe(operation)

    def remove_unused(self):
        """Removes the operations on which neither an output of the job nor a change of a variable depends."""
        inputs = self.inputs()
        needed = [name for name, operation in self.operations.items() if _has_effect(operation)]
        kept = set(needed)
        for name in needed:
            blobs = inputs[name] or _shapes_from(self.operations[name])
            for other in {producer(blob) for blob in blobs} - kept:
                kept.add(other)
                needed.append(other)
        for name in self.operations.keys() - kept:
            self._remove(name)

    def _remove(self, name):
        operation, helper, views = self.operations.pop(name), self.proto.helper, self.proto.job_parallel_view_conf
        produced = [blob for blobs in operation.user_conf.output.values() for blob in blobs.s]
        if operation.WhichOneof("op_type") == _CONSTANT_LIKE:
            produced = [f"{name}/{operation.constant_like_conf.out}"]
        for blob in produced:
            del helper.lbn2logical_blob_desc[blob]
        self._group_of(name).remove(name)
        for entries in (helper.op_name2arg_signature, views.op_name2sbp_signature_conf, views.op_name2nd_sbp_signature_conf):
            if name in entries:
                del entries[name]
        self.proto.net.op.remove(operation)

    def _copy(self, like, name):
        new = self.proto.net.op.add()
        new.CopyFrom(like)
        new.name = name
        self._group_of(like.name).append(name)
        self.operations[name] = new
        return new

    def _add(self, like, name):
        """Adds a copy of an operation with new output blobs."""
        new, described = self._copy(like, name), self.proto.helper.lbn2logical_blob_desc
        for blobs in new.user_conf.output.values():
            for place, blob in enumerate(blobs.s):
                blobs.s[place] = f"{name}/{blob.rsplit('/', 1)[1]}"
                described[blobs.s[place]].CopyFrom(described[blob])
        return new

    def _group_of(self, name):
        """The names of the operations in the placement group of the operation `name`."""
        if self._groups is None:
            names = [group.op_set.op_name for group in self.proto.placement.placement_group]
            self._groups = {name: group for group in names for name in group}
        return self._groups[name]

    def _describe(self, operation):
        """Writes the entries for an operation's arguments: their blobs, and that each blob is complete on the device."""
        views, helper = self.proto.job_parallel_view_conf, self.proto.helper
        spreads = views.op_name2sbp_signature_conf[operation.name].bn_in_op2sbp_parallel
        nd_spreads = views.op_name2nd_sbp_signature_conf[operation.name].bn_in_op2nd_sbp
        blobs_of = helper.op_name2arg_signature[operation.name].bn_in_op2lbi
        for entries in (spreads, nd_spreads, blobs_of):
            entries.clear()
        for name, blob in _arguments(operation):
            spreads[name].broadcast_parallel.SetInParent()
            nd_spreads[name].sbp_parallel.add().broadcast_parallel.SetInParent()
            blobs_of[name].op_name, blobs_of[name].blob_name = blob.rsplit("/", 1)


def _has_effect(operation):
    """Whether an operation is needed for itself: it is not an ordinary operation, or it changes a variable."""
    kind = operation.user_conf.op_type_name
    return operation.WhichOneof("op_type") not in ("user_conf", _CONSTANT_LIKE) or kind.endswith(UPDATE) or kind == "assign"


def _shapes_from(operation):
    """The blobs of which an operation needs only the shape."""
    return [operation.constant_like_conf.like] if operation.WhichOneof("op_type") == _CONSTANT_LIKE else []


def producer(blob):
    """Name of the operation that produces a blob."""
    return blob.rsplit("/", 1)[0]


def in_order(inputs):
    """Names of operations in topological order: each comes after the operations that produce its inputs.

    Args:
        inputs: from `CompiledJob.inputs`.
    """
    waiting = {name: len(blobs) for name, blobs in inputs.items()}
    users = {}
    for name, blobs in inputs.items():
        for blob in blobs:
            users.setdefault(producer(blob), []).append(name)
    order = [name for name, count in waiting.items() if not count]
    for name in order:
        for user in users.get(name, ()):
            waiting[user] -= 1
            if not waiting[user]:
                order.append(user)
    return order


def _inputs(operation):
    kind = operation.WhichOneof("op_type")
    if kind == "user_conf":
        return [blob for blobs in operation.user_conf.input.values() for blob in blobs.s]
    return [getattr(operation.output_conf, "in")] if kind == "output_conf" else []


def _arguments(operation):
    """List of (name and position of the argument, blob) for all inputs and outputs of an operation."""
    if operation.WhichOneof("op_type") == "output_conf":
        return [("in", getattr(operation.output_conf, "in")), ("out", f"{operation.name}/{operation.output_conf.out}")]
    conf = operation.user_conf
    return [
        (f"{argument}_{place}", blob)
        for arguments in (conf.input, conf.output)
        for argument, blobs in arguments.items()
        for place, blob in enumerate(blobs.s)
    ]
