"""`ladder tune`: tunes the coefficients that a study names, or validates the best of them on fresh seeds."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from pipeline.commands.environment import private_files
from pipeline.errors import BadInput
from pipeline.launchers.gpu import require_device


def tune(path: str, overrides: Sequence[str], validate_on: int | None) -> int:
    """Runs the study of a YAML file, or validates it on so many fresh seeds; the exit code.

    Raises:
        BadInput: Optuna is not installed; or the file, the overrides or the number of seeds.
    """
    if find_spec("optuna") is None:
        raise BadInput("optuna is not installed, and `ladder tune` needs it: pip install 'ladder[tune]'")
    from pipeline.tuning.study import load_study

    plan = load_study(path, overrides)
    if validate_on is not None and validate_on < 2:
        raise BadInput(f"--validate: two fresh seeds at least, not {validate_on}")
    require_device([plan.config])
    from pipeline.tuning.display import StudyDisplay  # MLflow takes seconds to load, and a refusal should not
    from pipeline.tuning.tune import Tuning

    private_files()
    tuning = Tuning(plan, StudyDisplay())
    return tuning.tune() if validate_on is None else tuning.validate(validate_on)
