"""How a graded question is checked: the student's function against a reference, case by case, with a hint per case.

The comparison trusts nothing the student can redefine: results must be plain tensors or numbers, every case gets its
own copies of the arguments, an exception of any kind fails the case, and values are compared as Python floats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One call of the function under test.

    Attributes:
        name: what is special about it, shown when it fails.
        arguments: positional arguments; float tensors are float64.
        hint: what to look at when this case fails. It must not give the answer away.
        gradients: positions of the arguments whose gradient is compared too, of the result's entries added up with the
            weights 1, 2, 3, ...
    """

    name: str
    arguments: tuple
    hint: str
    gradients: tuple[int, ...] = ()


class Question:
    """A callable check: ``check(function) -> bool``, printing the first failing case, or one line on success.

    Args:
        name: the question's name, as in the notebook.
        reference: the right function.
        cases: given a seeded generator, yields the cases; shapes should vary with it.
        tolerance: largest allowed ``|got - expected| / max(1, |expected|)``.
    """

    def __init__(
        self,
        name: str,
        reference: Callable,
        cases: Callable[[torch.Generator], Iterable[Case]],
        tolerance: float = 1e-8,
    ):
        self.name, self.reference, self.cases, self.tolerance = name, reference, cases, tolerance

    def __call__(self, function: Callable, *, seeds: Sequence[int] = (0, 1, 2), quiet: bool = False) -> bool:
        """Whether ``function`` passes every case under every seed.

        Raises:
            ValueError: no seed, so nothing would be checked.
        """
        if not len(seeds):
            raise ValueError("seeds must name at least one seed, got none")
        passed = 0
        for seed in seeds:
            for case in self.cases(torch.Generator().manual_seed(int(seed))):
                fault = self._fault(function, case)
                if fault is not None:
                    if not quiet:
                        print(f"✗ {self.name}: case “{case.name}” (seed {seed})\n  {fault}\n  Hint: {case.hint}")
                    return False
                passed += 1
        if not quiet:
            print(f"✓ {self.name}: {passed} cases passed")
        return True

    def _fault(self, function: Callable, case: Case) -> str | None:
        """What is wrong with this case, in words; None if nothing."""
        expected = _evaluate(self.reference, case)
        try:
            got = _evaluate(function, case)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # also SystemExit: a student's function must not end the grader
            return f"your function raised {type(error).__name__}: {error}"
        for what in expected:
            fault = _difference(got[what], expected[what], self.tolerance)
            if fault is not None:
                return f"{what}: {fault}"
        return None


def _evaluate(function: Callable, case: Case) -> dict[str, object]:
    """The result and the asked gradients, from fresh copies of the arguments."""
    arguments = [a.clone() if isinstance(a, Tensor) else a for a in case.arguments]
    for position in case.gradients:
        arguments[position].requires_grad_()
    result = function(*arguments)
    found: dict[str, object] = {"result": result}
    if not case.gradients:
        return found
    wanted = [arguments[position] for position in case.gradients]
    if type(result) is Tensor and result.requires_grad:
        pattern = 1 + torch.arange(result.numel(), dtype=result.dtype).view(result.shape)  # shares add up to a constant
        gradients: Sequence[Tensor | None] = torch.autograd.grad((pattern * result).sum(), wanted, allow_unused=True)
    else:
        gradients = [None] * len(wanted)
    for position, argument, gradient in zip(case.gradients, wanted, gradients, strict=True):
        gradient = torch.zeros_like(argument) if gradient is None else gradient
        found[f"gradient with respect to argument {position + 1}"] = gradient
    return found


def _difference(got: object, expected: object, tolerance: float) -> str | None:
    if type(expected) in (str, bool):
        same = type(got) is type(expected) and str.__eq__(str(got), str(expected))
        return None if same else f"expected {expected!r}, got {_show(got)}"
    if type(got) not in (Tensor, float, int):
        return f"expected a tensor or a number, got {_show(got)}"
    want, have = torch.as_tensor(expected).detach(), torch.as_tensor(got).detach()
    if have.shape != want.shape:
        return f"expected shape {list(want.shape)}, got {list(have.shape)}"
    wants, haves = want.double().flatten().tolist(), have.double().flatten().tolist()
    for at, (a, b) in enumerate(zip(haves, wants, strict=True)):
        if not isfinite(a) or abs(a - b) > tolerance * max(1.0, abs(b)):
            where = f" at flat position {at} of {len(wants)}" if len(wants) > 1 else ""
            return f"expected {b:.6g}, got {a:.6g}{where}"
    return None


def _show(value: object) -> str:
    if value is None:
        return "None (does your function return its result?)"
    return f"an object of type {type(value).__name__}" if type(value) not in (str, bool, tuple, list) else repr(value)


class Choice:
    """A question answered by naming an option; the right one is stored as a salted hash only.

    Args:
        name: the question's name.
        digest: `Choice.digest_of` of the right answer.
        options: every answer one can give.
        hint: shown when the answer is wrong.
    """

    def __init__(self, name: str, digest: str, options: Sequence[str], hint: str):
        self.name, self.digest, self.options, self.hint = name, digest, tuple(options), hint

    @staticmethod
    def digest_of(name: str, answer: str) -> str:
        return hashlib.sha256(f"{name}:{answer}".encode()).hexdigest()[:16]

    def __call__(self, answer: str, *, quiet: bool = False) -> bool:
        if type(answer) is not str or answer not in self.options:
            right, fault = False, f"answer with one of {', '.join(self.options)}, got {_show(answer)}"
        else:
            right, fault = self.digest_of(self.name, answer) == self.digest, f"{answer!r} is not it"
        if not quiet:
            print(f"✓ {self.name}" if right else f"✗ {self.name}: {fault}\n  Hint: {self.hint}")
        return right


def variant(student: str, question: str) -> torch.Generator:
    """A generator of this student's own numbers for a question: the same for the same two names, on every machine."""
    digest = hashlib.sha256(f"{student.strip().lower()}:{question}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def sizes(generator: torch.Generator, *ranges: tuple[int, int]) -> Iterator[int]:
    """One random whole number per inclusive range."""
    for low, high in ranges:
        yield int(torch.randint(low, high + 1, (), generator=generator))


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    """Standard normal float64 values."""
    return torch.randn(*shape, generator=generator, dtype=torch.float64)
