"""A feed-forward layer of many experts, of which a router picks a few for each token.

"Outrageously Large Neural Networks: The Sparsely-Gated Mixture-of-Experts Layer" (Shazeer et al. 2017, arXiv
1701.06538) as Mixtral has it (Jiang et al. 2024, arXiv 2401.04088): each expert is a gated layer of its own,
and the output is the sum of the picked ones', weighted by the router.

    x_BTD - router - softmax over all X experts - the P largest -+
       |                                                          |  weights
       +--> tokens in the order of their experts ==> gate, up, down ==> back, times the weights, summed

What is unusual: no token is dropped and no expert has a capacity, and yet every shape is fixed. The tokens of
an expert fill whole blocks of rows (MegaBlocks, Gale et al. 2022, arXiv 2211.15841), so that a product is one
matmul a block with the kernel of the block's expert:

    expert    0 0 0 . | 0 0 0 0 | 2 2 . . | 3 3 3 .     blocks of 4 rows; a dot is an empty row, zeros
              block 0   block 1   block 2   block 3

Letters here: P counts the experts picked for a token, S the rows of the layout, G its blocks.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from zoo.errors import ConfigError
from zoo.layers import ACTIVATIONS, Linear, dropout, dropout_key, normal, parameter
from zoo.models.grouped import grouped
from zoo.models.transformer_config import branch_std
from zoo.sharding import constrain, placement


@dataclass(frozen=True)
class NoExperts:
    """One feed-forward layer for all tokens."""

    num_experts: ClassVar[int] = 0
    experts_per_token: ClassVar[int] = 0


@dataclass(frozen=True)
class Experts:
    """Mixtral's by default: 2 of 8."""

    num_experts: int = 8
    experts_per_token: int = 2
    normalised: bool = True
    """Whether the weights of a token's picked experts are made to sum to one; else they are what the softmax
    over all experts gave them (OLMoE)."""
    balance_loss: float = 0.0
    """Weight of Switch's loss in training, which is 1 where tokens spread evenly over the experts and up to
    num_experts where they do not; OLMoE trains with 0.01."""
    z_loss: float = 0.0
    """Weight of the mean squared log-sum-exp of the router's logits in training; ST-MoE and OLMoE: 0.001."""

    def __post_init__(self):
        if self.num_experts < 2:
            raise ConfigError(
                f"num_experts={self.num_experts} must be at least 2; a model without experts has NoExperts"
            )
        if not 1 <= self.experts_per_token <= self.num_experts:
            raise ConfigError(
                f"experts_per_token={self.experts_per_token} must be from 1 to num_experts={self.num_experts}"
            )
        for name in ("balance_loss", "z_loss"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ConfigError(f"{name}={getattr(self, name)} must be a number of at least 0")


class ExpertsMLP(nn.Module):
    """The layer. Model.watched sees its `gauges`, how evenly tokens spread, and the `penalty` for that."""

    config: Any

    @nn.compact
    def __call__(self, x_BTD, there_BT):
        cfg, dims, experts = self.config, self.config.dims, self.config.experts
        wide = jnp.promote_types(x_BTD.dtype, jnp.float32)
        router = Linear("BTD,DX->BTX", dims, bias=False, name="router")
        logits_BTX = constrain(router(x_BTD.astype(wide)), "BT.")
        share_BTX = jax.nn.softmax(logits_BTX)
        # Not top_k, for which compilers bring all tokens together.
        order_BTX = jnp.argsort(share_BTX, descending=True).astype(jnp.int32)
        chosen_BTP = order_BTX[..., : experts.experts_per_token]
        weight_BTP = jnp.take_along_axis(share_BTX, chosen_BTP, axis=-1)
        if experts.normalised:
            weight_BTP /= weight_BTP.sum(-1, keepdims=True)

        if self.is_mutable_collection("gauges"):  # in training
            found = gauges(logits_BTX, share_BTX, chosen_BTP, there_BT)
            for name, value in found.items():
                self.sow("gauges", name, value)
            self.sow("penalties", "penalty", penalty(experts, found))

        std = branch_std(cfg.num_layers)
        shapes = {"gate": ("XDF", 0.02), "up": ("XDF", 0.02), "down": ("XFD", std)}
        kernels = (Kernel(letters, dims, std, name=name)() for name, (letters, std) in shapes.items())
        kernels = [w.astype(x_BTD.dtype) for w in kernels]
        y_BTD = spread(ACTIVATIONS[cfg.activation], x_BTD, weight_BTP, chosen_BTP, *kernels)
        return dropout(constrain(y_BTD, "BTD"), cfg.dropout_rate, dropout_key(self))


class Kernel(nn.Module):
    """The weights of a matmul of each expert, without the matmul."""

    letters: str
    dims: Any
    std: float

    @nn.compact
    def __call__(self):
        return parameter(self, "w", self.letters, self.dims, normal(self.std), contracted=1)


# --- how evenly tokens are spread -----------------------------------------------------------------


def gauges(logits_BTX, share_BTX, chosen_BTP, there_BT) -> dict:
    """What is told of a router over the positions that hold a token.

    balance_loss     X sum_x f_x p_x of Switch (Fedus et al. 2021, arXiv 2101.03961, equation 4): f_x is the
                     share of all picks that are x (no gradient), p_x the mean of x's softmax
    router_z_loss    mean of (log sum_x exp logit_x)^2, of ST-MoE (Zoph et al. 2022, arXiv 2202.08906)
    expert_entropy   of f, over its largest value, log X: 1 where all experts are used alike
    expert_max       the largest f, over 1 / X: 1 likewise, and X where one expert takes every pick
    """
    X = share_BTX.shape[-1]
    there_BT1 = there_BT[..., None].astype(share_BTX.dtype)
    count = jnp.maximum(there_BT1.sum(), 1)
    picked_BTX = (chosen_BTP[..., None] == jnp.arange(X)).any(-2)
    f_X = (picked_BTX * there_BT1).sum((0, 1)) / (count * chosen_BTP.shape[-1])
    p_X = (share_BTX * there_BT1).sum((0, 1)) / count
    z_BT1 = jax.nn.logsumexp(logits_BTX, axis=-1, keepdims=True)
    return {
        "balance_loss": X * (f_X * p_X).sum(),
        "router_z_loss": (z_BT1 * z_BT1 * there_BT1).sum() / count,
        "expert_entropy": jax.scipy.special.entr(f_X).sum() / jnp.log(jnp.asarray(X, f_X.dtype)),
        "expert_max": X * f_X.max(),
    }


def penalty(experts: Experts, found: dict):
    """What a layer adds to the loss."""
    return experts.balance_loss * found["balance_loss"] + experts.z_loss * found["router_z_loss"]


# --- the picked experts of every token ------------------------------------------------------------


def spread(activation, x_BTD, weight_BTP, chosen_BTP, gate_XDF, up_XDF, down_XFD):
    """`mixed` on every device of the mesh in force, of the tokens and the experts that it holds, summed.

    A sort of all tokens would bring them all together, so each device lays out its own. Devices with other
    experts, or other parts of the same, read the same tokens.
    """
    tokens, kernels = (x_BTD, weight_BTP, chosen_BTP), (gate_XDF, up_XDF, down_XFD)
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return mixed(activation, 0, tokens, kernels)
    held, turned = placement("X.F", gate_XDF.shape, mesh), placement("XF.", down_XFD.shape, mesh)
    # The experts' axes are taken first: a batch that is spread over them too is gathered over them.
    X, _, F = gate_XDF.shape
    rows = type(held)(*placement("XBTF", (X, *x_BTD.shape[:2], F), mesh)[1:3])
    summed = [axis for each in held if each for axis in (each if isinstance(each, tuple) else (each,))]

    def part(tokens, kernels):
        first = jax.lax.axis_index(held[0]) * len(kernels[0]) if held[0] else 0
        y_BTD = mixed(activation, first, tokens, kernels)
        return jax.lax.psum(y_BTD, tuple(summed)) if summed else y_BTD

    places = ((rows,) * 3, (held, held, turned))
    return jax.shard_map(part, mesh=mesh, in_specs=places, out_specs=rows)(tokens, kernels)


def mixed(activation, first, tokens, kernels):
    """The weighted sum of what the picked ones of the experts `first`, `first` + 1, ... make of each token.

    `tokens` are x_BTD, weight_BTP and chosen_BTP, `kernels` those of the experts: gate_XDF, up_XDF, down_XFD.
    """
    (x_BTD, weight_BTP, chosen_BTP), (gate_XDF, up_XDF, down_XFD) = tokens, kernels
    X, D, P = len(gate_XDF), x_BTD.shape[-1], chosen_BTP.shape[-1]
    rows = block_rows(chosen_BTP.size, X)
    place, pick_S, size_X = layout(chosen_BTP.ravel() - first, X, rows)
    x_SD = x_BTD.reshape(-1, D).at[pick_S // P].get(mode="fill", fill_value=0)
    times = functools.partial(grouped, size_X=size_X, rows=rows)
    y_SD = times(activation(times(x_SD, gate_XDF)) * times(x_SD, up_XDF), down_XFD)
    y_BTPD = y_SD.at[place.reshape(chosen_BTP.shape)].get(mode="fill", fill_value=0)
    return (y_BTPD.astype(weight_BTP.dtype) * weight_BTP[..., None]).sum(-2).astype(x_BTD.dtype)


def block_rows(picks: int, X: int) -> int:
    """Rows of a block, a power of two: near 4 sqrt(picks / X), and 1 where experts are more than picks.

    In an expert's last block half the rows are empty on average, and a CPU copies a kernel for each block; a
    copied number costs as much as about 16 multiplications. 8,192 picks of 8 experts: 128 rows, 9 % empty.
    """
    return 1 if picks <= X else 2 ** round(math.log2(4 * math.sqrt(picks / X)))


def layout(chosen, X: int, rows: int):
    """Where picks [A] of X experts lie so that each expert's fill whole blocks of `rows`.

    (the row of each pick, the pick of each row, the rows of each expert), [A], [S] and [X]. S is the most
    that A picks can take. A pick of no such expert lies at S, beyond the last row; the pick of an empty row
    is A, beyond the last pick.
    """
    A = len(chosen)
    S = A if rows == 1 else (A + X * (rows - 1)) // rows * rows
    expert = jnp.where((chosen >= 0) & (chosen < X), chosen, X)
    order = jnp.argsort(expert, stable=True).astype(jnp.int32)
    count_X = (expert[:, None] == jnp.arange(X)).sum(0, dtype=jnp.int32)
    size_X = -(-count_X // rows) * rows
    begins = jnp.append(jnp.cumsum(size_X) - size_X, S)
    sorted_begins = jnp.append(jnp.cumsum(count_X) - count_X, 0)
    expert = expert[order]
    row = begins[expert] + jnp.arange(A) - sorted_begins[expert]
    row = jnp.where(expert < X, row, S).astype(jnp.int32)
    place = jnp.zeros(A, jnp.int32).at[order].set(row, unique_indices=True)
    pick_S = jnp.full(S, A, jnp.int32).at[row].set(order, mode="drop")
    return place, pick_S, size_X
