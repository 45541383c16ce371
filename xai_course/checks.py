"""Checks of graded questions: ``xai_course.checks.check_<question>(your_function)`` says which case fails and why.

Inputs, expected values and hints are data (``data/checks/<assignment>.json``); no solution stands here or there. The
mark comes from other inputs, compared in the same way.
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .data.files import course_file

FUNCTIONS: dict[str, Callable[..., Tensor]] = {  # that a question hands over as an argument
    "tanh head": lambda x, weight, mix: torch.tanh((x * mix).mean(dim=(2, 3))) @ weight.T,
    "scaled distance": lambda x, target, scale: ((x - target) ** 2).sum() * scale,
    "sum of cubes": lambda x: (x**3).sum(),
    "product": lambda x: x.prod(),
}
DTYPES = {str(d).removeprefix("torch."): d for d in (torch.float64, torch.float32, torch.int64, torch.bool)}
ROUNDING = 1e-5  # of a float32 answer, unless the question asks for float64
NUMBERS = (bool, int, float)


class Small:
    """One of `FUNCTIONS` with its parameters: what a question's data hold in place of a function."""

    def __init__(self, function: str, **parameters):
        self.function, self.parameters = function, parameters

    def __call__(self, x: Tensor) -> Tensor:
        return FUNCTIONS[self.function](x, **self.parameters)


def encode(value: object) -> object:
    """Plain data for JSON: ``{"dtype", "shape", "values"}`` for an array, numbers and texts as they are.

    Lists of numbers or of tensors become one array. Anything else becomes ``{"type": its name}``, which equals nothing.
    """
    if value is None or type(value) in (str, *NUMBERS):
        return value
    if isinstance(value, Small):
        return {"function": value.function, **{name: encode(each) for name, each in value.parameters.items()}}
    if isinstance(value, (list, tuple)) and value and all(isinstance(each, Small) for each in value):
        return [encode(each) for each in value]
    try:
        array = _array(value).detach()
        dtype = str(array.dtype).removeprefix("torch.")
        plain = {"plain": True} if type(value) is list and all(type(each) is float for each in value) else {}
        return {"dtype": dtype, "shape": list(array.shape), "values": array.flatten().tolist(), **plain}
    except (TypeError, ValueError, RuntimeError):
        return {"type": type(value).__name__}


def _array(value: object) -> Tensor:
    if isinstance(value, (list, tuple)):
        if any(isinstance(each, (Tensor, list, tuple)) for each in value):
            return torch.stack([_array(each) for each in value])
        return torch.tensor([float(each) for each in value], dtype=torch.float64)
    if isinstance(value, Tensor) or type(value).__module__ == "numpy":
        return torch.as_tensor(value)
    raise TypeError


def decode(data: object) -> Any:
    """The arguments behind `encode`'s data, with tensors of their own.

    Raises:
        ValueError, TypeError, KeyError, RuntimeError: it is not such data.
    """
    if isinstance(data, list):
        return [decode(each) for each in data]
    if isinstance(data, dict) and "function" in data:
        return Small(**{name: decode(each) for name, each in data.items()})
    if isinstance(data, dict):
        return torch.tensor(data["values"], dtype=DTYPES[data["dtype"]]).reshape(data["shape"])
    return data


def call(function: Callable, arguments: list, gradients: Sequence[int] = (), autograd: bool = True) -> list:
    """Data of the result, then of the gradients asked for (None: there is none), of the result's entries added up with
    the weights 1, 2, 3, ...; without ``autograd`` the function cannot use it."""
    inputs = [decode(each) for each in arguments]
    wanted = [inputs[position].requires_grad_() for position in gradients]
    with torch.inference_mode(not autograd):
        result = function(*[each.clone() for each in inputs] if not autograd else inputs)
    if isinstance(result, (list, tuple)) and gradients:
        result = _array(result)
    found = [encode(result)]
    if wanted and isinstance(result, Tensor) and result.requires_grad:
        weights = 1 + torch.arange(result.numel(), dtype=result.dtype).view(result.shape)  # shares add up to a constant
        slopes = torch.autograd.grad((weights * result).sum(), wanted, allow_unused=True)
        return found + [encode(torch.zeros_like(x) if g is None else g) for x, g in zip(wanted, slopes, strict=True)]
    return found + [None] * len(wanted)


def compare(got: list, case: dict, tolerance: float, double: bool = False) -> str:
    """What is wrong with the data of a `call`, in words; empty where nothing is."""
    head = got[0] if got and isinstance(got[0], dict) else {"plain": True}  # float() and tolist() hide a float32
    dtype = head.get("dtype", "float64")
    allowed = ROUNDING if (dtype == "float32" or head.get("plain")) and not double else 0.0
    names = ["result", *(f"gradient with respect to argument {at + 1}" for at in case["gradients"])]
    for what, have, want in zip(names, [*got, *[None] * len(names)], case["expected"]):
        fault = _difference(have, want, max(tolerance, allowed), what != "result")
        if fault and dtype == "float32" and double:
            fault += "; your answer is float32, and this question asks for float64"
        if fault:
            return f"{what}: {fault}"
    return ""


