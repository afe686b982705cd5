"""Tuning the coefficients of an experiment with Optuna: `ladder tune`.

storage.py     where a study lives, and whose turn it is to change who works on what
trials.py      ask, tell, recover: every trial is worked on exactly once, whoever is killed
experiment.py  a trial as it really is: one experiment of this pipeline for each seed
runs.py        the MLflow side: a nested run for each trial, with a status that agrees
worker.py      one process: ask, evaluate, tell, until nothing is left
tune.py        `ladder tune`: starts the workers, shows the progress, writes the results
results.py     best trials with intervals, importance, tuned.yaml; figures.py draws them
validation.py  whether the gain of the best over the default is real, on fresh seeds
"""
