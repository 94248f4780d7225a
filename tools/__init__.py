"""Command-line tools: set-up, checkpoint conversion, few-shot data, prediction, reports and the demos."""
