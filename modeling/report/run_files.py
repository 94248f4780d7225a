"""The names of the files in the folder of a run, for what must not replace them."""

import os

from modeling.cli.flags_file import RUN_FLAGS_FILE
from modeling.report.curves_png import CURVES_FILE
from modeling.report.page import REPORT_FILE
from modeling.run.flags_json import FLAGS_FILE
from modeling.run.generations import generations_path
from modeling.run.log import LOG_FILE
from modeling.run.metrics import METRICS_FILE
from modeling.run.predictions import predictions_path
from modeling.run.split_files import answers_path, nbest_path, tagged_path, written_files

_FILES = (FLAGS_FILE, RUN_FLAGS_FILE, LOG_FILE, METRICS_FILE, CURVES_FILE, REPORT_FILE)
_OF_SPLITS = (predictions_path, generations_path, answers_path, nbest_path, tagged_path)


def files_of_run(folder):
    """Paths of the files that a run has written into its folder; [] if the folder is not that of a run.

    A snapshot that was moved out of its run has none.
    """
    if not os.path.isfile(os.path.join(folder, FLAGS_FILE)):
        return []
    paths = [os.path.join(folder, name) for name in _FILES]
    of_splits = [path for path_of in _OF_SPLITS for path in written_files(folder, path_of).values()]
    return [path for path in paths if os.path.exists(path)] + of_splits
