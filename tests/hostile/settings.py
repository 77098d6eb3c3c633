"""Configurations: config.json of published models, and what a run keeps of itself."""

import json

from hostile import CANARY, Case, folder, link, pipe, sparse

BERT = {
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
    "id2label": {"0": "no", "1": "yes"},
}
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 12,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-5,
}
MODERNBERT = {"architectures": ["ModernBertForMaskedLM"], "model_type": "modernbert"}
MIXTRAL = LLAMA | {"architectures": ["MixtralForCausalLM"], "model_type": "mixtral"}

REFUSED = {
    "a vocabulary of 2^40": BERT | {"vocab_size": 2**40},
    "no vocabulary": BERT | {"vocab_size": 0},
    "a vocabulary below 0": BERT | {"vocab_size": -1},
    "10^9 layers": BERT | {"num_hidden_layers": 10**9},
    "2^31 - 1 layers of a decoder": LLAMA | {"num_hidden_layers": 2**31 - 1},
    "10^9 layers with windows": LLAMA
    | {"architectures": None, "model_type": "mistral", "num_hidden_layers": 10**9},
    "10^9 experts": MIXTRAL | {"num_local_experts": 10**9},
    "a width that is a large prime": BERT | {"hidden_size": 2**31 - 1},
    "a width of a large prime in a decoder": LLAMA | {"hidden_size": 2**31 - 1},
    "no heads": BERT | {"num_attention_heads": 0},
    "2^31 - 1 labels": {k: v for k, v in BERT.items() if k != "id2label"} | {"num_labels": 2**31 - 1},
    "labels of numbers": BERT | {"id2label": {"0": 1, "1": 2}},
    "labels from 1": BERT | {"id2label": {"1": "no", "2": "yes"}},
    "labels in a list": BERT | {"id2label": ["no", "yes"]},
    "a float for an int": BERT | {"hidden_size": 8.0},
    "a boolean for an int": BERT | {"num_hidden_layers": True},
    "text for an int": BERT | {"num_hidden_layers": "2"},
    "a list for an int": BERT | {"num_hidden_layers": [2]},
    "an object for an int": BERT | {"num_hidden_layers": {"__reduce__": "os.system"}},
    "a number for a name": BERT | {"hidden_act": 1},
    "an expression for a name": BERT | {"hidden_act": "__import__('os').system('id')"},
    "a path for a name": BERT | {"hidden_act": "os.system"},
    "a rate above 1": BERT | {"hidden_dropout_prob": 7.0, "attention_probs_dropout_prob": 7.0},
    "an int of 400 digits for a float": BERT | {"layer_norm_eps": 10**400},
    "a class of ours": BERT | {"architectures": ["BERTConfig"]},
    "a class of Python's": BERT | {"architectures": ["os.system"]},
    "a class with a line end": BERT | {"architectures": ["Bert\nModel\x1b[2J"]},
    "classes in text": BERT | {"architectures": "BertModel"},
    "a class that is an object": BERT | {"architectures": [{"x": 1}]},
    "another type than class": BERT | {"model_type": "gpt2"},
    "a type that is a list": {"model_type": ["bert"]},
    "no type": {},
    "a type nobody has": {"model_type": "evil"},
    "half a character for a type": {"model_type": "\ud800"},
    "rope_scaling in text": LLAMA | {"rope_scaling": "yarn"},
    "rope_scaling in a list": LLAMA | {"rope_scaling": ["yarn"]},
    "a rope_type that is a list": LLAMA | {"rope_scaling": {"rope_type": ["yarn"]}},
    "a rope_type that is an object": LLAMA | {"rope_scaling": {"rope_type": {"x": 1}}},
    "a rope factor in text": LLAMA | {"rope_scaling": {"rope_type": "linear", "factor": "2"}},
    "a rope factor of 0": LLAMA
    | {"rope_scaling": {"rope_type": "yarn", "factor": 0.0, "mscale": 1.0, "mscale_all_dim": 0.0}},
    "mscale in text": LLAMA
    | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0, "mscale": "x", "mscale_all_dim": 1.0}},
    "rope_parameters that are a number": LLAMA | {"rope_parameters": 5},
    "layer_types that are a number": MODERNBERT | {"layer_types": 7},
    "layer_types that are an object": MODERNBERT | {"layer_types": {"0": "full_attention"}},
    "layer_types of lists": MODERNBERT | {"layer_types": [[], []]},
    "rope_parameters by kind that are numbers": MODERNBERT | {"rope_parameters": {"full_attention": 3}},
    "layer_types of a decoder that are lists": LLAMA
    | {"architectures": None, "model_type": "gemma3_text", "layer_types": [[], []]},
}
TEXTS = {
    "empty": b"",
    "cut": b"{",
    "a list": b"[1]",
    "text": b'"x"',
    "null": b"null",
    "NaN": json.dumps(BERT | {"layer_norm_eps": float("nan")}).encode(),
    "Infinity": json.dumps(BERT | {"layer_norm_eps": float("inf")}).encode(),
    "1e999": json.dumps(BERT).encode()[:-1] + b', "layer_norm_eps": 1e999}',
    "a setting twice": json.dumps(BERT).encode()[:-1] + b', "vocab_size": 13}',
    "5,000 digits": b'{"vocab_size": ' + b"1" * 5000 + b"}",
    "100,000 brackets": b"[" * 100_000,
    "100 levels": b'{"model_type": "bert", "x": ' + b"[" * 100 + b"]" * 100 + b"}",
    "latin1": b'{"model_type": "\xe9"}',
    "utf-16": json.dumps(BERT).encode("utf-16"),
    "100 MB": sparse(100 << 20, b'{"model_type": "bert"}'),
    "2 MB": b'{"model_type": "bert", "x": "' + b"x" * (2 << 20) + b'"}',
    "YAML that builds an object": b"!!python/object/apply:os.system ['id']",
    "comments": b'{"model_type": "bert" /* */}',
    "a comma too many": b'{"model_type": "bert",}',
    "a pipe": pipe,
    "a folder": folder,
    "a device": link("/dev/zero"),
    "a link out": link("/etc/hostname"),
    "a link to itself": link("config.json"),
}
HARMLESS = {
    "auto_map": {"auto_map": {"AutoModel": "modeling_evil.Evil", "AutoConfig": "modeling_evil.Evil"}},
    "trust_remote_code": {"trust_remote_code": True},
    "code for attention": {
        "_attn_implementation_internal": "someone/kernels:main",
        "attn_implementation": "x/y",
    },
    "pipelines": {"custom_pipelines": {"x": {"impl": "modeling_evil.Evil"}}},
    "a Hydra target": {"_target_": "os.system", "args": ["id"]},
    "a quantiser's class": {"quantization_config_": {"quant_method": "modeling_evil.Evil"}},
    "a class to be pickled": {"__reduce__": ["os.system", ["id"]], "__class__": "os.system"},
    "a name of another folder": {"_name_or_path": "../../x", "_commit_hash": "; rm -rf /"},
}
EVIL = f"open('/tmp/{CANARY}', 'w')\nclass Evil: pass\n"