def _difference(got: object, expected: object, tolerance: float, gradient: bool) -> str:
    if got is None:
        return "there is none: does it get lost on the way?" if gradient else "got None: does your function return it?"
    try:
        pair = (decode(got), decode(expected))
        have, want = (torch.as_tensor(x, dtype=torch.float64 if type(x) is float else None) for x in pair)
    except (ValueError, TypeError, KeyError, RuntimeError, OverflowError):
        kind = got.get("type", got.get("dtype")) if isinstance(got, dict) else type(got).__name__
        return f"expected a tensor (float64 or float32) or a number, got {str(kind)[:60]}"
    if have.shape != want.shape:
        return f"expected shape {list(want.shape)}, got {list(have.shape)}"
    a, b = have.double(), want.double()
    far = ~((a - b).abs() <= tolerance * b.abs().clamp(min=1))
    if not far.any():
        return ""
    at = tuple(far.nonzero()[0].tolist())
    texts = next(t for n in range(6, 18) if len(set(t := [f"{float(x[at]):.{n}g}" for x in (b, a)])) == 2 or n == 17)
    kind = str(have.dtype).removeprefix("torch.")
    where = f" at [{', '.join(map(str, at))}]; {int(far.sum())} of {far.numel()} values differ" if at else ""
    return f"expected {texts[0]}, got {texts[1]} ({kind}){where}"


class Check:
    """A callable check of one question: ``check(function) -> bool``, printing the first failing case, or a line."""

    def __init__(self, name: str, question: dict):
        self.name, self.question = name, question

    def __call__(self, answer: object, *, quiet: bool = False) -> bool:
        """Whether ``answer`` passes every case; of a choice, whether it is one of the options."""
        right, text = self._choice(answer) if "options" in self.question else self._cases(answer)
        if not quiet:
            print(f"{'✓' if right else '✗'} {self.name}: {text}")
        return right

    def _choice(self, answer: object) -> tuple[bool, str]:
        letters = letters_of(self.question["options"])
        right = type(answer) is str and answer in set(letters)
        return right, f"recorded {answer}" if right else f"answer with one of {', '.join(letters)}, got {answer!r}"

    def _cases(self, function) -> tuple[bool, str]:
        question, autograd = self.question, self.question["autograd"]
        for case in question["cases"]:
            try:
                got = call(function, case["arguments"], case["gradients"], autograd)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # also SystemExit: a check must not end the notebook
                note = "" if autograd else " (autograd is off here: the question asks for your own derivation)"
                fault = f"your function raised {type(error).__name__}: {error}{note}"
            else:
                fault = compare(got, case, question["tolerance"], question["double"])
            if fault:
                return False, f"case “{case['name']}”\n  {fault}\n  Hint: {case['hint']}"
        return True, f"{len(question['cases'])} cases passed"


def exercise(answer: Any, *cases: tuple[tuple, object, str], tolerance: float = 1e-6) -> bool:
    """Check a lab's exercise: the result for each case's arguments against what is expected, and the case's hint.

    Args:
        answer: a function, or a value where the case has no arguments. One that gives None or ``...`` is not done yet.
        cases: the arguments as a tuple, the expected result, and what is wrong where it differs.
        tolerance: relative to the expected value where that is above 1.

    Example:
        >>> exercise(..., ((), 4.0, "count the corners"))
        ◌ answer: not done yet
        False
        >>> def double(x):
        ...     return x + 1
        >>> exercise(double, ((1.0,), 2.0, "1 and 1"), ((2.0,), 4.0, "this adds one"))
        ✗ double: case “2”
          result: expected 4, got 3 (float64)
          Hint: this adds one
        False
    """
    function, name = answer if callable(answer) else lambda: answer, getattr(answer, "__name__", "answer")
    question: dict = {"cases": [], "tolerance": tolerance, "double": False, "autograd": True}
    for at, (given, expected, hint) in enumerate(cases, 1):
        case = {"name": f"{at}", "arguments": [*map(encode, given)], "gradients": [], "expected": [encode(expected)]}
        question["cases"].append(case | {"hint": hint})
    with contextlib.suppress(Exception):
        found = function(*map(decode, question["cases"][0]["arguments"]))
        if found is None or found is ...:
            print(f"◌ {name}: not done yet")
            return False
    return Check(name, question)(function)


def letters_of(options: Sequence[str]) -> str:
    """a, b, c, ...: one for each option."""
    return "abcdefgh"[: len(options)]


def order(question: str, student: str, count: int) -> list[int]:
    """Which option stands at which letter for this student."""
    return torch.randperm(count, generator=variant(student, f"options of {question}")).tolist()


def options(question: str, student: str) -> None:
    """Print the options of a choice, in this student's order."""
    listed = _questions()[question]["options"]
    for letter, at in zip(letters_of(listed), order(question, student, len(listed))):
        print(f"{letter}  {listed[at]}")


def variant(student: str, question: str) -> torch.Generator:
    """A generator of this student's own numbers for a question: the same for the same two names, on every machine."""
    digest = hashlib.sha256(f"{student.strip().lower()}:{question}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


@cache
def _questions() -> dict[str, dict]:
    files = sorted(course_file("checks").glob("*.json"))
    return {name: each for path in files for name, each in json.loads(path.read_text("utf-8")).items()}


@cache
def _check(name: str) -> Check:
    return Check(name, _questions()[name])


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return ["options", "variant", *(f"check_{each}" for each in _questions())]
    if name.startswith("check_") and name.removeprefix("check_") in _questions():
        return _check(name.removeprefix("check_"))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> Iterable[str]:
    return sorted([*globals(), *(f"check_{name}" for name in _questions())])
