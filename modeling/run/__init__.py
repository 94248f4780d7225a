"""One run of a script: set-up, data, training, evaluation, resume, and the files that it writes."""
