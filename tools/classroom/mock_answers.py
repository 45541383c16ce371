"""What the mock class writes for the assignment on AMC-Loss: right answers in many styles, and mistakes.

Sources by question; what a style does not name is the master's.
"""

from __future__ import annotations

ARCTAN = "2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))"
LOOP = {
    "angles": """def angles(u, v):
    found = []
    for a, b in zip(u, v):
        found.append(2 * math.atan2((a - b).norm(), (a + b).norm()))
    return found""",
    "pair_loss": """def pair_loss(angles, same, margin):
    found = []
    for i in range(len(angles)):
        if same[i]:
            found.append(angles[i] ** 2)
        elif angles[i] < margin:
            found.append((margin - angles[i]) ** 2)
        else:
            found.append(angles[i] * 0)
    return found""",
    "half_batch_loss": """def half_batch_loss(features, classes, margin):
    half, total = len(features) // 2, features.sum() * 0
    for i in range(half):
        u, v = features[i] / features[i].norm(), features[i + half] / features[i + half].norm()
        theta = 2 * torch.atan2((u - v).norm(), (u + v).norm())
        total = total + (theta**2 if classes[i] == classes[i + half] else max(theta * 0, margin - theta) ** 2)
    return total / max(half, 1)""",
    "positive_gradient": """def positive_gradient(x, y):
    found = torch.zeros_like(x)
    for i, (a, b) in enumerate(zip(x, y)):
        u, v = a / a.norm(), b / b.norm()
        theta = 2 * math.atan2((u - v).norm(), (u + v).norm())
        if theta > 1e-9:
            found[i] = -2 * theta / math.sin(theta) / a.norm() * (v - (u @ v) * u)
    return found""",
    "ramp": """def ramp(epoch, length, peak):
    left = 0 if epoch >= length else 1 - epoch / length
    return peak * math.e ** (-5 * left * left)""",
}
NUMPY = {
    "angles": """import numpy as np
def angles(u, v):
    u, v = np.asarray(u), np.asarray(v)
    return 2 * np.arctan2(np.linalg.norm(u - v, axis=1), np.linalg.norm(u + v, axis=1))""",
    "positive_gradient": """def positive_gradient(x, y):
    x, y = np.array(x), np.array(y)
    r = np.linalg.norm(x, axis=1, keepdims=True)
    u, v = x / r, y / np.linalg.norm(y, axis=1, keepdims=True)
    t = np.asarray(angles(torch.tensor(u), torch.tensor(v)))[:, None]
    turn = np.where(t > 1e-9, t / np.where(t > 1e-9, np.sin(t), 1), 1)
    return -2 * turn / r * (v - (u * v).sum(1, keepdims=True) * u)""",
    "ramp": """def ramp(epoch, length, peak):
    return peak * np.exp(-5 * max(0, 1 - epoch / length if length else 0) ** 2)""",
}
SINGLE = {
    "pair_loss": """def pair_loss(angles, same, margin):
    return torch.where(same, angles**2, (margin - angles).clamp(min=0) ** 2).float()""",
    "half_batch_loss": """def half_batch_loss(features, classes, margin):
    half = len(features) // 2
    if half == 0:
        return (0 * features).sum().float()
    z = features / features.norm(dim=1, keepdim=True)
    return pair_loss(angles(z[:half], z[half:2 * half]), classes[:half] == classes[half:2 * half], margin).mean()""",
    "ramp": """def ramp(epoch, length, peak):
    if epoch >= length:
        return torch.tensor(peak, dtype=torch.float32)
    return torch.tensor(peak * math.exp(-5 * (1 - epoch / length) ** 2), dtype=torch.float32)""",
}
STYLES = {
    "vectorised": {},
    "loops": LOOP,
    "numpy": NUMPY,
    "float32": SINGLE,
    "two arcs": {
        "angles": """def angles(u, v):
    near = 2 * torch.asin(((u - v).norm(dim=1) / 2).clamp(max=1))
    far = math.pi - 2 * torch.asin(((u + v).norm(dim=1) / 2).clamp(max=1))
    return torch.where((u * v).sum(1) > 0, near, far)""",
        "pair_loss": "def pair_loss(t, s, m):\n    return s * t.square() + (~s) * torch.relu(m - t).square()",
    },
    "objects": {
        "angles": f"class Angle:\n    def __call__(self, u, v):\n        return {ARCTAN}\n\nangles = Angle()",
        "pair_loss": """class Pairs(torch.nn.Module):
    def forward(self, angles, same, margin):
        return torch.where(same, angles.square(), (margin - angles).clamp(min=0).square())

pair_loss = Pairs()""",
        "ramp": "ramp = lambda t, end, peak: peak * math.exp(-5 * (1 - t / end) ** 2) if t < end else peak",
    },
    "helpers": {
        "angles": "def _length(x):\n    return x.norm(dim=-1)\n\ndef angles(u, v):\n    return "
        "2 * torch.atan2(_length(u - v), _length(u + v))",
        "half_batch_loss": """def halves(rows):
    h = len(rows) // 2
    return rows[:h], rows[h:h + h]

def half_batch_loss(features, classes, margin):
    if len(features) < 2:
        return features.mul(0).sum()
    (a, b), (s, t) = halves(features / features.norm(dim=1, keepdim=True)), halves(classes)
    return torch.mean(pair_loss(angles(a, b), s.eq(t), margin))""",
    },
    "annotated": {
        "angles": f'from torch import Tensor\n\ndef angles(u: Tensor, v: Tensor) -> Tensor:\n    """θ ∈ [0, π] — '
        f'“half a chord”."""\n    θ: Tensor = {ARCTAN}\n    return θ',
    },
    "magics": {"angles": f"%time 1 + 1\n!pip list\ndef angles(u, v):\n    return {ARCTAN}"},
}
"""Full points each."""

