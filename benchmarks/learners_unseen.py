"""Part C of benchmarks/learners.py: domains that no stage has seen, before and after an adaptation to K rows per class.

In rotation r, the domains 2r and 2r + 1 are those to which the arms adapt, and the two after them are left out for the choice of the
rates, which the first rotation makes for all. The others train. Each rate is the one after which finetuning.py adapts best to 8 rows a
class of the validation domains; that of the adaptation itself, of whatever kind it is, is chosen last. The rows of an adaptation are a part
of those with more rows per class.
"""

import os
from typing import NamedTuple

import numpy as np

from benchmarks.learners_arms import ADAPTATIONS, FINE_TUNING, FINE_TUNING_STEPS, FURTHER, MIXING, NONE, UNSEEN, adaptation, unseen_arms
from benchmarks.learners_data import DEV_ROWS, ReviewDraws, of_domains, per_class, read_rows, write_folder
from benchmarks.learners_jobs import Cell, Runner, best_dev, chain_name, is_finished, passes_of
from benchmarks.learners_report import Table, interval_text, rates_table
from benchmarks.runs import best_snapshot, last_of, rows_of, seconds_of
from modeling.cli.errors import UserError
from modeling.run.measures import mean_interval

MOST_SHOTS, CHOICE_SHOTS, CHOICE_DRAW, FIRST_RATE = 16, 8, "1", "5e-5"
TEST_ROWS = 100  # per class: 1,260 adaptations are measured
ABOUT = "Mean over the unseen domains (of the mean over draws and seeds), in per cent, with a 95 % t interval over the domains."
ABOUT_PAIRED = "Differences in points, paired over domain, draw and seed; the interval is over the domains. K = 0 is not adapted."


class Domains(NamedTuple):
    """The domains of a rotation by their use."""

    unseen: tuple
    validation: tuple
    training: tuple


def rotation_of(domains, number):
    """The `Domains` of a rotation. Over all rotations each domain is unseen once."""
    turned = domains[2 * number :] + domains[: 2 * number]
    return Domains(turned[:2], turned[2:4], turned[4:])


class UnseenDraws(ReviewDraws):
    """Data folders "rotation-R" of the training domains, and the rows of the adaptations.

    Args:
        rows: training rows per class and domain.
        seeds: names of the draws for the adaptations.
    """

    def __init__(self, data_dir, output_dir, rows, seeds):
        super().__init__(data_dir, output_dir)
        self._rows, self._seeds = f"{rows}-42", seeds

    def _many(self):
        return os.path.join(self.made(self._rows), "k-shot-cross", "fdu", self._rows)

    def splits(self, draw):
        training = rotation_of(self.domains, int(draw.rpartition("-")[2])).training
        dev = per_class(of_domains(read_rows(self._many(), "dev"), *training), DEV_ROWS)
        return {"train": of_domains(read_rows(self._many(), "train"), *training), "dev": dev}

    def adaptation(self, domain, shots, seed):
        """The folder of an adaptation: `shots` training rows per class, dev rows that are none of them, the test rows of the domain."""
        folder = os.path.join(self.output, "adaptation", domain, f"{shots}-{seed}")
        with self.lock:
            return folder if os.path.isdir(folder) else self._write_adaptation(folder, domain, shots, seed)

    def _write_adaptation(self, folder, domain, shots, seed):
        made = self.made(*(f"{MOST_SHOTS}-{one}" for one in self._seeds))
        few = os.path.join(made, "k-shot-single", domain, f"{MOST_SHOTS}-{seed}")
        train = per_class(read_rows(few, "train"), shots)
        texts = {row[0] for row in train}
        dev = [row for row in of_domains(read_rows(self._many(), "dev"), domain) if row[0] not in texts]
        return write_folder(folder, train=train, dev=dev, test=per_class(read_rows(few, "test"), TEST_ROWS))


