#!/usr/bin/env python3
"""Writes tokens.json: what the original tokenizer, Python's `tokenizers`, makes of awkward texts.

Reads tokenizer.json beside it, the pruned WordPiece tokenizer of a distilled student.
Needs the package tokenizers. The golden test holds the runtime's ids to these.
"""

import json
import pathlib

import tokenizers

TEXTS = [
    "",
    " ",
    "wake me at six",
    "Wake me at SIX, please!",
    "what's the weather like in new york tomorrow?",
    "  spaces \t and\nline  breaks  ",
    "café naïve résumé Ångström",
    "cafe\u0301 with a combining accent",
    "Straße Übermut ÄÖÜ",
    "你好世界",
    "mixed 你好 and english",
    "こんにちは 안녕하세요",
    "привет мир",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "emoji 😀 and 👩‍👩‍👧‍👦 family",
    "3.14159 1,000,000 $5.00 50%",
    "e-mail: someone@example.com",
    "don't can't won't",
    "[CLS] [SEP] [UNK] [MASK] [PAD]",
    "a" * 99,
    "a" * 100,
    "a" * 101,
    "antidisestablishmentarianism",
    "\u0000 \u200b \ufeff \ufffd control",
    "ﬁ ligature and ½ fraction",
    "İstanbul ısı",
    "“quotes” — dashes … dots",
]


def main():
    here = pathlib.Path(__file__).parent
    tokenizer = tokenizers.Tokenizer.from_file(str(here / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    rows = [{"text": text, "ids": tokenizer.encode(text).ids} for text in TEXTS]
    lines = ",\n ".join(json.dumps(row) for row in rows)
    (here / "tokens.json").write_text(f'{{"rows": [\n {lines}\n]}}\n')
    print(f"{len(rows)} texts, tokenizers {tokenizers.__version__}")


main()
