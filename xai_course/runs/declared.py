"""Experiments from ``data/experiments/<paper>.toml``: parts by name, tables as products of them.

A part (``[data.x]``, ``[net.x]``, ``[method.x]``, ``[measure.x]``, ``[augment.x]``) is a ``call`` with its arguments,
or a ``base`` with changes; ``[preset.x]`` says what smoke, colab and paper mean. A ``[[table]]`` gives the fields of
its rows and, in ``each``, what is crossed with what. A ``{name}`` in a text stands for a value of the row,
``{method.title}`` for a field of the part that it names; alone in its text it is that value itself, and ``"80/300"`` is
a number. Any other section (``[setting.x]``) holds fields that a row gets by naming it, ``setting = "x"``. Where
several give a field, the last wins: ``base`` of the table, sections, the table, ``each``. A network's function that
takes ``classes`` is told how many there are in the data.

A ``[[cpu]]`` names rows by patterns and holds the fields that stand in for theirs at preset "cpu": data at hand, a
small network, few epochs. Where several name a row, the last wins; one of them must give ``presets``. ``[page.x]`` says
how item x is drawn on the page of the paper's tables.
"""

import difflib
import functools
import inspect
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import is_dataclass, replace
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from typing import Any

from .._require import require
from ..data.files import course_file
from ..preset import Preset
from .experiment import Experiment

ROOMS = ("data", "nets", "methods", "measure", "preset", "runs/parts")  # where the name of a call is looked for
KINDS = ("data", "net", "method", "augment", "measure", "preset")
FIELDS = {*Experiment.__dataclass_fields__, "each", "base"}
REQUIRED = ("name", "title", "data", "net", "method", "presets", "measures")
TOLD = {"title", "needs"}  # what a part tells of itself; everything else is an argument, but for `ABOUT`
ABOUT = {"call", "args"}
HOLE = re.compile(r"\{([^{}:]+)(?::([^{}]*))?\}")
Fields = dict[str, Any]


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """What to say of a name that is not ``known``, with one that is near, as a whole or in its last part."""
    whole = {one.lower(): one for one in known}
    last = {one.rpartition("/")[2]: one for one in whole}
    near = difflib.get_close_matches(name.lower(), whole, n=1, cutoff=0.65)
    near = near or [last[part] for part in difflib.get_close_matches(name.lower(), last, n=1, cutoff=0.75)]
    return f"unknown {kind} {name!r}" + (f": did you mean {whole[near[0]]!r}?" if near else "")


@functools.cache
def document(paper: str) -> Fields:
    """All that is declared for a paper, as written; {} where there is no file."""
    path = course_file("experiments", f"{paper}.toml")
    return tomllib.loads(path.read_text("utf-8")) if path.exists() else {}


def experiments(paper: str, text: Fields | None = None) -> list[Experiment]:
    """The rows of all tables of one paper, in order.

    Raises:
        ValueError: a wrong key, an unknown part or function, or numbers that do not fit the rows; the message names
            file, table and row.
    """
    file = _File(paper, document(paper) if text is None else text)
    rows = [row for table in file.doc.get("table", ()) for row in file.rows(table)]
    names = {row.name for row in rows}
    for pattern in [pattern for twin in file.doc.get("cpu", ()) for pattern in twin["rows"]]:
        if not any(fnmatchcase(name, f"{paper}/{pattern}") for name in names):
            raise ValueError(f"{file.where}, [[cpu]]: rows {pattern!r} names no row")
    for row in rows:
        if row.twin not in names | {""}:
            raise ValueError(f"{file.where}, row {row.name}: {unknown('twin', row.twin, names)}")
    return rows


