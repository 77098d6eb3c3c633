"""Attention of a recurrent decoder: which source positions a target position looks at.

"Neural Machine Translation by Jointly Learning to Align and Translate" (Bahdanau et al. 2014, arXiv
1409.0473) and "Effective Approaches to Attention-based Neural Machine Translation" (Luong et al. 2015,
arXiv 1508.04025, section 3.1). With decoder state h and encoder output m of a source position the score is

    dot        h . m
    general    h . (W m)
    concat     v . tanh(W m + U h)           Luong's, who writes one matrix over [h; m]
    additive   v . tanh(W m + U h + b)       Bahdanau's, whose bias the paper leaves out "for readability"

What depends on the source alone, W m + b, is computed once ("keys"). Scores become weights by a softmax
over the source's own positions; the context is the mean of m under them.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.layers import matmul, parameter
from zoo.sharding import constrain

ALIGNMENTS = ("dot", "general", "concat", "additive")


class Alignment(nn.Module):
    """Contexts of queries, of a kind that is one of ALIGNMENTS. In `dims`, E is the width of the encoder's
    output, R that of a query, Z that of a key."""

    kind: str
    dims: dict[str, int]
    init_values: object

    def setup(self):
        dims, init = self.dims, self.init_values
        if self.kind != "dot":
            self.w_EZ = parameter(self, "w", "EZ", dims, init, contracted=1)
        if self.kind in ("concat", "additive"):
            self.u_RZ = parameter(self, "u", "RZ", dims, init, contracted=1)
            self.v_Z = parameter(self, "v", "Z", dims, init)
        if self.kind == "additive":
            self.b_Z = parameter(self, "b", "Z", dims, init)

    def keys(self, memory_BSE):
        """What queries are compared with, [B, S, Z]; for dot the encoder's output itself."""
        if self.kind == "dot":
            return memory_BSE
        keys_BSZ = matmul(memory_BSE, self.w_EZ.astype(memory_BSE.dtype), 1)
        if self.kind == "additive":
            keys_BSZ += self.b_Z.astype(memory_BSE.dtype)
        return constrain(keys_BSZ, "BSZ")

    def __call__(self, h_BTR, memory_BSE, keys_BSZ, lengths_B):
        """(context_BTE, weights_BTS). A source of length 0 has no weights and the context 0."""
        dtype = jnp.promote_types(h_BTR.dtype, jnp.float32)
        if self.kind in ("dot", "general"):
            scores_BTS = jnp.einsum("BTZ,BSZ->BTS", h_BTR, keys_BSZ, preferred_element_type=dtype)
        else:
            query_BTZ = matmul(h_BTR, self.u_RZ.astype(h_BTR.dtype), 1)
            hidden_BTSZ = jnp.tanh(keys_BSZ[:, None] + query_BTZ[:, :, None])
            v_Z = self.v_Z.astype(h_BTR.dtype)
            scores_BTS = jnp.einsum("BTSZ,Z->BTS", hidden_BTSZ, v_Z, preferred_element_type=dtype)
        there_B1S = (jnp.arange(keys_BSZ.shape[1]) < lengths_B[:, None])[:, None]
        weights_BTS = jax.nn.softmax(jnp.where(there_B1S, scores_BTS, jnp.finfo(dtype).min), axis=-1)
        weights_BTS = jnp.where(there_B1S, weights_BTS, 0)
        context_BTE = jnp.einsum("BTS,BSE->BTE", weights_BTS.astype(memory_BSE.dtype), memory_BSE)
        return constrain(context_BTE, "BTE"), weights_BTS
