"""Worker: steps of this project's graphs, or of the same graph with OneFlow's stock layers and OneFlow's own BLAS.

Keys of the job: implementation ("ours", "stock"), mode ("train", "predict", "mlm"), layers, hidden, heads, batch, length, words (word
pieces in use), masked (tokens per text, for "mlm"), steps (per turn), device, use_fp16, memory_limit (GB that decide the number of parts of
a training step of "ours", or None).
Each step includes sampling its dropout masks, as in the training loop. On a CPU, the first answer also contains the values of
`machine_limit`.
"""

if not __package__:
    import _root  # noqa: F401

import time

import numpy as np

from benchmarks.workers.protocol import read_job, serve
from modeling.engine import blas

VOCABULARY = 30522  # all of BERT's word pieces


def machine_limit(job, config):
    """The speed of the machine for GEMMs of the job's sizes.

    Returns:
        dict: "gemm_gflops", the rate of the feed-forward layer's GEMM for the whole batch, in one call on all cores; "limit", the seconds
        that the floating-point operations of a step take at this rate. The backward pass counts as two forward passes.
    """
    from modeling.engine.cpu_threads import cpu_threads, set_gemm_threads
    from modeling.engine.runtime import flow

    tokens, hidden = job["batch"] * job["length"], job["hidden"]
    set_gemm_threads(cpu_threads())
    x, weight = flow.ones(tokens, hidden), flow.ones(hidden, 4 * hidden)
    seconds = []
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(10):
            product = flow.matmul(x, weight)
        product.numpy()
        seconds.append((time.perf_counter() - started) / 10)
    rate = 2 * tokens * hidden * 4 * hidden / min(seconds)
    attention = 4 * tokens * job["length"] * hidden * job["layers"]
    operations = 2 * config.dense_weights * tokens + attention
    if job["mode"] == "mlm":
        operations += 2 * job["batch"] * job["masked"] * config.vocab_size * hidden
    operations *= 1 if job["mode"] == "predict" else 3
    return {"gemm_gflops": round(rate / 1e9), "limit": round(operations / rate, 4)}


