"""What word vectors are trained for: which words stand beside which.

skip-gram and CBOW (Mikolov et al. 2013, arXiv 1301.3781) with negative sampling (arXiv 1310.4546, equation
4), and GloVe (Pennington et al. 2014, aclanthology.org/D14-1162, equation 8).

    the cat [sat] on the mat        window 2 at "sat"
    skip-gram   sat -> cat, sat -> on, ...          each pair is real; k made-up ones stand against it
    CBOW        mean(the, cat, on, the) -> sat      as is this one
    GloVe       log(how often sat stood near cat)   what their score should be, over the whole text

What is unusual: a batch row is a stretch of running text and its negative samples are drawn once for all of
it (Ji et al. 2016, arXiv 1604.04661, share them within one window), so that all scores of a row are two
matrix products and each vector is fetched once a row and not once a pair. Each sample counts k / (samples
per row), so the expected loss is the paper's, of k samples for each pair.
"""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from zoo.errors import ConfigError


@dataclass(frozen=True)
class SkipGram:
    """Each word predicts each of its neighbours."""

    trait: ClassVar[str] = "table"
    kind: ClassVar[str] = "word_pairs"

    negatives: int = 5
    """The paper's k: how much the made-up pairs count, for each real one."""

    def __post_init__(self):
        at_least_one(self.negatives)

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, targets, weights, ...} of the examples of zoo/data/word_pairs.py."""
        return {
            "inputs": {"tokens": centres(examples)},
            "targets": examples["tokens"],
            "weights": examples["weights"],
            **{name: examples[name] for name in ("segments", "windows", "negatives")},
        }

    def loss(self, x_BTD, readout, batch) -> dict:
        """Sums over the batch: "loss" in nats and "weight", the number of pairs."""
        near_BTS = neighbours(batch)
        real_BTS = near_BTS * jax.nn.softplus(-readout(x_BTD, batch["targets"]))
        made_up_BT = jax.nn.softplus(readout(x_BTD, batch["negatives"])).mean(-1)
        pairs_BT = near_BTS.sum(-1)
        nats = real_BTS.sum() + self.negatives * (pairs_BT * made_up_BT).sum()
        return {"loss": nats, "weight": pairs_BT.sum()}

    def outputs(self, model, params, x_BTD, batch) -> dict:
        """Nothing: the sums say it all."""
        return {}

    def metrics(self, sums: dict[str, float], outputs: list, dataset) -> dict[str, float]:
        """Of a validation text: nats per pair, its negative samples included."""
        return mean_loss(sums)


@dataclass(frozen=True)
class CBOW:
    """The mean of a word's neighbours predicts it ("continuous bag of words")."""

    trait: ClassVar[str] = "table"
    kind: ClassVar[str] = "word_pairs"

    negatives: int = 5
    """The paper's k: how much the made-up words count, for each real one."""

    def __post_init__(self):
        at_least_one(self.negatives)

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, targets, weights, ...} of the examples of zoo/data/word_pairs.py."""
        return {
            "inputs": {"tokens": examples["tokens"]},
            "targets": centres(examples),
            "weights": examples["weights"],
            **{name: examples[name] for name in ("segments", "windows", "negatives")},
        }

    def loss(self, x_BSD, readout, batch) -> dict:
        """Sums over the batch: "loss" in nats and "weight", the number of words that have a neighbour."""
        near_BTS = neighbours(batch)
        count_BT = near_BTS.sum(-1)
        share_BTS = near_BTS / jnp.maximum(count_BT, 1.0)[..., None]
        x_BTD = jnp.einsum("BTS,BSD->BTD", share_BTS.astype(x_BSD.dtype), x_BSD)
        B, T, D = x_BTD.shape
        real_BT = jax.nn.softplus(-readout(x_BTD.reshape(B * T, D), batch["targets"].reshape(B * T, 1)))
        made_up_BT = jax.nn.softplus(readout(x_BTD, batch["negatives"])).mean(-1)
        weight_BT = (count_BT > 0).astype(real_BT.dtype)
        nats = (weight_BT * (real_BT.reshape(B, T) + self.negatives * made_up_BT)).sum()
        return {"loss": nats, "weight": weight_BT.sum()}

    def outputs(self, model, params, x_BSD, batch) -> dict:
        """Nothing: the sums say it all."""
        return {}

    def metrics(self, sums: dict[str, float], outputs: list, dataset) -> dict[str, float]:
        """Of a validation text: nats per word, its negative samples included."""
        return mean_loss(sums)


@dataclass(frozen=True)
class GloVe:
    """The score of two words is the logarithm of how often they stood together."""

    trait: ClassVar[str] = "table"
    kind: ClassVar[str] = "cooccurrences"

    full_count: float = 100.0
    """The paper's x_max: counts from here on weigh 1."""
    exponent: float = 0.75
    """The paper's alpha: a count x below weighs (x / full_count) ** exponent."""

    def __post_init__(self):
        for field in ("full_count", "exponent"):
            if not getattr(self, field) > 0:
                raise ConfigError(f"{field}={getattr(self, field)} must be above 0")

    def batch(self, examples: dict[str, np.ndarray]) -> dict:
        """{inputs, targets, weights, ...} of the examples of zoo/data/cooccurrences.py."""
        return {
            "inputs": {"tokens": examples["words"]},
            "contexts": examples["contexts"][:, None],
            "targets": examples["counts"],
            "weights": examples["present"],
        }

    def loss(self, x_BD, readout, batch) -> dict:
        """Sums over the batch: "loss", weighted squared errors, and "weight", the number of cells."""
        count_B, present_B = batch["targets"], batch["weights"]
        error_B = readout(x_BD, batch["contexts"])[:, 0] - jnp.log(jnp.maximum(count_B, 1e-30))
        weigh_B = jnp.minimum(1.0, (count_B / self.full_count) ** self.exponent)
        return {"loss": (present_B * weigh_B * error_B**2).sum(), "weight": present_B.sum()}

    def outputs(self, model, params, x_BD, batch) -> dict:
        """Nothing: the sums say it all."""
        return {}

    def metrics(self, sums: dict[str, float], outputs: list, dataset) -> dict[str, float]:
        """Of the cells that were kept from training: the weighted squared error of a cell."""
        return mean_loss(sums)


