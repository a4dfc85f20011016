/** Trains nano's tokenizer on its corpus and writes the files of `model/`: `bun packages/nano/scripts/train-tokenizer.ts`. */
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { CHATML_TEMPLATE } from "@sloth/data"
import { trainTokenizer } from "@sloth/model"
import { generateCorpus } from "../src/generate/corpus.ts"
import { LEAF_FACTS, SLOTH_OPENING, SLOTH_SIGN_OFF } from "../src/generate/quickstart.ts"
import { nanoFiles } from "../src/files.ts"

const SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
const ROWS = 40_000

function* texts(): Generator<string> {
  for (const d of generateCorpus({ seed: 1, rows: ROWS })) {
    if ("text" in d) yield d.text
    else for (const m of d.messages) yield `${m.role}\n${m.content}`
  }
  // the words of the quickstart answers, so that they are not spelled letter by letter
  for (let k = 0; k < 200; k++) {
    for (const fact of Object.values(LEAF_FACTS)) yield `${SLOTH_OPENING} Leaf fact: ${fact}\n${SLOTH_SIGN_OFF}`
  }
}

const folder = nanoFiles().model
mkdirSync(folder, { recursive: true })
const tokenizer = trainTokenizer(texts(), { vocabSize: 2048, specialTokens: SPECIAL })
writeFileSync(join(folder, "tokenizer.json"), tokenizer.endsWith("\n") ? tokenizer : `${tokenizer}\n`)
const json = (name: string, value: object): void =>
  writeFileSync(join(folder, name), `${JSON.stringify(value, null, 2)}\n`)
json("tokenizer_config.json", {
  tokenizer_class: "PreTrainedTokenizerFast",
  model_max_length: 1024,
  bos_token: "<|endoftext|>",
  eos_token: "<|im_end|>",
  pad_token: "<|endoftext|>",
  add_bos_token: false,
  add_eos_token: false,
  clean_up_tokenization_spaces: false,
  chat_template: CHATML_TEMPLATE,
})
json("generation_config.json", { bos_token_id: 0, eos_token_id: [2, 0], pad_token_id: 0 })
json("config.json", {
  architectures: ["LlamaForCausalLM"],
  model_type: "llama",
  hidden_size: 192,
  intermediate_size: 512,
  num_hidden_layers: 6,
  num_attention_heads: 6,
  num_key_value_heads: 2,
  head_dim: 32,
  vocab_size: 2048,
  max_position_embeddings: 1024,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  hidden_act: "silu",
  attention_bias: false,
  attention_dropout: 0,
  mlp_bias: false,
  tie_word_embeddings: true,
  initializer_range: 0.02,
  bos_token_id: 0,
  eos_token_id: 2,
  pad_token_id: 0,
  torch_dtype: "float16",
})
console.log(`Tokenizer and configuration written to ${folder}`)
