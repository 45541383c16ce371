"""Figures that move: live controls where there is a kernel, elsewhere a slider over frames in plain HTML."""

from __future__ import annotations

import html
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from .._require import require


def slider(figure: Callable[[object], object], values: Sequence[object], label: str, alt: str, start: int = 0):
    """One frame per value, shown by moving a slider; works on the static page, offline and in Colab alike.

    Args:
        figure: a pure function of one value that returns a matplotlib figure.
        values: the slider's stops, shown as text beside the label.
        label: what the slider changes.
        alt: what one sees, at least 30 characters; the value is appended for each frame.
        start: index of the first frame shown.

    Returns:
        ``IPython.display.HTML``.

    Raises:
        ValueError: no values, a start outside them, or too short an alternative text.
    """
    from IPython.display import HTML

    require(0 <= start < len(values), f"start must be an index into values, got {start} for {len(values)} values")
    require(len(alt) >= 30, "alt must describe the figure in at least 30 characters", repr(alt))
    frames = [_png(figure(value)) for value in values]
    label, alt = html.escape(label), html.escape(alt)
    images = "".join(
        f'<img src="data:image/png;base64,{frame}" alt="{alt} {label}: {html.escape(str(value))}" data-value='
        f'"{html.escape(str(value))}"{"" if i == start else " hidden"} style="max-width:100%;height:auto">'
        for i, (frame, value) in enumerate(zip(frames, values, strict=True))
    )
    move = (
        "const b=this.closest('.xai-slider'),f=b.querySelectorAll('img');"
        "f.forEach((g,i)=>{g.hidden=i!=this.value});"
        "b.querySelector('output').textContent=f[this.value].dataset.value;"
        "this.setAttribute('aria-valuetext',f[this.value].dataset.value)"
    )
    return HTML(
        f'<div class="xai-slider"><label>{label}: <output>{html.escape(str(values[start]))}</output><br>'
        f'<input type="range" min="0" max="{len(values) - 1}" value="{start}" step="1" aria-label="{label}" '
        f'aria-valuetext="{html.escape(str(values[start]))}" style="width:28rem;max-width:90%" '
        f'oninput="{move}"></label>'
        f"<div>{images}</div></div>"
    )


def _png(figure) -> str:
    import matplotlib.pyplot as plt
    from IPython.core.pylabtools import print_figure

    plt.close(figure)
    return print_figure(figure, bbox_inches=None, base64=True, dpi=90)


def live() -> bool:
    """Whether a reader can run this: a notebook's kernel is there, and no page is being made (``XAI_COURSE_PAGE``)."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return "IPKernelApp" in getattr(shell, "config", {}) and "XAI_COURSE_PAGE" not in os.environ


def interact(figure: Callable[..., object], alt: str, start: Mapping[str, object] | None = None, **values: Sequence):
    """Controls that compute a figure anew, one for each of ``values``; on a page, a `slider` over the first of them.

    Args:
        figure: a pure function of keyword arguments that returns a matplotlib figure.
        alt: what one sees, as for `slider`.
        start: by name, where a control stands first; otherwise at the first of its values.
        values: each argument's stops, by name.

    Returns:
        ``ipywidgets.interactive`` where the reader has a kernel (see `live`), else ``IPython.display.HTML``.

    Raises:
        ValueError: a control without values, a start outside them, or what `slider` refuses.
    """
    at = {name: [*stops].index((start or {}).get(name, stops[0])) for name, stops in values.items() if stops}
    known = values and len(at) == len(values) and set(start or {}) <= set(values)
    require(known, "values must hold at least one value for each control and start only these", values)
    if not live():
        (name, stops), *others = values.items()
        rest = {other: held[at[other]] for other, held in others}
        return slider(lambda value: figure(**{name: value}, **rest), stops, name.replace("_", " "), alt, at[name])
    import ipywidgets

    controls = {}
    for name, stops in values.items():
        look = {"description": name.replace("_", " "), "style": {"description_width": "initial"}}
        options = [(str(stop), stop) for stop in stops]
        controls[name] = ipywidgets.SelectionSlider(options=options, index=at[name], continuous_update=False, **look)
    return ipywidgets.interactive(lambda **chosen: figure(**chosen), {"auto_display": True}, **controls)
