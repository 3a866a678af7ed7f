"""What stands in for a call that is not computed: one class for each choice of the setting `reuse`."""

# ruff: noqa: F401, I001
# One line per reuse, in the order in which the node offers them; the first is the default.
from .corrected import Corrected
from .fitted import Fitted
from .taylor import Taylor
from .prediction import Prediction
from .residual import Residual

from .base import Reuse

REUSES: dict[str, type[Reuse]] = {
    kind.name: kind
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Reuse) and "name" in vars(kind)
}
