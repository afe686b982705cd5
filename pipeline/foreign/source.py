"""What the source of a Python script tells without being run: libraries, flags, metrics, and files that it writes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.foreign.help_text import Flag

_MOST_FILES = 30
_SAVES = ("save", "savez", "savez_compressed", "dump", "save_model", "save_checkpoint", "save_weights")
_CHECKPOINT = re.compile(r"\.(pt|pth|ckpt|npz|pkl|pickle|h5|keras|bin|safetensors|joblib|model|msgpack|tar|ubj)$")
_COUNTS = re.compile(r"step|iter|update", re.IGNORECASE)
_READS = re.compile(r"read|load|genfromtxt", re.IGNORECASE)
_LOGS = ("log", "log_metric", "log_metrics", "log_dict", "add_scalar", "add_scalars", "record", "log_scalar")


@dataclass
class Facts:
    """What the sources tell."""

    modules: set[str] = field(default_factory=set)
    """The modules that are imported: whole names, and their first parts."""
    calls: set[str] = field(default_factory=set)
    """The names of what is called, without what stands before a dot."""
    keywords: dict[str, Any] = field(default_factory=dict)
    """Keyword → its value where that is written out; None where it is computed."""
    flags: list[Flag] = field(default_factory=list)
    metrics: list[str] = field(default_factory=list)
    """The metrics whose names are written out."""
    tables: list[str] = field(default_factory=list)
    """Names of CSV and JSON Lines files that are not read."""
    files: list[Path] = field(default_factory=list)
    """The script, and the modules beside it."""
    checkpoint: tuple[str, str | None] | None = None
    """Pattern of the files in which it saves, and the expression of the step; None: their names have no step."""

    def imports(self, *names: str) -> bool:
        return not self.modules.isdisjoint(names)


def read(script: Path) -> Facts:
    """The facts of a script and of the modules beside it that it imports. Raises OSError, SyntaxError, ValueError."""
    facts, seen, todo = Facts(), set[Path](), [script]
    while todo and len(seen) < _MOST_FILES:
        path = todo.pop(0)
        if path in seen:
            continue
        seen.add(path)
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (OSError, SyntaxError, ValueError):
            if path == script:
                raise
            continue
        facts.files.append(path)
        imported = sorted(_imports(tree))
        facts.modules |= {*imported, *(name.split(".")[0] for name in imported)}
        todo += [beside for name in imported if (beside := _beside(script.parent, name)) is not None]
        _Reader(facts, tree).visit(tree)
    return facts


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _beside(folder: Path, module: str) -> Path | None:
    stem = folder.joinpath(*module.split("."))
    return next((each for each in (stem.with_suffix(".py"), stem / "__init__.py") if each.is_file()), None)


class _Reader(ast.NodeVisitor):
    """Collects the facts of one file."""

    def __init__(self, facts: Facts, tree: ast.AST) -> None:
        self._facts = facts
        self._assigned = {
            node.targets[0].id: node.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        if any("dataclass" in ast.unparse(each) for each in node.decorator_list):
            for each in node.body:
                if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name) and each.value is not None:
                    self._facts.flags.append(Flag(f"--{each.target.id}", _default(each.value)))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = _name(node.func)
        self._facts.calls.add(name)
        for each in node.keywords:
            if each.arg is not None:
                self._facts.keywords.setdefault(each.arg, _literal(each.value))
        if name in ("add_argument", "option", "Option", "add_option"):
            self._flag(node)
        if name in _LOGS:
            self._facts.metrics += [each for each in self._logged(node) if each not in self._facts.metrics]
        if name in _SAVES and self._facts.checkpoint is None:
            self._facts.checkpoint = self._saved([*node.args, *(each.value for each in node.keywords)])
        if _READS.search(name):
            return  # a file that is named in here is read
        self.generic_visit(node)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(named := _literal(key), str):  # it may be given as `**settings`
                self._facts.keywords.setdefault(named, _literal(value))
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str) and re.fullmatch(r"[\w./\- ]*\w\.(csv|jsonl)", node.value):
            self._facts.tables.append(node.value.rpartition("/")[2])
        elif isinstance(node.value, str) and re.fullmatch(r"[A-Za-z][\w./\-]*(,[A-Za-z][\w./\-]*)+", node.value):
            self._facts.metrics += node.value.split(",")  # the header of a table

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        pattern = self._text(node) or ""
        if pattern.endswith((".csv", ".jsonl")):
            self._facts.tables.append(pattern.rpartition("/")[2])
        self.generic_visit(node)

    def _flag(self, node: ast.Call) -> None:
        given = [_literal(each) for each in node.args]
        names = [each for each in given if isinstance(each, str) and each.startswith("-")]
        if long := [each for each in names if each.startswith("--")]:
            said = {each.arg: each.value for each in node.keywords}
            action, default = said.get("action"), said.get("default")
            switch = action is not None and re.search(r"store_|count|Boolean", ast.unparse(action)) is not None
            self._facts.flags.append(
                Flag(
                    name=long[0].partition("/")[0],
                    default=None if default is None else _default(default),
                    takes_value=not switch and _literal(said.get("is_flag")) is not True and "/" not in long[0],
                    text=str(_literal(said.get("help")) or ""),
                    others=tuple(each for each in names if each != long[0]),
                )
            )

    def _logged(self, node: ast.Call) -> list[str]:
        found = [_literal(node.args[0])] if node.args else []
        found += [
            _literal(key)
            for each in node.args[:1]
            if isinstance(each, ast.Dict)
            for key in each.keys
            if key is not None
        ]
        return [each for each in found if isinstance(each, str) and re.fullmatch(r"[\w./\-]+", each)]

    def _saved(self, nodes: Sequence[ast.expr]) -> tuple[str, str | None] | None:
        for node in nodes:
            if (pattern := self._text(node)) is None or not _CHECKPOINT.search(pattern):
                continue
            name = pattern.rpartition("/")[2]
            counts = [each for each in ast.walk(self._last(node)) if isinstance(each, ast.FormattedValue)]
            stars = counts[-name.count("*") :] if name.count("*") else []
            for index, value in enumerate(stars):
                before = "*".join(name.split("*")[: index + 1]).rpartition("*")[2]
                if _COUNTS.search(ast.unparse(value.value)) and before:
                    return f"**/{name}", f"{re.escape(before)}([0-9]+)"
            return f"**/{name}", None
        return None

    def _last(self, node: ast.expr, deep: int = 5) -> ast.expr:
        """The expression that has the end of a path."""
        if deep == 0:
            return node
        if isinstance(node, ast.Name) and node.id in self._assigned:
            return self._last(self._assigned[node.id], deep - 1)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return self._last(node.right, deep - 1)
        if isinstance(node, ast.Call) and node.args:
            return self._last(node.args[0 if _name(node.func) in ("open", "str") else -1], deep - 1)
        return node

    def _text(self, node: ast.expr, deep: int = 5) -> str | None:
        """The end of a path as a pattern; None: it is none."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else None
        if isinstance(node, ast.JoinedStr):
            return "".join(str(each.value) if isinstance(each, ast.Constant) else "*" for each in node.values)
        if deep == 0:
            return None
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return self._text(node.right, deep - 1)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            left, right = self._text(node.left, deep - 1), self._text(node.right, deep - 1)
            return None if left is None and right is None else f"{left or '*'}{right or '*'}"
        if isinstance(node, ast.Call) and node.args and _name(node.func) in ("open", "str", "join", "Path", "joinpath"):
            return self._text(node.args[0 if _name(node.func) in ("open", "str") else -1], deep - 1)
        if isinstance(node, ast.Name) and node.id in self._assigned:
            return self._text(self._assigned[node.id], deep - 1)
        return None


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _literal(node: ast.expr | None) -> Any:
    """The value of an expression that is written out, else None."""
    if node is None:
        return None
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _default(node: ast.expr) -> Any:
    """The value of a default; also inside `field(default=…)`."""
    if isinstance(node, ast.Call):
        return _literal(next((each.value for each in node.keywords if each.arg == "default"), None))
    return _literal(node)
