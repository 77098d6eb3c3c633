"""GPT-2 in NumPy and float64, forward and backward by hand: an oracle that needs no torch.

Written from the papers (Radford et al. 2019; layer normalisation arXiv 1607.06450; GELU arXiv 1606.08415;
attention arXiv 1706.03762) and from the names and [in, out] shapes of Hugging Face's tensors. It shares
nothing with zoo. Every function returns its value and `pull`, which turns the gradient of that value into
the gradients of the arguments, in their order.
"""

import math

import numpy as np


def loss_and_gradients(tensors, tokens_BT, targets_BT, weights_BT, *, num_heads, activation):
    """(logits_BTV, mean nats per counted target, {name: gradient}) of GPT2LMHeadModel's `tensors`.

    A bias that is not among the tensors is zero and gets no gradient.
    """
    tensors = {name: np.asarray(x, np.float64) for name, x in tensors.items()}
    logits_BTV, pull_model = gpt2(tensors, tokens_BT, num_heads=num_heads, activation=activation)
    loss, pull_loss = cross_entropy(logits_BTV, targets_BT, weights_BT)
    return logits_BTV, loss, pull_model(pull_loss(1.0))


def gpt2(tensors, tokens_BT, *, num_heads, activation):
    """Token and position tables, blocks, a last norm, and the token table again as the output layer."""
    wte_VD, wpe_TD = tensors["transformer.wte.weight"], tensors["transformer.wpe.weight"]
    T = tokens_BT.shape[1]
    x_BTD = wte_VD[tokens_BT] + wpe_TD[:T]
    pulls = []
    while f"transformer.h.{len(pulls)}.ln_1.weight" in tensors:
        before = f"transformer.h.{len(pulls)}."
        weights = {name.removeprefix(before): x for name, x in tensors.items() if name.startswith(before)}
        x_BTD, pull = block(x_BTD, weights, num_heads, activation)
        pulls.append(pull)
    scale_D, bias_D = tensors["transformer.ln_f.weight"], tensors.get("transformer.ln_f.bias", 0)
    y_BTD, pull_norm = layer_norm(x_BTD, scale_D, bias_D)
    logits_BTV = y_BTD @ wte_VD.T

    def pull_model(d_logits_BTV):
        d_BTD, d_scale_D, d_bias_D = pull_norm(d_logits_BTV @ wte_VD)
        gradients = {"transformer.ln_f.weight": d_scale_D, "transformer.ln_f.bias": d_bias_D}
        for n in reversed(range(len(pulls))):
            d_BTD, of_block = pulls[n](d_BTD)
            gradients |= {f"transformer.h.{n}.{name}": d for name, d in of_block.items()}
        d_wte_VD = np.einsum("btv,btd->vd", d_logits_BTV, y_BTD)
        np.add.at(d_wte_VD, tokens_BT, d_BTD)
        d_wpe_TD = np.zeros_like(wpe_TD)
        d_wpe_TD[:T] = d_BTD.sum(0)
        gradients |= {"transformer.wte.weight": d_wte_VD, "transformer.wpe.weight": d_wpe_TD}
        return {name: gradients[name] for name in tensors}

    return logits_BTV, pull_model


def block(x_BTD, weights, num_heads, activation):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def of(name):
        return weights[f"{name}.weight"], weights.get(f"{name}.bias", 0)

    normed_BTD, pull_norm1 = layer_norm(x_BTD, *of("ln_1"))
    qkv, pull_qkv = linear(normed_BTD, *of("attn.c_attn"))
    mixed_BTD, pull_attention = attention(qkv, num_heads)
    out_BTD, pull_out = linear(mixed_BTD, *of("attn.c_proj"))
    middle_BTD = x_BTD + out_BTD

    normed_BTD, pull_norm2 = layer_norm(middle_BTD, *of("ln_2"))
    up_BTF, pull_up = linear(normed_BTD, *of("mlp.c_fc"))
    active_BTF, pull_activation = activation(up_BTF)
    down_BTD, pull_down = linear(active_BTF, *of("mlp.c_proj"))

    def pull(d_BTD):
        gradients = {}

        def keep(name, d_input, d_weight, d_bias):
            gradients[f"{name}.weight"], gradients[f"{name}.bias"] = d_weight, d_bias
            return d_input

        d_active = keep("mlp.c_proj", *pull_down(d_BTD))
        d_normed = keep("mlp.c_fc", *pull_up(pull_activation(d_active)))
        d_BTD = d_BTD + keep("ln_2", *pull_norm2(d_normed))
        d_mixed = keep("attn.c_proj", *pull_out(d_BTD))
        d_normed = keep("attn.c_attn", *pull_qkv(pull_attention(d_mixed)))
        d_BTD = d_BTD + keep("ln_1", *pull_norm1(d_normed))
        return d_BTD, gradients

    return middle_BTD + down_BTD, pull


