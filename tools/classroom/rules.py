"""What a question's text forbids, read from the syntax tree of the answer and of everything it calls."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection

from tools.classroom.handed_in import Cell
from tools.classroom.questions import Choice, Question

DERIVATIVES = {"autograd", "backward", "requires_grad_", "requires_grad", "jacobian", "jacrev", "jacfwd", "vjp", "jvp"}
DERIVATIVES |= {"func", "inference_mode", "enable_grad", "hessian"}
OPEN = ("xai_course.checks", "xai_course.data")  # what an answer may come near without giving a reason to ask


class Code:
    """The cells of a paper as a graph of names."""

    def __init__(self, cells: list[Cell]):
        self.nodes: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, str] = {}
        for cell in cells:
            for name, node in cell.names().items():
                self.nodes.setdefault(name, []).append(node)
            for top in cell.body:
                for node in ast.walk(top):
                    self.imports |= _imported(node)

    def reached(self, name: str, beyond: Collection[str] = ()) -> dict[str, list[ast.stmt]]:
        """The name and all names that its definition uses, directly or not, with their definitions; none ``beyond``."""
        found: dict[str, list[ast.stmt]] = {}
        queue = [name]
        while queue:
            each = queue.pop()
            if each in self.nodes and each not in found and (each == name or each not in beyond):
                found[each] = self.nodes[each]
                inner = [node for top in self.nodes[each] for node in ast.walk(top)]
                queue += [node.id for node in inner if isinstance(node, ast.Name)]
        return found

    def broken(self, question: Question | Choice, others: Collection[str]) -> str:
        """Which rule of its text an answer breaks, in plain words; empty if none. What ``others`` break is theirs."""
        if isinstance(question, Choice):
            return ""
        reached = self.reached(question.name, others)
        nodes = [node for tops in reached.values() for top in tops for node in ast.walk(top)]
        used = {node.id for node in nodes if isinstance(node, ast.Name)} | {question.name}
        origins = {name: self.imports[name] for name in used if name in self.imports}
        for node in nodes:
            origins |= _imported(node)
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)] if isinstance(node, ast.Call) else []
            origins |= {text: text for text in texts if re.fullmatch(r"xai_course[.\w]*", str(text))}
        for origin in origins.values():
            if origin.startswith("xai_course") and not origin.startswith(OPEN):
                return f"calls {origin[:60]}; the answer must be your own"
            if origin.startswith("xai_course.checks") and ("Small" in origin or "FUNCTIONS" in origin):
                return "calls the checks instead of answering"
        if not question.autograd and (name := _derivative(nodes, origins)):
            return f"uses {name}; the text asks for the gradient by hand"
        if question.each and not _in_loops(reached, question.name):
            return "has a backward pass outside a loop; the text asks for one backward pass per loss"
        return ""


def _imported(node: ast.AST) -> dict[str, str]:
    """Bound name to the dotted name behind it."""
    if isinstance(node, ast.Import):
        return {
            alias.asname or alias.name.split(".")[0]: alias.name for alias in node.names if alias.asname or alias.name
        }
    if isinstance(node, ast.ImportFrom) and node.module:
        return {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return {}


def _derivative(nodes: list[ast.AST], origins: dict[str, str]) -> str:
    for node in nodes:
        if isinstance(node, ast.Attribute) and node.attr in DERIVATIVES:
            return node.attr
        if isinstance(node, ast.keyword) and node.arg == "requires_grad":
            return node.arg
    return next((o for o in origins.values() if o.startswith(("torch.autograd", "torch.func", "functorch"))), "")


def _in_loops(reached: dict[str, list[ast.stmt]], name: str) -> bool:
    """Whether every backward pass of ``name`` stands inside a loop or a comprehension, its own or that of a caller."""
    loops = (ast.For, ast.While, ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)
    passes = {"backward", "grad"}

    def outside(node: ast.AST, looped: bool) -> bool:
        called = getattr(node.func, "attr", getattr(node.func, "id", "")) if isinstance(node, ast.Call) else ""
        if called in passes and not looped:
            return True
        return any(outside(child, looped or isinstance(node, loops)) for child in ast.iter_child_nodes(node))

    while found := {each for each, nodes in reached.items() if any(outside(n, False) for n in nodes)} - passes:
        passes |= found
    return name not in passes
