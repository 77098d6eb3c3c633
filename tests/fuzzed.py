"""Random strings in many scripts, to compare a tokenizer with one in plain Python."""

import random

# Characters that have long been in Unicode: of newer ones the library and this Python may think otherwise.
POOLS = (
    "abcdefghijklmnopqrstuvwxyz    ",
    "ABCDEFÀÉÎÕÜßÆŒéèêñçåøžİıſﬁ",
    "0123456789.,;:!?-_'\"()[]{}@#$%^&*+=<>/\\|~`",
    "中文北京一二三的了是不在人有我他这豈㐀\U00020000\U0002f800",
    "あいうカタナㄅ한국어가나다",
    "абвгЙйЁё αβγΣσςΆέ",
    "אבגשׁ ابتثة हिन्दी ไทยกำ",
    "😀🎉👍🏽👩\u200d👧🇩🇪❤\ufe0f",
    "\u0300\u0301\u0308\u0327\u05b0\u0345",
    "\t\n\r\x0b\x0c\x1c\x85\xa0\u2003\u2028\u3000",
    "\x00\x01\x07\x7f\u200b\u200d\u200e\ufeff\ufffd\u00ad\ue000",
    "，。！？、「」《》…—‘’“”¿¡§",
)


def strings(count, seed):
    """Random strings out of a few pools each; one in 50 has a word of about a hundred letters."""
    rng = random.Random(seed)
    for _ in range(count):
        pools = (*rng.sample(POOLS, rng.randint(1, 4)), POOLS[0])
        written = "".join(rng.choice(rng.choice(pools)) for _ in range(rng.randint(0, 40)))
        yield written + "ca" * rng.randint(45, 55) * (rng.random() < 0.02)
