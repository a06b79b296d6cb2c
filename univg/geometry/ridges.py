"""How much a pixel looks like the middle of a vessel, by curvature alone."""

from __future__ import annotations

import cv2
import numpy as np


def ridge_strength(grey: np.ndarray, sigma: float) -> np.ndarray:
    """Curvature across bright ridges: the most negative Hessian eigenvalue, negated, times sigma^2 (Sato et al. 1998).

    Parameters
    ----------
    grey : (H, W) ndarray of float32
    sigma : float
        Half the width of the ridges looked for, in pixels.

    Returns
    -------
    (H, W) ndarray of float32
        0 or more.
    """
    smooth = cv2.GaussianBlur(grey, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    xx, yy, xy = (cv2.Sobel(smooth, cv2.CV_32F, dx, dy, ksize=3) for dx, dy in ((2, 0), (0, 2), (1, 1)))
    # 3x3 Sobel kernels of second derivatives sum to 4 times the derivative.
    eigenvalue = 0.5 * (xx + yy) - np.sqrt((0.5 * (xx - yy)) ** 2 + xy**2)
    return np.maximum(-eigenvalue, 0) * (sigma**2 / 4)
