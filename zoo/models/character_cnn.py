"""A word's vector from its characters: convolutions, the largest of each over the word, highway layers.

Kim et al. 2015 ("Character-Aware Neural Language Models", arXiv 1508.06615) as Jozefowicz et al. 2016
(arXiv 1602.02410) and ELMo (Peters et al. 2018, arXiv 1802.05365) size it: of 2,048 filters half are 7
characters wide, a quarter 6, and so on.

    characters ─ table ─┬─ 1 wide ─ max ─┐
                        ├─ 2 wide ─ max ─┼─ relu ─ highway ─ highway ─ projection ─ vector
                        └─ ...           ┘
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.data.characters import NUM_CHARACTERS
from zoo.layers import Linear, constant, matmul, normal, parameter, uniform

# Width of a filter: its share of all. ELMo's 2,048 are 32, 32, 64, 128, 256, 512 and 1,024.
SHARES = {1: 1 / 64, 2: 1 / 64, 3: 1 / 32, 4: 1 / 16, 5: 1 / 8, 6: 1 / 4, 7: 1 / 2}
NARROWEST = 64  # filters of which each width has a whole number


def filters(num_filters: int) -> dict[int, int]:
    """How many filters of each width."""
    return {width: int(share * num_filters) for width, share in SHARES.items()}


def count_params(num_filters: int, d_character: int, num_highway: int, d_model: int) -> int:
    """Parameters, in closed form."""
    convolutions = sum((width * d_character + 1) * n for width, n in filters(num_filters).items())
    highway = 2 * num_highway * (num_filters + 1) * num_filters
    return NUM_CHARACTERS * d_character + convolutions + highway + (num_filters + 1) * d_model


def count_products(num_filters: int, d_character: int, num_highway: int, d_model: int, length: int) -> int:
    """Multiplications of weights that one word of `length` characters takes."""
    places = {width: length - width + 1 for width in SHARES}
    convolutions = sum(places[width] * width * d_character * n for width, n in filters(num_filters).items())
    return convolutions + 2 * num_highway * num_filters**2 + num_filters * d_model


class CharacterCNN(nn.Module):
    """Characters [B, T, length] to vectors [B, T, D]; `dims` has D and F, the number of filters."""

    dims: Mapping[str, int]
    d_character: int
    num_highway: int

    @nn.compact
    def __call__(self, characters, dtype):
        B, T, length = characters.shape
        table = self._kept_whole("characters", ".E", (NUM_CHARACTERS, self.d_character), uniform(1.0))
        x = jnp.take(table, characters.reshape(B * T, length), axis=0, mode="clip").astype(dtype)
        x_BF = jax.nn.relu(jnp.concatenate([self._largest(x, *each) for each in self._filters()], axis=-1))
        for layer in range(self.num_highway):
            x_BF = self._highway(x_BF, f"highway{layer}")
        projection = Linear("BF,FD->BD", self.dims, std=self.dims["F"] ** -0.5, name="projection")
        return projection(x_BF).reshape(B, T, -1)

    def _filters(self):
        return filters(self.dims["F"]).items()

    def _largest(self, x, width: int, count: int):
        """The largest answer of each filter over all places of the word."""
        w = self._kept_whole(f"w{width}", "E.", (width * self.d_character, count), uniform(0.05))
        b = self._kept_whole(f"b{width}", ".", (count,), constant(0.0))
        kernel = w.reshape(width, self.d_character, count).astype(x.dtype)
        y = jax.lax.conv_general_dilated(x, kernel, (1,), "VALID", dimension_numbers=("NWC", "WIO", "NWC"))
        return y.max(axis=1) + b.astype(x.dtype)

    def _kept_whole(self, name: str, letters: str, shape: tuple[int, ...], init):
        """Small arrays, 0.2 % of ELMo: not split by filters, of which the narrowest have few."""
        return parameter(self, name, letters, dict(zip(letters, shape, strict=True)), init)

    def _highway(self, x_BF, name: str):
        """A gate between x and a layer of x (Srivastava et al. 2015, arXiv 1505.00387), at first mostly x."""
        F = self.dims["F"]
        dims, init = {"E": F, "F": F}, normal(F**-0.5)
        w_layer = parameter(self, f"{name}_w", "EF", dims, init, contracted=1).astype(x_BF.dtype)
        b_layer = parameter(self, f"{name}_b", "F", dims, constant(0.0)).astype(x_BF.dtype)
        w_gate = parameter(self, f"{name}_gate_w", "EF", dims, init, contracted=1).astype(x_BF.dtype)
        b_gate = parameter(self, f"{name}_gate_b", "F", dims, constant(-2.0)).astype(x_BF.dtype)
        gate_BF = jax.nn.sigmoid(matmul(x_BF, w_gate, 1) + b_gate)
        return gate_BF * jax.nn.relu(matmul(x_BF, w_layer, 1) + b_layer) + (1 - gate_BF) * x_BF
