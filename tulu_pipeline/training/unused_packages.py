"""Import this first: it keeps packages out of a rank that others would import for what no rank does.

DeepSpeed's autotuning imports MLflow, transformers' assisted generation scikit-learn and its object detection scipy,
wherever they are installed: a third of the seconds before a rank starts, and half of its launcher's.
"""

from __future__ import annotations

import sys

for _name in ("mlflow", "scipy", "sklearn"):
    sys.modules.setdefault(_name, None)  # type: ignore[arg-type]  # an import then fails, as if it were not installed