# --- rows of running text -------------------------------------------------------------------------


def centres(examples) -> np.ndarray:
    """The words of a row that have their whole window in it: all but as many at both ends."""
    margin = (examples["tokens"].shape[1] - examples["windows"].shape[1]) // 2
    return examples["tokens"][:, margin : margin + examples["windows"].shape[1]]


def neighbours(batch):
    """1.0 where place S of a row lies in the window of centre T, in the same sentence, and is not the
    centre itself; [B, T, S].

    place       0 1 2 3 4 5      centre 0 stands at place 1 where the margin is 1
    centre 0    1 . 1
    centre 1      1 . 1
    """
    segments_BS, windows_BT = batch["segments"], batch["windows"]
    T, S = windows_BT.shape[1], segments_BS.shape[1]
    place_T = jnp.arange(T) + (S - T) // 2
    distance_TS = jnp.abs(jnp.arange(S) - place_T[:, None])
    same_BTS = segments_BS[:, None] == segments_BS[:, place_T][..., None]
    near_BTS = same_BTS & (distance_TS > 0) & (distance_TS <= windows_BT[..., None])
    return near_BTS * batch["weights"][..., None]


def mean_loss(sums: dict[str, float]) -> dict[str, float]:
    """The loss of a pair, word or cell; 0 where there was none."""
    return {"eval_loss": sums["loss"] / max(sums["weight"], 1.0)}


def at_least_one(negatives: int) -> None:
    if negatives < 1:
        raise ConfigError(f"negatives={negatives} must be at least 1; 5 is usual")
