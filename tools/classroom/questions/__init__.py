"""What a graded question asks: a slow, literal reference, cases from a seeded generator, and the rules of its text.

This is the teacher's side; the package ships only what `frozen` makes of it. One module per assignment, and a module
``NAME.py`` beside a master ``NAME.ipynb`` takes its place, so that a private folder can hold a whole assignment.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from xai_course.checks import call, encode, letters_of, order

PUBLIC_SEEDS = (0, 1)


@dataclass(frozen=True)
class Case:
    """One call of the function under test.

    Attributes:
        name: what is special about it, shown when it fails.
        arguments: positional arguments; float tensors are float64.
        hint: what to look at when this case fails. It must not give the answer away.
        gradients: positions of the arguments whose gradient is compared too.
    """

    name: str
    arguments: tuple
    hint: str
    gradients: tuple[int, ...] = ()


@dataclass(frozen=True)
class Question:
    """A function to write.

    Attributes:
        name: the question's name, in the notebook that of the function.
        reference: the right function.
        cases: given a seeded generator, yields the cases; shapes should vary with it.
        tolerance: largest allowed ``|got - expected| / max(1, |expected|)`` of a float64 answer.
        double: the text asks for float64; elsewhere a float32 answer is compared at its own rounding.
        autograd: whether the function may use it; False where the text asks for a derivation by hand.
        each: the text asks for one backward pass per item: none may stand outside a loop.
    """

    name: str
    reference: Callable
    cases: Callable[[torch.Generator], Iterable[Case]]
    tolerance: float = 1e-8
    double: bool = False
    autograd: bool = True
    each: bool = False

    def frozen(self, seeds: Sequence[int] = PUBLIC_SEEDS) -> dict:
        """Everything a check needs, as plain data: arguments and expected values of every case under every seed."""
        made = [case for seed in seeds for case in self.cases(torch.Generator().manual_seed(int(seed)))]
        cases = [
            {
                "name": case.name,
                "hint": case.hint,
                "arguments": (arguments := [encode(each) for each in case.arguments]),
                "gradients": list(case.gradients),
                "expected": call(self.reference, arguments, case.gradients),
            }
            for case in made
        ]
        return {"tolerance": self.tolerance, "double": self.double, "autograd": self.autograd, "cases": cases}


@dataclass(frozen=True)
class Choice:
    """A question answered by a letter. Every student sees the options in an order of their own; ``right`` is an index.

    Attributes:
        name: the question's name, in the notebook that of the variable.
        options: the texts.
        right: which of them is right.
        hint: shown with the mark, never before.
    """

    name: str
    options: tuple[str, ...]
    right: int
    hint: str

    def frozen(self) -> dict:
        """What the student may see."""
        return {"options": list(self.options)}

    def letter(self, student: str) -> str:
        """The right letter for this student."""
        return letters_of(self.options)[order(self.name, student, len(self.options)).index(self.right)]


def questions(assignment: str, master: Path | None = None) -> dict[str, Question | Choice]:
    """The questions of an assignment by name, from ``assignment.py`` beside the master or from this folder.

    Raises:
        ValueError: there is no such module.
    """
    beside = master.with_suffix(".py") if master else None
    if beside is not None and beside.is_file():
        spec = importlib.util.spec_from_file_location(f"questions_of_{assignment}", beside)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    elif Path(__file__).with_name(f"{assignment}.py").is_file():
        module = importlib.import_module(f"{__name__}.{assignment}")
    else:
        raise ValueError(f"no questions for {assignment}: expected {assignment}.py beside its master or in {__name__}")
    return {question.name: question for question in module.QUESTIONS}


def assignments() -> list[str]:
    """Names of the assignments whose questions stand in this folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


def freeze(assignment: str, master: Path | None = None) -> str:
    """The text of ``data/checks/<assignment>.json``: one line per case."""
    found = {name: question.frozen() for name, question in questions(assignment, master).items()}
    lines = []
    for name, content in found.items():
        head = json.dumps({k: v for k, v in content.items() if k != "cases"}, ensure_ascii=False)[1:-1]
        cases = ",\n".join(json.dumps(case, ensure_ascii=False, allow_nan=False) for case in content.get("cases", []))
        lines.append(f'"{name}": {{{head}' + (f', "cases": [\n{cases}]}}' if "cases" in content else "}"))
    return "{\n" + ",\n".join(lines) + "\n}\n"


def sizes(generator: torch.Generator, *ranges: tuple[int, int]) -> Iterator[int]:
    """One random whole number per inclusive range."""
    for low, high in ranges:
        yield int(torch.randint(low, high + 1, (), generator=generator))


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal float64 values."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
