"""What readers type into the search box, and the page that answers: words a page does not use but is about.

They become the page's keywords, which Sphinx puts into the search index.
"""

from __future__ import annotations

KNOWN_AS = {
    "book/looking": "heatmap heat map saliency attribution visualization interpretability explainability XAI GradCAM "
    "deletion insertion sanity check",
    "book/amc": "metric learning triplet contrastive cosine ArcFace",
    "book/hnc": "negative evidence robustness adversarial FGSM PGD",
    "book/loss_attention": "attention rollout multiple instance learning MIL patch transformer heatmap",
    "book/minmax": "weakly supervised segmentation WSOL histology mask heatmap",
    "book/reff": "right for the right reasons RRR attention supervision guided saliency shortcut Clever Hans",
    "book/reff_family": "right for the right reasons RRR saliency attention supervision regularisation",
    "book/bench": "comparison benchmark leaderboard recommendation",
    "book/tour": "dataset data set images MNIST Fashion-MNIST CIFAR shapes sample",
    "book/notation": "symbols letters",
    "book/how_to_use": "install setup Colab GPU",
}


def known_as(name: str, text: str) -> str:
    """The page with its keywords as front matter; a page without any as it is."""
    words = ", ".join(KNOWN_AS.get(name.removesuffix(".md"), "").split())  # Sphinx parts them at commas
    return f'---\nmyst:\n  html_meta:\n    keywords: "{words}"\n---\n\n{text}' if words else text


def found(index: dict, stem, word: str) -> set[str]:
    """The pages that the built index (``searchindex.js``, read) finds for a word, in their text or their titles."""
    at = [index[part].get(stem(word.lower()), []) for part in ("terms", "titleterms") if part in index]
    return {index["docnames"][number] for found in at for number in ([found] if isinstance(found, int) else found)}
