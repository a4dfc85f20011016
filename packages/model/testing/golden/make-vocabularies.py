"""Makes vocabularies.json: two small vocabularies whose ids show every difference in how text is cut.

Run once by hand: python make-vocabularies.py. Versions used: Python 3, tokenizers 0.23.3, sentencepiece 0.2.3.
Then run make-golden.ts, which lets llama.cpp cut the texts.
"""

import io
import json

import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

texts = [
    "", " ", "  ", "\n", "\n\n", "\t", "Hello world", " Hello", "Hello  world   three", "don't we'll I'VE they'RE it'S",
    "x=1;\n\ty += 2\n\n\n    return x", "def f(a, b):\n    return a+b  # caf\u00e9\n", "1234567890 3.14159 1,000,000",
    "\u0663\u0664\u0665 \u00b2\u00b3 \u00bd \u2167 \u4e00\u4e8c\u4e09", "h\u00e9llo na\u00efve co\u00f6perate",
    "\uff21\uff22\uff23 \u2460", "\u4f60\u597d\uff0c\u4e16\u754c\uff01\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c \u30ab\u30bf\u30ab\u30ca", "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!", "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd", "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\U0001f600\U0001f603\U0001f604 \U0001f937\U0001f3fd\u200d\u2640\ufe0f \U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1eb\U0001f1f7",
    "a\U0001f600b", "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", "a<|im_end|>b", "<|im_start", "<s>x</s> <unk>",
    "\u00a0\u2003\u3000 x", "\u200b\u200d\ufeffx", "\u0001\u007fa", "tab\ttab\t\ttab", "trailing   ", "   leading",
    "line1\r\nline2\rline3\r\n\r\n", "$\u20ac\u00a3\u00a5 100% #tag @user", "a_b-c.d/e\\f|g~h`i^j", "!!!???...---___===",
    "https://example.com/path?q=1&b=2#x", "ALLCAPS CamelCase snake_case mixedCASE", "\u00df \u1e9e \u0130 \u0131 \u03a3 \u03c2",
    "\U0001d518\U0001d52b\U0001d526 \U00010400\U00010428", "\u2581\u2581 under\u2581score \u2581x", "' 's 't 'S ''", "0xDEADBEEF 1e-10 v1.2.3",
    "<0x41> <0x0A>", "\u0120 \u010a \u00c3\u00a9", "x\ny\n z\n\n w \n  \n", "12 123 1234 12345 123456 1a2b 3c", "(a) [b] {c} \"d\" 'e'",
    "The quick brown fox jumps over the lazy dog. " * 2,
]

special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# No cutting at all while training, so that merges reach over every border a rule may draw.
byte_level = Tokenizer(models.BPE())
byte_level.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
trainer = trainers.BpeTrainer(
    vocab_size=1500, min_frequency=1, special_tokens=special, show_progress=False,
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
)
corpus = texts + [t.upper() for t in texts] + [a + " " + b for a, b in zip(texts, texts[1:])]
byte_level.train_from_iterator(corpus, trainer)
model = json.loads(byte_level.to_str())["model"]

out = io.BytesIO()
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter([t for t in corpus if t.strip()]), model_writer=out, model_type="bpe", vocab_size=900,
    byte_fallback=True, character_coverage=0.98, normalization_rule_name="identity", remove_extra_whitespaces=False,
    control_symbols=["<|im_start|>", "<|im_end|>"], max_sentence_length=100000, minloglevel=2, split_digits=True,
)
pieces = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
kinds = []
for i in range(pieces.get_piece_size()):
    kinds.append(2 if pieces.is_unknown(i) else 3 if pieces.is_control(i) else 6 if pieces.is_byte(i) else 1)
plain = [t for t in texts if "<|" not in t and "<s>" not in t and "<0x" not in t]

json.dump(
    {
        "texts": texts,
        "byteLevel": {"special": special, "tokens": [t for t, _ in sorted(model["vocab"].items(), key=lambda e: e[1])],
                      "merges": [" ".join(m) for m in model["merges"]]},
        "sentencePiece": {"tokens": [pieces.id_to_piece(i) for i in range(pieces.get_piece_size())],
                          "scores": [pieces.get_score(i) for i in range(pieces.get_piece_size())], "types": kinds,
                          "plain": plain, "ids": [pieces.encode(t) for t in plain]},
    },
    open("vocabularies.json", "w"), ensure_ascii=True, separators=(",", ":"),
)
