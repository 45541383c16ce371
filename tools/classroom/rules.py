"""What a question's text forbids, read from the syntax tree of the answer and of everything it calls."""

from __future__ import annotations

import ast
import re
import symtable
from collections.abc import Collection, Iterable

from tools.classroom.handed_in import Cell
from tools.classroom.questions import Choice, Question

DERIVATIVES = {"autograd", "backward", "requires_grad_", "requires_grad", "jacobian", "jacrev", "jacfwd", "vjp", "jvp"}
DERIVATIVES |= {"func", "inference_mode", "enable_grad", "hessian"}
OPEN = ("xai_course.checks", "xai_course.data")  # what an answer may come near without giving a reason to ask
BY_TEXT = {"globals", "locals", "vars", "exec", "eval", "getattr", "setattr", "__import__", "attrgetter"}
HIDDEN = {"__dict__", "__code__", "__globals__", "f_globals", "__getattribute__", "__setattr__", "attrgetter"}
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


class Code:
    """The cells of a paper as a graph of names; ``given`` are the sources that everybody got."""

    def __init__(self, cells: list[Cell], given: Collection[str] = ()):
        self.nodes: dict[str, list[ast.stmt]] = {}
        self.imports: dict[str, str] = {}
        self.own = [top for cell in cells if cell.source.strip() not in given for top in cell.body]
        for cell in cells:
            for top in cell.body:
                for node in ast.walk(top):
                    self.imports |= _imported(node)
        for cell in cells:
            bound = [*cell.names().items(), *((name, top) for top in cell.body for name in self._changed(top))]
            for name, node in bound:
                self.nodes.setdefault(name, []).append(node)
        self.rebinds = next((found for top in self.own if (found := _rebinds(top, self.imports))), "")

    def _changed(self, top: ast.stmt) -> set[str]:
        """Names that a statement binds or changes, other than by a plain definition or assignment at the top."""
        if isinstance(top, (ast.Assign, ast.AnnAssign, ast.Import, ast.ImportFrom)):
            return set()
        inside = list(ast.walk(top))
        if isinstance(top, SCOPES):
            return {name for node in inside if isinstance(node, ast.Global) for name in node.names}
        if isinstance(top, ast.Expr) and isinstance(top.value, ast.Call) and isinstance(top.value.func, ast.Attribute):
            return {_root(top.value.func)} - {*self.imports}  # such as helpers.append(...)
        stored = {node.id for node in inside if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        return stored | {node.name for node in inside if isinstance(node, SCOPES)}

    def reached(self, name: str, beyond: Collection[str] = ()) -> dict[str, list[ast.stmt]]:
        """The name and all names that its definition uses, directly or not, with their definitions; none ``beyond``."""
        found: dict[str, list[ast.stmt]] = {}
        queue = [name]
        while queue:
            each = queue.pop()
            if each in self.nodes and each not in found and (each == name or each not in beyond):
                found[each] = self.nodes[each]
                queue += free(self.nodes[each])
        return found

    def broken(self, question: Question | Choice, others: Collection[str]) -> str:
        """Which rule of its text an answer breaks, in plain words; empty if none. What ``others`` break is theirs."""
        if isinstance(question, Choice):
            return ""
        reached = self.reached(question.name, others)
        ruled = not question.autograd or question.each
        if ruled and (name := next((n for tops in reached.values() for top in tops if (n := _by_text(top))), "")):
            return f"uses {name}, so that nobody can read what is called; write it without"
        if ruled and self.rebinds:  # then any name may stand for anything
            reached[question.name] = [*reached.get(question.name, []), *self.own]
        nodes = [node for tops in reached.values() for top in tops for node in ast.walk(top)]
        used = {*free(top for tops in reached.values() for top in tops), question.name}
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
            through = f", through {self.rebinds}" if self.rebinds else ""
            return f"uses {name}{through}; the text asks for the gradient by hand"
        if question.each and not _in_loops(reached, question.name):
            return "has a backward pass outside a loop; the text asks for one backward pass per loss"
        return ""


def free(tops: Iterable[ast.stmt]) -> set[str]:
    """The names that statements take from around them: no parameter and no variable of a function's own."""
    found: set[str] = set()
    for top in tops:
        try:
            tables = [symtable.symtable(ast.unparse(top), "answer", "exec")]
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            found |= {node.id for node in ast.walk(top) if isinstance(node, ast.Name)}
            continue
        while tables:
            table = tables.pop()
            whole = table.get_type() == "module"
            found |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (whole or s.is_global())}
            tables += table.get_children()
    return found


def _root(node: ast.expr) -> str:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _by_text(top: ast.stmt, names: Collection[str] = BY_TEXT) -> str:
    """What in a statement reaches a name that no reader sees; empty if nothing does."""
    for node in ast.walk(top):
        if isinstance(node, ast.Attribute) and node.attr in HIDDEN:
            return node.attr
        if isinstance(node, ast.Attribute) and node.attr == "modules" and _root(node) == "sys":
            return "sys.modules"
        if isinstance(node, ast.Name) and node.id in names:
            return node.id
        if "__main__" in _imported(node).values():
            return "__main__"
    return ""


def _rebinds(top: ast.stmt, imports: Collection[str]) -> str:
    """What in a statement can put something else behind a name: a change by text, or of an imported module."""
    stored = [node for node in ast.walk(top) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)]
    names = [ast.unparse(node) for node in stored if _root(node) in imports]
    if patched := [name for name in names if not name.startswith("torch.backends")]:
        return patched[0]
    return _by_text(top, BY_TEXT - {"getattr"})


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
