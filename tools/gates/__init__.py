"""What must hold before a page is shown. Each gate is a function that returns the problems it found, [] when it holds.

``sources``: the committed notebooks; ``executed``: what papermill made of them; ``html``: the built pages.
"""
