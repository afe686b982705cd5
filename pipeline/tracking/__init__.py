"""All that is said to MLflow, and asked of it.

environment.py  how this process wants MLflow to behave; imports no MLflow
access.py       where a store is, how it is made, and which of its errors may pass
connection.py   an open store, which is asked until it answers; patience.py is how long
reader.py       runs, metrics and artifacts; runs.py is the typed views of runs
writer.py       runs with their tags, metrics, verdicts and artifacts; serialise.py makes them fit
store.py        `Store`: reader and writer
tags.py         the name of each tag; artifacts.py those of artifacts
"""
