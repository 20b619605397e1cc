"""Laws, strategies, tiny networks and assertions, for our methods and other people's.

Needs hypothesis, which the extra ``ifa[test]`` brings.
"""

from ifa.testing import assertions as assertions
from ifa.testing import laws as laws
from ifa.testing import models as models
from ifa.testing import strategies as strategies
from ifa.testing.assertions import assert_leaves_model_untouched as assert_leaves_model_untouched
from ifa.testing.assertions import assert_trees_close as assert_trees_close

__all__ = [
    "assert_leaves_model_untouched",
    "assert_trees_close",
    "assertions",
    "laws",
    "models",
    "strategies",
]
