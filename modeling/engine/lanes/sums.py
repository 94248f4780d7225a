"""Changes the jobs of a training step in parts (modeling/engine/accumulation.py): one adds gradients to sums, one updates from the sums."""

from modeling.engine.lanes.job import NORM, UPDATE, producer

_MOMENTUM, _SGD = "momentum_update", "sgd_update"
_SGD_ATTRIBUTES = ("l1", "l2", "learning_rate_scale", "learning_rate_val", "scale", "weight_decay")


def update_momenta(job):
    """Lets a job subtract learning rate times gradient from the momenta of its optimizer, and leave the variables as they are.

    OneFlow's momentum update cannot do this in all versions: with learning rate 0, 0.9.0 adds the gradient to the momentum, 0.8.0 adds 0.

    Args:
        job: `CompiledJob` of a train graph with OneFlow's SGD with momentum, changed in place.
    """
    for operation in job.of_kind(_MOMENTUM):
        inputs = {argument: operation.user_conf.input[argument].s[0] for argument in ("momentum", "model_diff", "learning_rate")}
        job.change_kind(operation, _SGD, dict(model=inputs.pop("momentum"), **inputs), _SGD_ATTRIBUTES)


def replace_gradients(job, sums):
    """Lets a job clip and update with sums of gradients, which are variables, in place of the gradients that it computes.

    Args:
        job: `CompiledJob` of a train graph, changed in place. The operations that computed the gradients are removed.
        sums: dict of variable's name -> name of the variable that contains the sum of its gradients.
    """
    blobs = {}  # gradient -> sum
    for operation in job.operations.values():
        if not operation.user_conf.op_type_name.endswith(UPDATE):
            continue
        (model,), (gradient,) = (operation.user_conf.input[argument].s for argument in ("model", "model_diff"))
        blobs[gradient] = f"{sums[producer(model)]}/out"
    inputs = job.inputs()
    for name, operation in job.operations.items():
        if operation.user_conf.op_type_name == NORM or operation.user_conf.op_type_name.endswith(UPDATE):
            job.take(name, [blobs.get(blob, blob) for blob in inputs[name]])
    job.remove_unused()
