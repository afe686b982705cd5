"""The working folder of an experiment: what its commands say is meant relative to where it began."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fallbacks.ladder import Ladder
from pipeline.config import ExperimentConfig
from pipeline.errors import BadInput


class Place(BaseModel):
    """Where an experiment began."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    folder: str
    root: str
    """The tracking root, then."""
    files: tuple[str, ...] = ()
    """The files of the folder that its commands name, and Python's modules."""

    @staticmethod
    def here(config: ExperimentConfig, root: Path) -> Place:
        """The folder in which this process works. Raises BadInput where that has been removed."""
        try:
            folder = Path.cwd()
        except FileNotFoundError:
            raise BadInput("the working folder of this process does not exist any more; go to another") from None
        named = [name for command in commands(config) for name in _named(command, folder)]
        return Place(folder=str(folder), root=str(root), files=tuple(dict.fromkeys(named)))

    @staticmethod
    def read(text: str) -> Place | None:
        """The place that the text describes, or None if it describes none."""
        try:
            return Place.model_validate_json(text)
        except ValidationError:
            return None

    def find(self, root: Path) -> Path:
        """The folder now: the same one; else the one that has moved with the tracking root; else this process's.

        Args:
            root: the tracking root, now.

        Raises:
            BadInput: there is none with what the commands name.
        """
        then = Path(self.root)
        candidates = [Path(self.folder), Path.cwd()]
        if self.files and then != Path(self.folder) and then.is_relative_to(self.folder):
            within = then.relative_to(self.folder).parts
            candidates.insert(1, Path(*root.parts[: max(1, len(root.parts) - len(within))]))
        found = next((each for each in candidates if each.is_dir() and self._fits(each)), None)
        if found is not None:
            return found
        files = ", ".join(self.files)
        gone = f"has no {files} any more" if Path(self.folder).is_dir() else f"is gone, and {Path.cwd()} has no {files}"
        raise BadInput(
            f"the experiment began in {self.folder}, which {gone}; "
            "go to the folder where its commands can be run, and try again there"
        )

    def _fits(self, folder: Path) -> bool:
        return all((folder / name).exists() for name in self.files)


def commands(config: ExperimentConfig) -> list[Sequence[str]]:
    """The user's own commands of an experiment, at any rung."""
    rungs = (config, *Ladder(config).configs)
    return [each for each in (config.notify.command, *(rung.trainer.command for rung in rungs)) if each is not None]


def _named(command: Iterable[str], folder: Path) -> list[str]:
    """The relative paths among the words that lead to a file, and the module after `-m`."""
    found, before = [], ""
    for word in command:
        module = word.split(".")[0]
        is_module = before == "-m"
        for name in (module, f"{module}.py") if is_module else (word, word.rpartition("=")[2]):
            if name and not Path(name).is_absolute() and _is_there(folder / name, or_folder=is_module):
                found.append(name)
                break
        before = word
    return found


def _is_there(path: Path, *, or_folder: bool) -> bool:
    try:
        return path.is_file() or (or_folder and path.is_dir())
    except (OSError, ValueError):
        return False