class UnseenRunner(Runner):
    """Runs the stages before the adaptations, and the adaptations."""

    def adapt(self, folder, cell, chain, stage, domain, shots, seed, rate, tried=None, tests=True):
        """Adapts the snapshot of a chain to rows of a domain, unless that is finished. With 0 shots, the snapshot is measured as it is.

        Args:
            chain: the stages before it, none for the encoder.
            stage: the `Stage` of the adaptation.
            rate: the chosen value of the adaptation, None if it has none.
            tried: a rate of the stages before it, None for the chosen one.
            tests: whether to measure test.
        """
        if is_finished(folder):
            return
        snapshot = best_snapshot(*self.run(cell, chain, tried).values()) if chain else self.model
        data = self.draws.adaptation(domain, shots or MOST_SHOTS, seed)
        if not shots:
            stage, rate = stage._replace(flags=("--do_train", "false", "--do_eval", "true")), None
        with self._writing(data):
            self.run_stage(stage, snapshot, data, cell.seed, rate, folder, tests)
        self.drop(folder)

    def continues(self, *_):
        """Each stage has one after it, the adaptation."""
        return True

    def score(self, chain, value):
        last = chain[-1] if chain[-1].name in ADAPTATIONS else None
        first, tried, rate = (chain[:-1], None, value) if last else (chain, value, FIRST_RATE)
        stage = last or adaptation(2 * CHOICE_SHOTS)
        found, place = [], os.path.join(self.output, "choice", chain_name(chain), f"{value}-{stage.name}")
        for domain in rotation_of(self.draws.domains, 0).validation:
            folder = os.path.join(place, domain)
            self.adapt(folder, self.choice, first, stage, domain, CHOICE_SHOTS, CHOICE_DRAW, rate, tried, tests=False)
            found.append(best_dev(rows_of(folder)))
        if tried is not None:
            self.drop(*self.folders(self.choice, chain, tried).values())
        return tuple(sum(column) / len(found) for column in zip(*found))

    def adapted_folder(self, cell, chain, kind, domain, shots, seed, steps=FINE_TUNING_STEPS):
        """The folder of a measured adaptation."""
        name = f"{chain_name(chain) or NONE}-{kind}"
        if steps != FINE_TUNING_STEPS and kind == FINE_TUNING:
            name += f"-{steps}-steps"
        return os.path.join(self.output, "runs", cell.draw, str(cell.seed), name, domain, f"{shots}-{seed}")


