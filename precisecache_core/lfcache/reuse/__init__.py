"""What stands in for a call that is not computed: one class per way, by the name that users choose."""

# ruff: noqa: F401, I001
# One line per reuse, in the order in which the node offers them; the first is the default.
from .fitted import Fitted
from .taylor import Taylor
from .prediction import Prediction
from .residual import Residual

from .base import REUSES, Reuse
