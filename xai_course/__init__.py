"""Explanations as a training signal: five papers, taught and fully implemented."""

__version__ = "0.2.0"


def __getattr__(name: str):  # light until used: `import xai_course` pulls in no plotting and no training package
    if name in ("setup", "profile"):
        from . import colab

        return getattr(colab, name)
    raise AttributeError(f"module 'xai_course' has no attribute {name!r}")
