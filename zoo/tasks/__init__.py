"""The objectives. A task turns examples into a batch, and features into sums to be averaged."""

from zoo.tasks.causal_lm import CausalLM

TASKS = {"causal_lm": CausalLM}