RECIPE = {"type": "Recipe", "name": "x"}
RUN = {"recipe_name": "x", "data_digest": "0" * 64, "versions": {}}
RUNS = {
    "a class of Python's": {"model": {"type": "os.system"}},
    "a class of another kind": {"model": {"type": "AdamW"}},
    "a model without a class": {"model": {"vocab_size": 3}},
    "a class that is a list": {"model": {"type": ["GPTConfig"]}},
    "a class that is an object": {"model": {"type": {"x": 1}}},
    "a field that nobody has": {"_target_": "os.system"},
    "a dotted field": {"model.d_model": 8},
    "a field of Python's": {"__class__": "os.system"},
    "a model in text": {"model": "GPTConfig()"},
    "a list for a model": {"model": []},
    "a float for steps": {"steps": 1.5},
    "text for steps": {"steps": "10"},
    "a boolean for steps": {"steps": True},
    "steps below 0": {"steps": -1},
    "a name that leads out": {"name": "../../x"},
    "a name with a line end": {"name": "x\ny"},
    "a schedule in text": {"schedule": "__import__('os')"},
    "a width of 2^40": {"model": {"type": "GPTConfig", "d_model": "1" * 400}},
    "an optimizer of numbers": {"optimizer": 7},
    "deep lists": {"mesh": [[[[[[[[[[1]]]]]]]]]]},
}
RUN_TEXTS = {
    "NaN": b'{"recipe": {"type": "Recipe", "steps": NaN}, "data_digest": "x"}',
    "a field twice": b'{"recipe": {"type": "Recipe", "steps": 1, "steps": 2}, "data_digest": "x"}',
    "100,000 brackets": b'{"recipe": ' + b"[" * 100_000,
    "no digest": json.dumps({"recipe": RECIPE}).encode(),
    "a recipe that is a list": json.dumps(RUN | {"recipe": [1]}).encode(),
    "a recipe that is a number": json.dumps(RUN | {"recipe": 1}).encode(),
    "zeros": bytes(1000),
    "a pipe": pipe,
    "1 GB": sparse(1 << 30, b"{"),
}
LABELS = {
    "a list": b'["a"]',
    "no tags": b'{"labels": ["a"]}',
    "labels in text": b'{"labels": "ab", "tags": []}',
    "deep": b"[" * 100_000,
    "labels twice": b'{"labels": ["a"], "labels": ["b"], "tags": []}',
    "a pipe": pipe,
    "1 GB": sparse(1 << 30, b"{"),
    "latin1": b'{"labels": ["\xe9"], "tags": []}',
}
COMMANDS = {
    "an expression": ["--model.d-model", "__import__('os').system('id')"],
    "a class of Python's": ["--optimizer", "os.system"],
    "a field of Python's": ["--model.__class__", "x"],
    "a recipe that is a path": ["../../x"],
    "not a number": ["--optimizer.learning-rate", "nan"],
    "a number of 5,000 digits": ["--steps", "1" * 5000],
    "a name that leads out": ["--name", "../x"],
    "brackets": ["--mesh.data", "[" * 10_000],
    "a flag of 100,000 letters": ["--" + "x" * 100_000, "1"],
    "a line end": ["--steps\n", "1"],
}


def cases():
    for name, content in REFUSED.items():
        yield Case(
            f"config: {name}", "config", {"config.json": json.dumps(content)}, "CheckpointError", "I5, S11"
        )
    for name, content in TEXTS.items():
        yield Case(f"config file: {name}", "config", {"config.json": content}, "CheckpointError", "I5, J3")
    for name, more in HARMLESS.items():
        files = {"config.json": json.dumps(BERT | more), "modeling_evil.py": EVIL, "evil.so": b"\x7fELF"}
        yield Case(f"config: {name}", "config", files, source="CVE-2026-4372, CVE-2026-5241")
    for name, more in RUNS.items():
        files = {"config.json": json.dumps(RUN | {"recipe": RECIPE | more})}
        yield Case(f"run: {name}", "run", files, "ConfigError", "J1, J3, S3")
    for name, content in RUN_TEXTS.items():
        yield Case(f"run file: {name}", "run", {"config.json": content}, "CheckpointError", "J3")
    for name, content in LABELS.items():
        yield Case(f"labels: {name}", "labels", {"labels.json": content}, "DataError", "I5")
    for name, argv in COMMANDS.items():
        yield Case(f"command: {name}", "command", {}, "ConfigError", "J1, S4", {"argv": argv}, seconds=1.0)
