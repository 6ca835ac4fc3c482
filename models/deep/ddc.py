"""Deep Domain Confusion: a narrow adaptation layer with one kernel (Tzeng, Hoffman, Zhang, Saenko, Darrell, 2014).

    L = L_C(source labels) + lambda MMD^2(adaptation layer of the source, of the target)    (arXiv:1412.3474, eq. 2)

The adaptation layer is the last hidden one of the spec; its width is part of the preset. The paper measures with a
linear kernel; ours is one Gaussian kernel, which sees more than a difference of means.
"""

from __future__ import annotations

from models.deep.dan import Dan


class Ddc(Dan):
    """DAN's distance; `DeepSpec` sees to it that it is of one kernel on one layer."""