THETA = """def positive_gradient(x, y):
    r = x.norm(dim=1, keepdim=True)
    u, v = x / r, y / y.norm(dim=1, keepdim=True)
    t = 2 * torch.atan2((u - v).norm(dim=1, keepdim=True), (u + v).norm(dim=1, keepdim=True))
"""
PAIR, RAMP = "def pair_loss(t, s, m):\n    ", "def ramp(epoch, length, peak):\n    "
MISTAKES: dict[str, tuple[dict[str, str], str]] = {
    "arccos": ({"angles": "def angles(u, v):\n    return torch.arccos((u * v).sum(1).clamp(-1, 1))"}, "angles: case"),
    "single angles": ({"angles": f"def angles(u, v):\n    return ({ARCTAN}).float()"}, "question asks for float64"),
    "degrees": ({"angles": f"def angles(u, v):\n    return torch.rad2deg({ARCTAN})"}, "angles: case"),
    "swapped": (
        {"pair_loss": PAIR + "return torch.where(s, (m - t).clamp(min=0) ** 2, t**2)"},
        "pair_loss: case “mixed pairs”",
    ),
    "detached": (
        {"pair_loss": PAIR + "t = t.detach()\n    return torch.where(s, t**2, (m - t).clamp(min=0) ** 2)"},
        "gradient with respect to argument 1: there is none",
    ),
    "no return": ({"pair_loss": PAIR + "torch.where(s, t**2, (m - t).clamp(min=0) ** 2)"}, "got None"),
    "odd batch": (
        {"half_batch_loss": """def half_batch_loss(features, classes, margin):
    half = len(features) // 2
    z = features / features.norm(dim=1, keepdim=True)
    return pair_loss(angles(z[:half], z[half:]), classes[:half] == classes[half:], margin).mean()"""},
        "half_batch_loss: case “an odd batch”: your function raised RuntimeError",
    ),
    "a sum": (
        {"half_batch_loss": """def half_batch_loss(features, classes, margin):
    half = len(features) // 2
    z = features / features.norm(dim=1, keepdim=True)
    return pair_loss(angles(z[:half], z[half:2 * half]), classes[:half] == classes[half:2 * half], margin).sum()"""},
        "half_batch_loss: case “an even batch”: result: expected",
    ),
    "autograd": (
        {"positive_gradient": """def positive_gradient(x, y):
    with torch.inference_mode(False), torch.enable_grad():
        x = x.clone().requires_grad_()
        u, v = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
        return torch.autograd.grad((angles(u, v) ** 2).sum(), x)[0]"""},
        "the text asks for the gradient by hand",
    ),
    "no length": (
        {"positive_gradient": THETA + "    turn = torch.where(t > 1e-9, t / torch.sin(t), torch.ones(()))\n"
         "    return -2 * turn * (v - (u * v).sum(1, keepdim=True) * u)"},
        "positive_gradient: case “long and short rows”",
    ),
    "zero by zero": (
        {"positive_gradient": THETA + "    return -2 * t / torch.sin(t) / r * (v - (u * v).sum(1, keepdim=True) * u)"},
        "positive_gradient: case “parallel rows”",
    ),
    "as printed": ({"ramp": RAMP + "return peak * math.exp(-5 * (1 - epoch / length) ** 2)"}, "ramp: "),
    "linear": ({"ramp": RAMP + "return peak if epoch >= length else peak * epoch / length"}, "ramp: "),
    "another letter": ({"weight": "weight = 'e'"}, "weight: 'e' is not right"),
    "the text": ({"weight": "weight = 'They are equal'"}, "weight: "),
    "a word too many": ({"angles": "def angles(u, v)\n    return u"}, "angles: its cell stopped: SyntaxError: "),
    "left out": ({"angles": "def angles(u, v):\n    raise NotImplementedError()"}, "angles: not answered"),
    "wrong twice": (
        {"angles": "def angles(u, v):\n    return (u - v).norm(dim=1)", "pair_loss": PAIR + "return t**2"},
        "pair_loss: case",
    ),
    "borrowed": (
        {"angles": f"from xai_course.methods import amc\ndef angles(u, v):\n    amc\n    return {ARCTAN}"},
        "angles: calls xai_course.methods.amc",
    ),
}  # fmt: skip
"""Sources, and what is said; each costs the questions it names and no other."""