@functools.cache
def _places() -> dict[str, list[str]]:
    """Where each public function and class of the `ROOMS` is defined: name to modules."""
    root, found = Path(__file__).parents[1], dict[str, list[str]]()
    for room in ROOMS:
        for path in sorted((root / room).rglob("*.py")) or [root / f"{room}.py"]:
            module = ".".join(("xai_course", *path.relative_to(root).with_suffix("").parts))
            for name in re.findall(r"^(?:def|class) ([a-zA-Z]\w*)", path.read_text("utf-8"), re.M):
                found.setdefault(name, []).append(module)
    return found


@functools.cache
def function(name: str) -> Callable:
    """The function or class of that name; ``module.name`` where several have it.

    Raises:
        ValueError: none, or several.
    """
    module, _, last = name.rpartition(".")
    modules = [m for m in _places().get(last, ()) if m.endswith(f".{module}" if module else "")]
    require(len(modules) <= 1, f"{name!r} stands in {', '.join(modules)}: write the module's name before it")
    if not modules:
        raise ValueError(unknown("function", name, _places()))
    return getattr(import_module(modules[0]), last)


@functools.cache
def _arguments(call: Callable) -> tuple[set[str], bool]:
    """The names that a call takes, and whether it takes any other as well."""
    parameters = inspect.signature(call).parameters
    return set(parameters), any(p.kind is p.VAR_KEYWORD for p in parameters.values())


