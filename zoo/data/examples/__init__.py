"""Labelled examples: texts to classify, sentences to tag, pairs to translate or summarise.

config.py           the settings
record.py           what an example is; records/ reads them from files, stdlib_records.py makes them
labels.py           names of classes and tags
encoding.py         records as numbers
spelling.py         the characters of words
padded.py           one example in a row
windows.py          a question and a long text in several rows; answers.py makes answers of their scores
groups.py           several texts in an example: pairs that are read apart, triplets, choices
buckets.py          which rows share a batch, and its shape
one_pass.py         some records in batches, once: what is evaluated or predicted
example_set.py      the data of a run: training batches without end, and a pass over another part
majority.py         what guessing scores
"""
