"""Recurrences over time: LSTM, GRU and Elman's network, with gradients written by hand.

Plain functions of arrays, time-major. `x` already holds the projection of all inputs, made by the caller in
one matmul (`project`), and every bias that can be folded into it; what is left to do step by step is

    state_t = cell(x_t, state_{t-1}, weights)            h_t is the output

Unusual is the gradient, which is written by hand. Differentiating the loop would run one small matmul per
step for the weights and add it to an accumulator as large as they are (for 1,500 units 36 MB read and written
per step). Here the loop backwards gives only the gradients of the gates; those of the weights are one matmul
over all T*B rows after it. Forward keeps what that needs and no more: the activated gates, the states.

    forward   x_t -> gates_t, state_t            (kept, stacked over T)
    backward  d h_t, gates_t -> d gates_t        (these are d x)
    after it  d w = sum over t, b of h_{t-1} d gates_t

Shared by all functions: `present_TB` says which steps exist: where it is False the state stays as it is, the
output is 0, and neither the content of `x` nor the gradient of the output matter. `fresh_TB` says which steps
begin a document: where it is True the state before the step is 0. `reverse` goes from the last position to
the first, so the returned state is that of position 0. `unroll` steps make one trip of the compiled loop.
Activations have the dtype of `x`, to which weights are cast; cells, sums and weight gradients have at
least float32. Only reverse-mode differentiation is defined.
"""

from zoo.recurrence.elman import elman
from zoo.recurrence.gru import gru, gru_original
from zoo.recurrence.lstm import lstm, projected_lstm
from zoo.recurrence.projection import project

__all__ = ["elman", "gru", "gru_original", "lstm", "project", "projected_lstm"]