class _File:
    """One paper's declarations."""

    def __init__(self, paper: str, doc: Fields):
        self.paper, self.doc, self.where = paper, doc, f"data/experiments/{paper}.toml"
        self.sections = [
            name for name, part in doc.items() if isinstance(part, dict) and name not in (*KINDS, "row", "page")
        ]
        self.made: dict[tuple[str, str], Any] = {}
        self.known = FIELDS | set(self.sections) | set(_holes(doc))

    def rows(self, table: Fields) -> Iterator[Experiment]:
        """The rows of one table."""
        where = f"{self.where}, table {table.get('name', '?')}"
        try:
            base = self._base(table)
            own = {key: value for key, value in table.items() if key not in ("each", "base", "reported")}
            bound = [self._row(base, own, inline) for inline in self._product(list(table.get("each", {}).items()), own)]
            reported = {metric: list(_flat(values)) for metric, values in table.get("reported", {}).items()}
            for metric, values in reported.items():
                if len(values) != len(bound):
                    raise ValueError(f"reported.{metric} must have {len(bound)} values, one per row, got {len(values)}")
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        for i, row in enumerate(bound):
            try:
                printed = {metric: values[i] for metric, values in reported.items() if values[i]}
                yield self._with_stand_in(self._experiment(row, printed), row)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{where}, row {self.filled(row.get('name', '?'), row)}: {error}") from error

    def _base(self, fields: Fields) -> Fields:
        if "base" not in fields:
            return {}
        below = self._named("row", fields["base"])
        return self._base(below) | {key: value for key, value in below.items() if key != "base"}

    def _product(self, axes: list[tuple[str, Any]], bound: Fields) -> Iterator[Fields]:
        if not axes:
            yield {}
            return
        (axis, values), *rest = axes
        values = self.filled(values, bound) if isinstance(values, str) else values
        for value in values:
            if isinstance(values, dict):
                first = {axis: value, **values[value]}
            elif isinstance(value, dict):
                first = value
            else:
                names = axis.split()
                first = dict(zip(names, value if len(names) > 1 else [value], strict=True))
            for others in self._product(rest, bound | first):
                yield first | others

    def _row(self, base: Fields, own: Fields, inline: Fields) -> Fields:
        """The fields of one row; what a section brings may name another section."""
        row, before = base | own | inline, None
        for key in row:
            if key not in self.known:
                raise ValueError(unknown("key", key, self.known))
        while row != before:
            before, named = row, Fields()
            for section in self.sections:
                if section in row:
                    named = self._named(section, self.filled(row[section], row)) | named
            row = base | {key: value for key, value in named.items() if key != "title"} | own | inline
        return row

    def _experiment(self, row: Fields, reported: Fields) -> Experiment:
        if missing := [key for key in REQUIRED if key not in row]:
            raise ValueError(f"a row must have {', '.join(REQUIRED)}, got none for {', '.join(missing)}")
        name = f"{self.paper}/{self.filled(row['name'], row)}"
        twin = self.filled(row.get("twin", ""), row)
        twin = f"{name.rpartition('/')[0]}/{twin}" if twin else ""
        chosen = [each for each in self.filled(row["measures"], row) if each]
        return Experiment(
            name=name,
            title=self.filled(row["title"], row),
            data=self.call("data", row["data"], row),
            net=self.call("net", row["net"], row),
            method=self.call("method", row["method"], row),
            presets=self.presets(row["presets"], row),
            measures=tuple(self.call("measure", each, row) for each in _flat(chosen)),
            reported=reported,
            needs=self.filled(row.get("needs", ""), row),
            augment=self.call("augment", row["augment"], row) if row.get("augment") else None,
            shown=tuple(self.filled(row.get("shown", ["accuracy"]), row)),
            twin="" if twin == name else twin,
        )

    def _with_stand_in(self, experiment: Experiment, row: Fields) -> Experiment:
        """The row with what every ``[[cpu]]`` that names it puts in place of its fields."""
        name, own = experiment.name.partition("/")[2], Fields()
        for twin in self.doc.get("cpu", ()):
            for key in twin.keys() - self.known - {"rows"}:
                raise ValueError(f"[[cpu]] {twin['rows']}: {unknown('key', key, self.known)}")
            own |= twin if any(fnmatchcase(name, pattern) for pattern in twin["rows"]) else {}
        if "presets" not in own:
            return experiment
        said = {"name": name, "title": experiment.title, "needs": "", "twin": ""}
        stand_in = self._experiment(row | own | said, {})
        return replace(experiment, stand_in=stand_in, presets={**experiment.presets, "cpu": stand_in.preset("cpu")})

    def presets(self, spec: Any, row: Fields) -> dict[str, Preset]:
        """What each profile means: its own table over what they share."""
        part = self.filled(self.part("preset", self.filled(spec, row)), row)
        shared = {key: _number(value) for key, value in part.items() if not isinstance(value, dict)}
        own = {key: {k: _number(v) for k, v in value.items()} for key, value in part.items() if isinstance(value, dict)}
        for key in {*shared, *(k for value in own.values() for k in value)} - set(Preset.__dataclass_fields__):
            raise ValueError(unknown("setting of a preset", key, Preset.__dataclass_fields__))
        return {name: Preset(**shared | value) for name, value in own.items()}

    # --- parts ------------------------------------------------------------------------------------------------------

    def _named(self, section: str, name: str) -> Fields:
        if name not in self.doc.get(section, {}):
            raise ValueError(unknown(section, name, self.doc.get(section, {})))
        return self.doc[section][name]

    def part(self, kind: str, spec: Any) -> Fields:
        """A part as a table, its bases merged in. A name that is no part may be a function's."""
        if isinstance(spec, str):
            if spec not in self.doc.get(kind, {}):
                parts = self.doc.get(kind, {})
                if kind == "preset" or spec.rpartition(".")[2] not in _places():
                    raise ValueError(unknown(kind, spec, [*parts, *_places()]))
                return {"call": spec}
            spec = self.doc[kind][spec]
        return _merged(self.part(kind, spec["base"]), spec) if "base" in spec else spec

    def call(self, kind: str, spec: Any, row: Fields) -> Any:
        """What a part stands for: a function with its arguments, or a value where a data class is called."""
        part = self.part(kind, self.filled(spec, row))
        part = self.resolved(kind, self.filled({k: v for k, v in part.items() if k not in TOLD}, row), row)
        key = kind, repr(part)
        if key not in self.made:
            self.made[key] = _made(kind, part)
        return self.made[key]

    def resolved(self, kind: str, spec: Any, row: Fields) -> Any:
        """A part, or anything in one, as plain data: bases merged in, holes filled."""
        if isinstance(spec, list):
            return [self.resolved(kind, inner, row) for inner in spec]
        if not isinstance(spec, dict):
            return _number(spec)
        if "base" in spec:
            spec = self.filled(self.part(kind, spec), row)
        whole = {key: self.resolved(kind, inner, row) for key, inner in spec.items() if key not in (*TOLD, "with")}
        return whole | {key: self.resolved(kind, inner, row) for key, inner in spec.get("with", {}).items()}

    # --- texts ------------------------------------------------------------------------------------------------------

    def filled(self, value: Any, row: Fields) -> Any:
        """``value`` with every ``{hole}`` filled from the row."""
        if isinstance(value, dict):
            return {self.filled(key, row): self.filled(inner, row) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.filled(inner, row) for inner in value]
        while isinstance(value, str) and (hole := HOLE.search(value)):
            found = self.look(hole[1], row)
            if hole[0] == value and hole[2] is None:
                return self.filled(found, row)
            value = value[: hole.start()] + format(found, hole[2] or "") + value[hole.end() :]
        return value

    def look(self, path: str, row: Fields) -> Any:
        """``x`` of the row, ``kind.field`` of the part that it names, or ``section.name.field`` of the file."""
        head, *rest = path.split(".")
        if head in row and not rest:
            return self.filled(row[head], row)
        if head not in row:
            found, rest = self.doc, [head, *rest]
        else:
            found = (self.part if head in KINDS else self._named)(head, self.filled(row[head], row))
        for key in rest:
            if key not in found:
                raise ValueError(f"{{{path}}}: {unknown('name', key, [*row, *found] if found is self.doc else found)}")
            beside, found = found, found[key]
        if not list(_holes(found)):
            return found
        return self.filled(found, row | self.filled({k: v for k, v in beside.items() if k != key}, row))


