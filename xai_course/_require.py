"""One way to refuse what a function cannot use: what must hold, what was expected, what came."""

from torch import Tensor


def require(condition: object, must: str, *got: object) -> None:
    """Raises ValueError unless the condition holds; what came is put into words only then.

    Args:
        condition: what must be true, NaN refused where it is a comparison.
        must: the name of the argument and what it must be.
        got: what came; of a tensor its shape and dtype are told.

    Example:
        >>> require(-1 >= 0, "balance must be at least 0", -1)
        Traceback (most recent call last):
        ValueError: balance must be at least 0, got -1
    """
    if not condition:
        told = [f"{tuple(each.shape)} {each.dtype}" if isinstance(each, Tensor) else str(each) for each in got]
        raise ValueError(f"{must}, got {' and '.join(told)}" if got else must)
