"""The generation peer: transformers on SmolLM2-135M (its GGUF dequantised), one JSON object on stdout. Prompt processing is a forward pass that fills the cache; decoding repeats it token by token."""

import argparse
import json
import time

from peer import peak_resident_bytes, token_ids  # first: it puts tests/golden on the path

import torch
import transformers
from smollm2_model import load


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--batch", type=int, default=1)
    a.add_argument("--prompt", type=int, default=512)
    a.add_argument("--tokens", type=int, default=64)
    a.add_argument("--runs", type=int, default=1)
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--bf16", action="store_true")
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    model, _, _ = load(torch.bfloat16 if o.bf16 else torch.float32, "sdpa")
    model.eval()
    ids = torch.tensor([token_ids(0, o.prompt)])
    prompts, decodes = [], []
    with torch.inference_mode():
        for run in range(o.runs + 1):
            start = time.perf_counter()
            out = model(input_ids=ids, use_cache=True, logits_to_keep=1)
            cache = out.past_key_values
            next_ids = out.logits[:, -1].argmax(-1, keepdim=True)
            first = time.perf_counter()
            if o.batch > 1:
                # The prompt is computed once and its cache repeated, which is kinder than what generate() does.
                cache.batch_repeat_interleave(o.batch)
                next_ids = next_ids.repeat(o.batch, 1)
            begin = time.perf_counter()
            for _ in range(o.tokens - 1):
                out = model(input_ids=next_ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                logits = out.logits[:, -1]
                next_ids = logits.argmax(-1, keepdim=True) if o.batch == 1 else torch.multinomial(torch.softmax(logits.float(), -1), 1)
            end = time.perf_counter()
            if run > 0:
                prompts.append(o.prompt / (first - start))
                decodes.append(o.batch * (o.tokens - 1) / (end - begin))
    print(json.dumps({
        "torch": torch.__version__, "transformers": transformers.__version__, "batch": o.batch, "promptTokens": o.prompt, "maxTokens": o.tokens,
        "prompts": prompts, "decodes": decodes, "peakRssBytes": peak_resident_bytes(),
    }))


main()