def _holes(value: Any) -> Iterator[str]:
    """The names in all holes of all texts in ``value``."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, list):
        for inner in value:
            yield from _holes(inner)
    while isinstance(value, str) and (hole := HOLE.search(value)):
        yield from hole[1].split(".")
        value = value[: hole.start()] + value[hole.end() :]


def _made(kind: str, part: Fields) -> Any:
    require("call" in part, f"{kind} {part} says neither call nor base")
    call = function(part["call"])
    options = {key: _argument(kind, value) for key, value in part.items() if key not in ABOUT}
    given = [_argument(kind, value) for value in part.get("args", ())]
    taken, others = _arguments(call)
    for key in options:
        if key not in taken and not others:
            raise ValueError(f"{part['call']} has {unknown('argument', key, taken).replace('unknown', 'no')}")
    if is_dataclass(call) or (isinstance(call, type) and issubclass(call, tuple)):
        return call(*given, **options)
    if kind == "net" and "classes" in taken:
        given, call = [call, *given], function("sized")
    return functools.partial(call, *given, **options) if given or options else call


def _argument(kind: str, value: Any) -> Any:
    """A nested call, a tuple, a number or a text."""
    if isinstance(value, list):
        return tuple(_argument(kind, each) for each in value)
    if isinstance(value, dict):
        return _made(kind, value) if "call" in value else {key: _argument(kind, each) for key, each in value.items()}
    return value


def _number(value: Any) -> Any:
    if isinstance(value, str) and (share := re.fullmatch(r"(\d+)/(\d+)", value)):
        return int(share[1]) / int(share[2])
    return value


def _flat(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value


def _merged(base: Fields, own: Fields) -> Fields:
    """``own`` over ``base``; a table of both is merged in the same way, but for one that says another ``call``."""
    merged = base | own
    for key, value in own.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict) and "call" not in value:
            merged[key] = _merged(base[key], value)
    return {key: value for key, value in merged.items() if key != "base"}
