"""Muon's part: momentum made orthogonal (Jordan 2024, kellerjordan.github.io/posts/muon)."""

import math

import jax
import jax.numpy as jnp
import optax

from zoo.optim.matrices import layer_axes, takes_muon


def scale_by_orthogonalizing(specs, steps: int) -> optax.GradientTransformation:
    """Replaces every layer's matrix M = U S V^T by about 0.2 * sqrt(max(rows, columns)) * U V^T."""

    def scale(spec, update):
        if not takes_muon(spec):
            return update  # nothing: this one is in the other group
        first = len(spec.letters) - len(layer_axes(spec))  # 1 if stacked
        rows = math.prod(spec.shape[first : first + spec.contracted])
        x_NXY = update.reshape(*spec.shape[:first], rows, -1)
        size = max(x_NXY.shape[-2:])
        return (0.2 * math.sqrt(size) * orthogonalize(x_NXY, steps)).reshape(spec.shape)

    return optax.stateless(lambda updates, params: jax.tree.map(scale, specs, updates))


def orthogonalize(x, steps: int):
    """Matrices [..., rows, columns] with their singular values brought near 1, by Newton-Schulz iteration.

    The quintic a x + b (x x^T) x + c (x x^T)^2 x, whose coefficients Jordan tuned for speed: it lifts
    small singular values fast and ends between 0.7 and 1.2 rather than at 1.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    if x.shape[-2] > x.shape[-1]:  # the smaller Gram matrix is cheaper
        return orthogonalize(x.mT, steps).mT
    x /= jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + 1e-7
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x
