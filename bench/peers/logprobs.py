"""Log-probs of token sequences under transformers: the test model's dequantised GGUF, with a PEFT adapter if given, or a folder of safetensors. One JSON object on stdout."""

import argparse
import json

import peer  # noqa: F401  first: it puts tests/golden on the path

import torch


def main():
    a = argparse.ArgumentParser()
    a.add_argument("--texts", required=True, help="JSON file with a list of lists of token ids")
    a.add_argument("--model", help="folder of safetensors; the test model's GGUF when absent")
    a.add_argument("--adapter", help="folder of a PEFT adapter")
    a.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"], help="what a folder of safetensors is computed in")
    a.add_argument("--threads", type=int, default=2)
    o = a.parse_args()
    torch.set_num_threads(o.threads)
    if o.model:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(o.model, dtype=getattr(torch, o.dtype), attn_implementation="eager")
    else:
        from smollm2_model import load

        model, _, _ = load()
    if o.adapter:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, o.adapter)
    model.eval()
    out = []
    with torch.inference_mode():
        for ids in json.load(open(o.texts, encoding="utf-8")):
            t = torch.tensor([ids])
            lp = torch.log_softmax(model(input_ids=t, use_cache=False).logits[0, :-1].float(), -1).gather(1, t[0, 1:, None])[:, 0]
            out.append([None] + lp.tolist())
    print(json.dumps({"logprobs": out}))


main()