class Unseen:
    """The jobs and tables of part C."""

    def __init__(self, args):
        self.seeds = args.draws or ["1", "2", "3", "4", "5"]
        if CHOICE_DRAW not in self.seeds:
            raise UserError(f"--draws {' '.join(self.seeds)}: part C needs the draw {CHOICE_DRAW}, on which the rates are chosen")
        self.draws = UnseenDraws(args.data_dir, os.path.join(args.output_dir, "data"), args.train_rows, self.seeds)
        if not all(0 <= number < len(self.draws.domains) // 2 for number in args.rotations):
            raise UserError(f"--rotations {args.rotations}: there are 0 to {len(self.draws.domains) // 2 - 1}")
        if not all(0 <= shots <= MOST_SHOTS for shots in args.shots):
            raise UserError(f"--shots {args.shots}: must be 0 to {MOST_SHOTS}")
        self.table = unseen_arms(UNSEEN)
        self.arms, self._steps = args.arms or [name for name in self.table if name not in FURTHER], args.adaptation_steps
        for name in self.arms:
            if name not in self.table:
                raise UserError(f"--arms {name!r}: there are {', '.join(repr(one) for one in self.table)}")
        self.shots, self.rotations, self.model_seeds = args.shots, args.rotations, args.seeds
        self.runner = UnseenRunner(args, {name: arm.first for name, arm in self.table.items()}, self.draws, Cell("rotation-0", 42))

    def _places(self):
        """(cell, its unseen domains, seed of the draw, arm) of the jobs in their order."""
        for seed in self.model_seeds:
            for draw in self.seeds:
                for number in self.rotations:
                    for arm in self.arms:
                        yield Cell(f"rotation-{number}", seed), rotation_of(self.draws.domains, number).unseen, draw, arm

    def jobs(self):
        """(name, function) of each job: the adaptations of one arm, rotation and draw."""
        return [
            (f"{cell.draw}, seed {cell.seed}, rows {draw}: {arm}", lambda place=(cell, domains, draw, arm): self._adapt(*place))
            for cell, domains, draw, arm in self._places()
        ]

    def _measured(self, arm, draw):
        """Numbers of rows per class at which an arm is measured. Without rows, the encoder alone has no classifier and there is no mean; a
        measurement then does not depend on the draw."""
        first, kind = self.table[arm]
        return [shots for shots in self.shots if shots or (first and kind == FINE_TUNING and draw == CHOICE_DRAW)]

    def _adapt(self, cell, domains, draw, arm):
        chain, kind = self.table[arm]
        chosen = adaptation(2 * CHOICE_SHOTS, kind)
        rate = self.runner.rate((*chain, chosen)) if chosen.grid else None
        for shots in self._measured(arm, draw):
            stage = adaptation(2 * (shots or MOST_SHOTS), kind, self._steps)
            for domain in domains:
                self.runner.adapt(self._folder(cell, arm, domain, shots, draw), cell, chain, stage, domain, shots, draw, rate)

    def _folder(self, cell, arm, domain, shots, draw):
        steps = self._steps if shots else FINE_TUNING_STEPS  # without rows there are no steps
        return self.runner.adapted_folder(cell, *self.table[arm], domain, shots, draw, steps)

    def results(self):
        """Test accuracy in per cent: dict of arm -> dict of K -> dict of (domain, draw, seed) -> accuracy."""
        found = {arm: {shots: {} for shots in self.shots} for arm in self.arms}
        for cell, domains, draw, arm in self._places():
            for shots in self._measured(arm, draw):
                for domain in domains:
                    folder = self._folder(cell, arm, domain, shots, draw)
                    if is_finished(folder):
                        accuracy = last_of(rows_of(folder), "test")["accuracy"]
                        found[arm][shots][domain, draw, cell.seed] = 100 * accuracy
        return found

    def _cost(self, arm):
        """(sample passes, seconds) of the stages before the adaptation, means over the finished cells; None without one."""
        chain, costs = self.table[arm].first, []
        for number in self.rotations:
            for seed in self.model_seeds:
                cell = Cell(f"rotation-{number}", seed)
                folders = [folder for place in range(len(chain)) for folder in self.runner.folders(cell, chain[: place + 1]).values()]
                if all(map(is_finished, folders)):
                    costs.append((sum(map(passes_of, folders)), sum(map(seconds_of, folders))))
        return np.mean(costs, axis=0) if costs else None

    def tables(self):
        """The tables of what is finished."""
        results = self.results()
        if not any(found for by_shots in results.values() for found in by_shots.values()):
            return []
        tables = [self._accuracies(results)]
        tables += filter(None, (self._differences(results, baseline) for baseline in (MIXING, NONE)))
        if self.runner.rates:
            tables.append(rates_table(self.runner.rates))
        return tables

    def _accuracies(self, results):
        rows, points, intervals = [], {}, {}
        for arm, by_shots in results.items():
            cells = []
            for shots, found in by_shots.items():
                if found:
                    means = domain_means(found)
                    whole = mean_interval(list(means.values()))
                    points[f"{arm}, K = {shots}"], intervals[f"{arm}, K = {shots}"] = list(means.items()), whole[1:]
                cells.append(interval_text(*whole) if found else "–")
            cost = self._cost(arm)
            domains = len({key[0] for found in by_shots.values() for key in found})
            rows.append([arm, *cells, str(domains), *(f"{value:,.0f}" for value in ((0, 0) if cost is None else cost))])
        header = ["arm", *(f"K = {shots}" for shots in self.shots), "domains", "sample passes before", "seconds before"]
        return Table("Accuracy on unseen domains", header, rows, ABOUT, points, intervals, "accuracy on test, per cent")

    def _differences(self, results, baseline):
        rows, points, intervals = [], {}, {}
        for arm, by_shots in results.items():
            cells = []
            for shots, found in by_shots.items():
                theirs = results.get(baseline, {}).get(shots, {})
                both = {key: value - theirs[key] for key, value in found.items() if key in theirs}
                if both and arm != baseline:
                    means = domain_means(both)
                    whole = mean_interval(list(means.values()))
                    points[f"{arm}, K = {shots}"], intervals[f"{arm}, K = {shots}"] = list(means.items()), whole[1:]
                cells.append(interval_text(*whole, sign="+") if both and arm != baseline else "–")
            if arm != baseline and any(cell != "–" for cell in cells):
                rows.append([arm, *cells])
        header = ["arm", *(f"K = {shots}" for shots in self.shots)]
        title = f"Difference to {baseline}"
        return Table(title, header, rows, ABOUT_PAIRED, points, intervals, f"points above {baseline}") if rows else None


def domain_means(found):
    """Means over draws and seeds: dict of domain -> value.

    Args:
        found: dict of (domain, draw, seed) -> value.
    """
    domains = sorted({key[0] for key in found})
    return {domain: float(np.mean([value for key, value in found.items() if key[0] == domain])) for domain in domains}
