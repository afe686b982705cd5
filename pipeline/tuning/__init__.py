"""Tuning the coefficients of an experiment with Optuna: `ladder tune`.

storage.py     where a study lives, and whose turn it is to change who works on what
trials.py      ask, tell, recover: every trial is worked on exactly once, whoever is killed
experiment.py  a trial as it really is: one experiment of this pipeline for each seed
runs.py        the MLflow side: a nested run for each trial, with a status that agrees
work.py        a worker's loop: ask, evaluate, tell, until nothing is left; worker.py is its process
workers.py     the workers of one machine: started, replaced, ended
tune.py        `ladder tune`: opens the study, has the workers work, writes the results
results.py     best trials with intervals, importance, tuned.yaml; figures.py draws them
validation.py  the best and the default on fresh seeds; gain.py says whether the difference is real
"""
