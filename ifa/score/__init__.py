r"""The scalar being explained: ``(output of one example, target) -> score``.

Any callable of that signature can be given as `score`; it is lifted over samples by `vmap`. The
output of one example is (output,), or () for a model with one unnamed output. `logit`,
`probability`, `log_probability`, `sigmoid` and `contrast` read logits; `value`, `log_value` and
`log_odds` read the outputs of a network that ends in a softmax or a sigmoid.

Of a model that returns a list with a mapping for each sample, as detectors do, the output of one
example is one of these, of any sizes; such samples are scored one after the other.

A score that needs data of each sample's own, such as a box or a mask, holds a table of them. Its
target is then the number of a row.
"""

from ifa.score.boxes import box as box
from ifa.score.chances import log_odds as log_odds
from ifa.score.chances import log_value as log_value
from ifa.score.chances import value as value
from ifa.score.contrasts import contrast as contrast
from ifa.score.embeddings import similarity as similarity
from ifa.score.logits import log_probability as log_probability
from ifa.score.logits import logit as logit
from ifa.score.logits import probability as probability
from ifa.score.logits import sigmoid as sigmoid
from ifa.score.regions import region as region

__all__ = [
    "box",
    "contrast",
    "log_odds",
    "log_probability",
    "log_value",
    "logit",
    "probability",
    "region",
    "sigmoid",
    "similarity",
    "value",
]