def attention(qkv, num_heads):
    """Causal attention. `qkv` [B, T, 3 D]: queries, keys, values side by side, in each of them its heads."""
    B, T, width = qkv.shape
    K = width // 3 // num_heads
    q_BHTK, k_BHTK, v_BHTK = qkv.reshape(B, T, 3, num_heads, K).transpose(2, 0, 3, 1, 4)
    scores_BHTS = q_BHTK @ k_BHTK.swapaxes(-1, -2) / math.sqrt(K)
    scores_BHTS = np.where(np.tri(T, dtype=bool), scores_BHTS, -np.inf)
    p_BHTS = np.exp(scores_BHTS - scores_BHTS.max(-1, keepdims=True))
    p_BHTS /= p_BHTS.sum(-1, keepdims=True)
    y_BTD = (p_BHTS @ v_BHTK).swapaxes(1, 2).reshape(B, T, -1)

    def pull(d_BTD):
        d_BHTK = d_BTD.reshape(B, T, num_heads, K).swapaxes(1, 2)
        d_p_BHTS = d_BHTK @ v_BHTK.swapaxes(-1, -2)
        d_scores_BHTS = p_BHTS * (d_p_BHTS - (d_p_BHTS * p_BHTS).sum(-1, keepdims=True)) / math.sqrt(K)
        d_q = d_scores_BHTS @ k_BHTK
        d_k = d_scores_BHTS.swapaxes(-1, -2) @ q_BHTK
        d_v = p_BHTS.swapaxes(-1, -2) @ d_BHTK
        return np.stack([d_q, d_k, d_v]).transpose(1, 3, 0, 2, 4).reshape(B, T, width)

    return y_BTD, pull


def linear(x, weight, bias):
    def pull(d):
        return d @ weight.T, np.einsum("bti,bto->io", x, d), d.sum((0, 1))

    return x @ weight + bias, pull


def layer_norm(x, scale, bias):
    """(x - mean) / sqrt(variance + 1e-5), scaled and shifted."""
    deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    normal = (x - x.mean(-1, keepdims=True)) / deviation

    def pull(d):
        d_normal = d * scale
        slope = (d_normal * normal).mean(-1, keepdims=True)
        d_x = (d_normal - d_normal.mean(-1, keepdims=True) - normal * slope) / deviation
        return d_x, (d * normal).sum((0, 1)), d.sum((0, 1))

    return normal * scale + bias, pull


def gelu_tanh(x):
    """x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), GPT-2's."""
    slope = math.sqrt(2 / math.pi)
    tanh = np.tanh(slope * (x + 0.044715 * x**3))
    d_tanh = (1 - tanh**2) * slope * (1 + 3 * 0.044715 * x**2)
    return x / 2 * (1 + tanh), lambda d: d * ((1 + tanh) / 2 + x / 2 * d_tanh)


def gelu(x):
    """x times the share of a standard normal below x, nanoGPT's."""
    below = (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2
    density = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    return x * below, lambda d: d * (below + x * density)


def cross_entropy(logits_BTV, targets_BT, weights_BT):
    """The weighted mean of -log softmax(logits)[target]."""
    share_BT = np.asarray(weights_BT, np.float64) / np.sum(weights_BT, dtype=np.float64)
    shifted_BTV = logits_BTV - logits_BTV.max(-1, keepdims=True)
    log_p_BTV = shifted_BTV - np.log(np.exp(shifted_BTV).sum(-1, keepdims=True))
    is_target_BTV = np.arange(logits_BTV.shape[-1]) == targets_BT[..., None]
    loss = -(share_BT * log_p_BTV[is_target_BTV].reshape(targets_BT.shape)).sum()
    return loss, lambda d: d * share_BT[..., None] * (np.exp(log_p_BTV) - is_target_BTV)
