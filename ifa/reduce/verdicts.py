"""Which samples count for a target: what each task takes for its label and a right prediction."""

from typing import Any, Literal, NamedTuple, get_args

Task = Literal["classification", "binary", "multilabel", "regression", "scored"]
TASKS: tuple[str, ...] = get_args(Task)

# Whose labels and predictions are 0 or 1, of every output.
FLAGS = ("binary", "multilabel")


class Verdict(NamedTuple):
    """Of each sample and target; arrays or tensors, as the labels are."""

    accepted: Any  # bool, whether it counts for the target's importance
    correct: Any  # bool, whether what is said of the target is right, whatever the label


def said(output: Any, chances: bool) -> Any:
    """Say 1 where an output is a probability above .5, or its logit above 0, and else 0; int64."""
    return (output > (0.5 if chances else 0.0)).long()


def verdict(task: str, label: Any, prediction: Any, target: Any) -> Verdict:
    """Tell which samples are accepted for a target, and which are predicted correctly.

    Parameters
    ----------
    task
        ``"classification"``: predicted as the label, and accepted where that is the target.
        ``"binary"`` or ``"multilabel"``: the target is predicted where its label is 1 and not where
        that is 0, and accepted where both are 1. ``"scored"``: as a classification, the prediction
        being the label where its score finds something, and otherwise -1.
    label, prediction : (sample,) or (sample, output)
        Output indices; or 0 or 1 for each output.
    target : int or (target,)
        Output indices; of a classification also (sample,) or (target, sample).

    Returns
    -------
    Verdict
        (sample,) or (target, sample).

    Examples
    --------
    >>> import numpy as np
    >>> label, prediction = np.array([[1, 0], [0, 0]]), np.array([[1, 1], [0, 0]])
    >>> accepted, correct = verdict("multilabel", label, prediction, 1)
    >>> accepted.tolist(), correct.tolist()
    ([False, False], [False, True])
    """
    if task in FLAGS:
        label, prediction = (
            values.reshape(len(values), -1).T[target] for values in (label, prediction)
        )
        correct = label == prediction
        return Verdict(correct & (label == 1), correct)
    correct = label == prediction
    return Verdict(correct & (label == target), correct)
