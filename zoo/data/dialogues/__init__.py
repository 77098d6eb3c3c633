"""Dialogues as data: messages to texts by a chat template, to tokens of which the answers count.

messages.py     messages out of records as people publish them; files.py: out of files
template.py     a chat template, rendered by rendering.py in a process of its own
encoding.py     a rendered dialogue as tokens, and which of them are answers
dialogue_set.py packed rows of them; config.py: which
library.py      dialogues about the functions of Python's library
"""
