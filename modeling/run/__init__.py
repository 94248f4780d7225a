"""One run of a script: set-up, data, training, evaluation, resume, and what it writes."""
