"""Texts with some of their words masked: what BERT is trained on.

config.py      which text, which pairs, how much of it is masked
sentences.py   a text as sentences of tokens
chunks.py      runs of sentences, one by one or as pairs
masks.py       which tokens are predicted, and what stands in their places
rows.py        chunks packed into rows
masked_set.py  batches of a step, and one pass over the part that is evaluated
"""
