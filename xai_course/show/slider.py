"""Figures that move without a kernel: a range slider over pre-rendered frames, in plain HTML."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence

from .._require import require


def slider(figure: Callable[[object], object], values: Sequence[object], label: str, alt: str, start: int = 0):
    """One frame per value, shown by moving a slider; works on the static page, offline and in Colab alike.

    Args:
        figure: a pure function of one value that returns a matplotlib figure; the same one can be bound to ipywidgets.
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

    if not values or not 0 <= start < len(values):
        raise ValueError(f"start must be an index into values, got {start} for {len(values)} values")
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
        f'aria-valuetext="{html.escape(str(values[start]))}" style="width:min(28rem,90%)" oninput="{move}"></label>'
        f"<div>{images}</div></div>"
    )


def _png(figure) -> str:
    import matplotlib.pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()


def interact(figure: Callable, **values):
    """The same figure function bound to live ipywidgets sliders, for readers with a kernel."""
    import ipywidgets

    return ipywidgets.interact(figure, **{k: ipywidgets.SelectionSlider(options=v) for k, v in values.items()})