def parts_of(job, config, variables, lanes):
    """The smallest number of parts of equal size in which a training step fits into the job's memory limit; 1 without a limit."""
    from modeling.run.resources import Graph, MemoryPlan, Model

    if not job.get("memory_limit") or job["implementation"] != "ours":
        return 1
    trained = sum(parameter.numel() for parameter in variables.trained().values())
    per_row = (lambda _graph: 5 * job["masked"] * config.vocab_size) if job["mode"] == "mlm" else None
    plan = MemoryPlan(Model(config, variables.in_memory(), trained), lanes, job["memory_limit"] * 1e9, per_row=per_row)
    numbers = [number for number in range(1, job["batch"] + 1) if job["batch"] % number == 0]
    fitting = [number for number in numbers if plan.needed([Graph(True, job["batch"] // number, job["length"])], number) <= plan.limit]
    return fitting[0] if fitting else numbers[-1]


def main():
    job = read_job()
    if job["implementation"] == "stock":  # OneFlow's own BLAS, which users of OneFlow have by default
        blas.load_blas = lambda _threads: None
    from modeling.bert.config import BertConfig
    from modeling.bert.dropout import DropoutPlan
    from modeling.bert.names import POOLER_PREFIX, TOKEN_HEAD
    from modeling.bert.variables import Variables, classifier_shapes, encoder_shapes, initial_value, token_head_shapes
    from modeling.engine.engine import Engine, plan_engine
    from modeling.engine.global_function import global_function
    from modeling.engine.kernels import StockKernels, select_kernels
    from modeling.engine.lanes.plan import Lanes
    from modeling.objectives.masked_lm import masked_lm_objective
    from modeling.objectives.mft import finetuning_objective, predict_logits
    from modeling.run.optimizer import Schedule, create_optimizer

    batch, length, device = job["batch"], job["length"], job["device"]
    config = BertConfig(
        vocab_size=VOCABULARY if job["mode"] == "mlm" else job["words"],
        hidden_size=job["hidden"],
        num_hidden_layers=job["layers"],
        num_attention_heads=job["heads"],
        intermediate_size=4 * job["hidden"],
    )
    facts = machine_limit(job, config) if device == "cpu" else {}
    ours = job["implementation"] == "ours"
    engine = plan_engine(device, config.dense_weights, batch, length) if ours else Engine(device, Lanes())
    shapes = {**encoder_shapes(config), **classifier_shapes(config, 2)}
    if job["mode"] == "mlm":  # without the pooler, which has no gradient there
        shapes = {name: shape for name, shape in encoder_shapes(config).items() if not name.startswith(POOLER_PREFIX)}
        shapes.update(token_head_shapes(config))
    variables = Variables({name: initial_value(name, shape, 1) for name, shape in shapes.items()}, device)
    kernels = StockKernels(device) if job["implementation"] == "stock" else select_kernels(device)
    draw = np.random.default_rng(0)
    arrays = {
        "word_rows": draw.integers(0, job["words"], (batch, length)).astype(np.int32),
        "input_mask": np.ones((batch, length), np.int32),
        "segment_ids": np.zeros((batch, length), np.int32),
    }
    steps, last = 0, TOKEN_HEAD[-1] if job["mode"] == "mlm" else "classification-output_bias"

    if job["mode"] != "predict":
        optimizer, rates = create_optimizer(variables, Schedule(1e-5, 100000, 100))
        facts["parts"] = parts = parts_of(job, config, variables, engine.lanes)
        plan = DropoutPlan(config, 42, device, parts)
        settings = {"optimizer": optimizer, "schedule": rates, "mixed_precision": job["use_fp16"], "engine": engine, "parts": parts}
        arrays["loss_mask"] = np.ones(batch, np.float32)

    if job["mode"] == "mlm":
        places = np.zeros((batch, job["masked"], length), np.float32)
        places[:, np.arange(job["masked"]), np.arange(job["masked"])] = 1
        masked_ids = draw.integers(0, job["words"], (batch, job["masked"])).astype(np.int32)
        weights = np.full((batch, job["masked"]), 1 / job["masked"], np.float32)
        arrays.update(masked_places=places, masked_ids=masked_ids, masked_weights=weights)

        @global_function(type="train", variables=variables, **settings)
        def job_function(variables, **inputs):
            dropout = plan.take(inputs)
            return masked_lm_objective(variables, config, kernels, dropout, **inputs)

    elif job["mode"] == "train":
        arrays["label"] = draw.integers(0, 2, batch).astype(np.int32)

        @global_function(type="train", variables=variables, **settings)
        def job_function(variables, word_rows, input_mask, segment_ids, label, loss_mask, **masks):
            dropout = plan.take(masks)
            return finetuning_objective(variables, config, kernels, dropout, word_rows, input_mask, segment_ids, label, loss_mask)

    else:

        @global_function(type="predict", variables=variables, engine=engine)
        def job_function(variables, word_rows, input_mask, segment_ids):
            return predict_logits(variables, config, kernels, word_rows, input_mask, segment_ids)

    def turn(count=job["steps"]):
        nonlocal steps
        outputs = None
        for _ in range(count):
            inputs = arrays if job["mode"] == "predict" else dict(arrays, **plan.masks(steps, batch, length))
            outputs, before = job_function(inputs), outputs
            if before is not None and job["mode"] != "predict":
                before[0].numpy()  # at most two steps ahead, as in the training loop
            steps += 1
        # Waits for the engine. The loss is ready before backward pass and update; a variable is ready only after them
        (outputs if job["mode"] == "predict" else variables.get(last)).numpy()
        return count

    serve(lambda: turn(1), turn, **facts)


main()
