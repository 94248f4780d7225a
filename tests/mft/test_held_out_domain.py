"""--held_out_domains through the three steps."""

import numpy as np
import pytest
import tiny
from mft_steps import SINGLE, STEP_1, STEP_2, STEP_3

pytestmark = pytest.mark.slow


def test_a_held_out_domain(project):
    """Steps 1 and 2 do not depend on the text of a held-out domain; step 3 then adapts to it."""
    more = "--held_out_domains cr --resave_ofrecord --max_steps 6 --loss_print_every_n_iter 1"
    runs = []
    for name in ("unseen", "garbled"):
        tiny.write_g1(project.path(name), train=5, dev=3)
        if name == "garbled":
            path = project.path(name, "train.csv")
            with open(path, encoding="utf-8") as file:
                lines = file.read().splitlines()
            swapped = ["the great story was lovely\tcr\t" + line[-1] if line.split("\t")[1] == "cr" else line for line in lines]
            assert swapped != lines
            with open(path, "w", encoding="utf-8") as file:
                file.write("\n".join(swapped) + "\n")
        output = project.call_well(f"{STEP_1} --data_dir {name} --held_out_domains cr")
        assert "--held_out_domains: 10 samples of cr are in no prototype, 19 are" in output
        output = project.call_well(f"{STEP_2} --data_dir {name} {more} --model_save_dir output/{name}")
        runs.append(tiny.Run(project.path("output", name)))
    one, other = runs
    assert tiny.without_times(one.rows("train")) == tiny.without_times(other.rows("train"))
    assert one.best() == other.best()
    assert set(one.rows("dev")[-1]["by_domain"]) == {"SST-2", "mr"}
    assert set(one.rows("dev_held_out")[-1]["by_domain"]) == {"cr"}
    with np.load(project.path("unseen", "ofrecord", "train", "prototypes.npz"), allow_pickle=False) as prototypes:
        assert prototypes["counts"].tolist() == [[5, 5], [5, 4], [0, 0]]
    code, _, errors = project.call(f"{STEP_2} --data_dir unseen --model_save_dir output/x")
    assert code == 2
    assert (
        "the prototypical scores were made with --held_out_domains cr, this run is without it: run preprocess.py again without it" in errors
    )
    code, _, errors = project.call(f"{STEP_2} --data_dir unseen --held_out_domains cr,mr --use_sample_weights false")
    assert code == 2
    assert "--held_out_domains cr,mr: one domain is left, and the domain loss needs two" in errors
    tiny.write_single(project.path("unseen-single"), "cr", train=2)
    line = STEP_3.format(snapshot=f"output/unseen/{one.best()}").replace("sst-2", "cr").replace(SINGLE, "unseen-single")
    output = project.call_well(f"{line} --train_example_num 4 --max_steps 2 --model_save_dir output/adapted")
    assert "initialised" not in output
    assert set(tiny.Run(project.path("output", "adapted")).rows("test")[0]["by_domain"]) <= {"cr"}
