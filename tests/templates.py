"""Chat templates of the kinds that are published, small, for tests; and the marks that they write."""

MARKS = ("<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>")

# Qwen's and many others': every turn between two marks.
CHATML = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

# Llama's: the text begins by a mark, contents are trimmed, tools and the day are told to the system.
TRIMMING = """\
{{- bos_token }}
{%- if tools is not none %}{{ 'Tools: ' + tools | tojson + '\\n' }}{% endif %}
{{- 'Today: ' + strftime_now('%d %b %Y') + '\\n' }}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n\\n' + message.content | trim + '<|im_end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n\\n' }}{% endif %}
"""

# Gemma's: it refuses a system's message and turns out of order, and calls the assistant by another name.
STRICT = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{%- for message in messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{ '<|im_start|>' + role + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>model\\n' }}{%- endif -%}
"""

# Qwen 3's: the thoughts of earlier answers are left out.
THINKING = """\
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and not loop.last and '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

# SmolLM 3's: it says itself which of its text is an answer.
MARKING = """\
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {{ '<|im_start|>assistant\\n' }}
        {%- generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}
        {{- '\\n' }}
    {%- else -%}
        {{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}
"""

# Phi-3's: the end of text stands behind the last turn of all.
ENDING = """\
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- else %}{{- '<|end|>' }}{%- endif %}
"""

# Qwen 3's, whole: the last answer has thoughts, if only empty ones.
LAST_THINKING = """\
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'assistant' and '</think>' in content %}
        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
    {%- endif %}
    {%- set thought = '<think>\\n\\n</think>\\n\\n' if message.role == 'assistant' and loop.last else '' %}
    {{- '<|im_start|>' + message.role + '\\n' + thought + content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

TEMPLATES = {
    "chatml": CHATML,
    "trimming": TRIMMING,
    "strict": STRICT,
    "thinking": THINKING,
    "marking": MARKING,
}

# What a template from somewhere may try, and what a user then reads.
HOSTILE = {
    "loop": ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "more time"),
    "system's time": (
        "{% for i in range(90000) %}{% set x = 'x' * (200000000 + i) %}{% endfor %}",
        "more time",
    ),
    "doubling": (
        "{% set ns = namespace(s='x') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "memory",
    ),
    "objects": ("{{ ().__class__.__base__.__subclasses__() }}", "no template may"),
    "globals": ("{{ raise_exception.__globals__['sys'] }}", "no template may"),
    "change": ("{{ messages.append(1) }}", "no template may"),
    "colours": ("{{ raise_exception('\x1b[31mred\nline' ~ 'z' * 3000) }}", "refuses it: [31mred line"),
    "include": ("{% include '/etc/passwd' %}", "fails"),
    "itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls itself"),
    "syntax": ("{% for %}", "cannot be read (line 1"),
    "name": ("{{ nothing.at.all }}", "fails (UndefinedError"),
    "long": ("{{ 'x' * 20000000 }}", "more than 16,777,216"),
}
