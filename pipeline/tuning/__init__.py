"""Tuning the coefficients of an experiment with Optuna: `ladder tune`.

study.py        a study's file: what is tuned, within which ranges, and what is refused
dimension.py    the values that one coefficient may take
base.py         the base experiment of a study, and what a trial shortens in it
tune.py         `ladder tune`: opens the study, has the workers work, writes the results
pool.py         the workers of one machine: started, replaced, ended
worker.py       a worker's process, and its loop: ask, evaluate, tell, until nothing is left
trials.py       ask, tell, recover: every trial is worked on exactly once, even if workers are killed
storage.py      where a study lives, and the lock under which workers change who works on what
experiment.py   how a trial is evaluated: one experiment of this pipeline for each seed
pruning.py      Optuna's pruners, as a study uses them
objective.py    what a run's history says of the objective
mlflow_runs.py  the MLflow side: a nested run for each trial, with a status that agrees with Optuna's
validation.py   the best trial and the default on fresh seeds, and whether the gain is real
results.py      best trials with their intervals, importance of the coefficients, tuned.yaml
figures.py      a study in pictures
display.py      what the user sees of a study on the terminal
"""
